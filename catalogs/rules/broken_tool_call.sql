/* ---
stage: [sft, preference]
needs: [tool_calls]
description: A call that names no tool of the row, is no call, has arguments that its schema refuses or an id that stands twice; or a result of no call.
--- */
SELECT row_id, coalesce(tool_fault, 'a broken tool call') AS reason
FROM signals
WHERE malformed_calls > 0 OR unknown_tool_calls > 0 OR invalid_argument_calls > 0 OR duplicate_call_ids > 0
   OR stray_results > 0
