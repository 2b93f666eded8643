/* ---
stage: [sft, preference]
needs: [trace_structure]
thresholds: {min_chars: 200}
description: A whole thought stands in a user's turn or a tool's result. Short ones explain the format, and a system turn may give an example.
--- */
SELECT row_id, 'a thought of ' || misplaced_thought_chars || ' characters stands in a turn of the '
    || misplaced_thought_role AS reason
FROM signals
WHERE misplaced_thought_role IN ('user', 'tool') AND misplaced_thought_chars >= getvariable('min_chars')
