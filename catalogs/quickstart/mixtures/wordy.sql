/* ---
stage: sft
tokenizer: tiny
template: chatml
rendering: trl_assistant
--- */
SELECT row_id FROM kept WHERE source = 'wordy'
