/* ---
stage: sft
needs: [near_answers]
thresholds: {min_similarity: 0.8, max_rows: 10}
adopted: false
description: Answers that stand with few words changed in many rows; the first rows of each cluster stay.
--- */
SELECT row_id, round(100 * near_answer_similarity)::INTEGER || ' % of its answer stands in another row, '
    || near_answer_cluster || ' rows answer like this' AS reason
FROM signals
WHERE near_answer_link >= getvariable('min_similarity') AND near_answer_rank >= getvariable('max_rows')
