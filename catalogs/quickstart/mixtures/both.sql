/* ---
stage: sft
tokenizer: tiny
template: chatml
rendering: trl_assistant
--- */
SELECT * FROM take_tokens('addition', 80_000, seed := 7)
UNION ALL
SELECT * FROM take_tokens('reversal', 40_000, seed := 7)
