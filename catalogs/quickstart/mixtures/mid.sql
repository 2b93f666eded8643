/* ---
stage: midtrain
tokenizer: tiny
template: chatml
rendering: trl_assistant
--- */
SELECT * FROM take_rows('skills', 18_000, seed := 1)
