/* ---
stage: [sft, preference]
needs: [trace_structure]
thresholds: {long_chars: 4000}
description: A thought that opens and never closes teaches the model not to stop; long ones are told apart where they break off in mid-sentence (cut at their source's token limit).
--- */
SELECT row_id, 'a think block opens and never closes'
    || CASE WHEN truncated_at_source AND thought_chars >= getvariable('long_chars')
        THEN ': cut at its source, in mid-sentence after ' || thought_chars || ' characters' ELSE '' END AS reason
FROM signals
WHERE think_fault = 'unclosed'
