/* ---
stage: sft
description: A thought that opens and never closes teaches the model not to stop.
--- */
SELECT row_id, 'a think block opens and never closes' AS reason
FROM rows_sft
WHERE len(list_filter(messages, lambda m: m.role = 'assistant'
    AND (contains(m.content, '<think>') AND NOT contains(m.content, '</think>')))) > 0
