/* ---
stage: [sft, preference]
needs: [phrases]
thresholds: {min_refusals: 1}
adopted: false
description: An assistant turn (of the chosen side) refuses in its first 200 characters. Some refusals are wanted.
--- */
SELECT row_id, answer_refusals || ' of its answers refuse' AS reason
FROM signals
WHERE answer_refusals >= getvariable('min_refusals')
