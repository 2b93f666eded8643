/* ---
stage: [sft, preference]
needs: [phrases]
adopted: false
description: An answer leaves blanks such as [Your Name], which may be what was asked for.
--- */
SELECT row_id, 'the answer leaves ' || array_to_string(answer_blanks, ', ') AS reason
FROM signals
WHERE len(answer_blanks) > 0
