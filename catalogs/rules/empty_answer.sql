/* ---
stage: [sft, preference]
needs: [text_statistics]
description: The last assistant turn is empty and calls no tool.
--- */
SELECT row_id, 'the answer is empty' AS reason
FROM signals
WHERE answer_chars = 0
  AND NOT contains(to_json(signals)::VARCHAR, '"tool_calls":"')
