/* ---
stage: [sft, preference]
needs: [trace_structure]
description: A thought inside a thought, one that is closed twice or by another mark, or the same thought twice in a turn; no chat template can tell thought from answer.
--- */
SELECT row_id, 'a think block is ' || think_fault AS reason
FROM signals
WHERE think_fault IN ('nested', 'closed twice', 'mismatched', 'duplicated')
