/* ---
stage: [sft, preference]
needs: [tool_calls]
description: A call that names no tool of the row, is no call, has arguments that its schema refuses or an id that stands twice; or a result of no call.
--- */
SELECT row_id, concat_ws(', ',
    CASE WHEN malformed_calls > 0 THEN 'malformed calls: ' || malformed_calls END,
    CASE WHEN unknown_tool_calls > 0 THEN 'calls of unknown tools: ' || unknown_tool_calls END,
    CASE WHEN invalid_argument_calls > 0 THEN 'calls with invalid arguments: ' || invalid_argument_calls END,
    CASE WHEN duplicate_call_ids > 0 THEN 'ids that stand twice: ' || duplicate_call_ids END,
    CASE WHEN stray_results > 0 THEN 'results of no call: ' || stray_results END)
    || coalesce('; first fault of the row: ' || tool_fault, '') AS reason
FROM signals
WHERE malformed_calls > 0 OR unknown_tool_calls > 0 OR invalid_argument_calls > 0 OR duplicate_call_ids > 0
   OR stray_results > 0
