/* ---
stage: [sft, preference]
needs: [trace_structure]
adopted: false
thresholds: {max_chars_before: 0}
description: A thought that a template may have opened, an empty one (as of models told not to think), or text before the thought. Some formats want each of them, so a person decides.
--- */
SELECT row_id, coalesce('a thought is ' || think_fault, chars_before_thought || ' characters stand before the thought')
    AS reason
FROM signals
WHERE think_fault IN ('never opened', 'empty') OR (think_fault IS NULL
    AND chars_before_thought > getvariable('max_chars_before'))
