/* ---
stage: preference
needs: [pair_quality]
thresholds: {min_similarity: 0.95}
adopted: false
description: The sides share nearly all words in order. One word may be the whole point (a number, a fact), so a reviewer decides.
--- */
SELECT row_id, 'the sides share ' || round(100 * side_similarity, 1) || ' % of their words in order' AS reason
FROM signals
WHERE side_similarity >= getvariable('min_similarity') AND NOT sides_identical
