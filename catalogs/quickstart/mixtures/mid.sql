/* ---
stage: midtrain
tokenizer: tiny
template: chatml
rendering: trl_assistant
--- */
SELECT * FROM take_rows('skills', 16_000, seed := 1)
