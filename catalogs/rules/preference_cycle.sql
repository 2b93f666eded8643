/* ---
stage: preference
needs: [pair_conflicts]
adopted: false
description: Pairs of one prompt that prefer in a circle (A over B, B over C, C over A). One pair of a cycle is wrong, the others may be right, so a reviewer decides.
--- */
SELECT row_id, 'part of a cycle of ' || preference_cycle || ' preferences of one prompt' AS reason
FROM signals
WHERE preference_cycle IS NOT NULL
