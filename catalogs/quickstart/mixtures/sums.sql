/* ---
stage: preference
tokenizer: tiny
template: chatml
--- */
SELECT row_id FROM kept WHERE source = 'sums_pairs'
