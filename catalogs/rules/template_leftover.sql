/* ---
stage: sft
description: Placeholders such as {{name}} that were never filled in, in an assistant turn.
--- */
SELECT row_id, 'the answer holds a placeholder such as {{name}}' AS reason
FROM rows_sft
WHERE len(list_filter(messages, lambda m: m.role = 'assistant'
    AND regexp_matches(m.content, '\{\{\s*[a-zA-Z_]+\s*\}\}'))) > 0
