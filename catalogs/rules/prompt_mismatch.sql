/* ---
stage: preference
needs: [pair_quality]
description: The sides hold user or system turns of their own that differ, so they answer different prompts and cannot be compared.
--- */
SELECT row_id, 'the sides answer different prompts' AS reason
FROM signals
WHERE prompts_mismatch
