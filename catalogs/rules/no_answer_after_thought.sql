/* ---
stage: [sft, preference]
needs: [trace_structure]
description: An assistant turn closes its thought and ends; it neither answers nor calls a tool.
--- */
SELECT row_id, 'no answer follows the thought' AS reason
FROM signals
WHERE NOT answer_after_thought
