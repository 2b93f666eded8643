/* ---
stage: [sft, preference]
needs: [tool_calls]
adopted: false
description: A call without a result, results in another order, or a conversation that ends on a call. Data that teaches single calls ends so on purpose, so a person decides.
--- */
SELECT row_id, concat_ws(', ',
    CASE WHEN unanswered_calls > 0 THEN 'calls without a result: ' || unanswered_calls END,
    CASE WHEN misordered_results > 0 THEN 'results in another order: ' || misordered_results END,
    CASE WHEN unfinished_calls > 0 THEN 'the conversation ends on ' || unfinished_calls || ' calls' END)
    || coalesce('; first fault of the row: ' || tool_fault, '') AS reason
FROM signals
WHERE unanswered_calls > 0 OR misordered_results > 0 OR unfinished_calls > 0
