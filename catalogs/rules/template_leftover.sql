/* ---
stage: [sft, preference]
needs: [phrases]
description: Placeholders such as {{name}} that were never filled in, in an assistant turn, where nobody asked for a template or for code.
--- */
SELECT row_id, 'the answer holds a placeholder such as ' || answer_placeholders[1] AS reason
FROM signals
WHERE len(answer_placeholders) > 0 AND NOT placeholders_discussed
