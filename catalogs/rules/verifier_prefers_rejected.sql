/* ---
stage: preference
needs: [pair_quality]
description: Against the row's own reference the rejected side is right and the chosen one wrong (an answer that was not found is no verdict).
--- */
SELECT row_id, 'the verifier ' || pair_verifier || ' finds rejected right and chosen wrong' AS reason
FROM signals
WHERE chosen_state = 'wrong' AND rejected_state = 'right'
