/* ---
stage: all
needs: [near_duplicates]
thresholds: {min_similarity: 0.7}
adopted: false
description: All but one of the rows whose phrases nearly repeat one another (Jaccard similarity); held-out rows stay.
--- */
SELECT row_id, round(100 * near_duplicate_similarity)::INTEGER || ' % of its phrases stand in another row, '
    || near_duplicate_cluster || ' rows are near duplicates' AS reason
FROM signals
WHERE near_duplicate_link >= getvariable('min_similarity')
