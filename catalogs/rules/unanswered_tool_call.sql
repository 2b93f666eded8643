/* ---
stage: [sft, preference]
needs: [tool_calls]
adopted: false
description: A call without a result, results in another order, or a conversation that ends on a call. Data that teaches single calls ends so on purpose, so a person decides.
--- */
SELECT row_id, coalesce(tool_fault, 'the conversation ends on ' || unfinished_calls || ' calls') AS reason
FROM signals
WHERE unanswered_calls > 0 OR misordered_results > 0 OR unfinished_calls > 0
