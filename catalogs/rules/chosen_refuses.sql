/* ---
stage: preference
needs: [pair_quality]
adopted: false
description: The chosen side refuses and the rejected one does not. Right for a prompt that must be refused, over-refusal elsewhere (see over_refusal).
--- */
SELECT row_id, 'chosen refuses and rejected does not' AS reason
FROM signals
WHERE chosen_refuses AND NOT rejected_refuses
