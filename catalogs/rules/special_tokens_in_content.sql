/* ---
stage: [sft, preference]
needs: [phrases]
description: Control tokens of a chat template inside an answer, outside of code, where nobody asked about templates or tokens.
--- */
SELECT row_id, 'the answer holds ' || array_to_string(answer_special_tokens, ' ') AS reason
FROM signals
WHERE len(answer_special_tokens) > 0 AND NOT placeholders_discussed
