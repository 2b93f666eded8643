/* ---
stage: sft
tokenizer: tiny
template: chatml
rendering: trl_assistant
--- */
-- Only addition: what this mixture leaves out, the model forgets, and the drift report says so.
SELECT * FROM take_tokens('addition', 120_000, seed := 7)
