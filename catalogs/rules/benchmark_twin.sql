/* ---
stage: all
needs: [contamination]
adopted: false
thresholds: {min_similarity: 0.65}
description: Rows with the words of a benchmark item and other numbers or names; look before you leave them out.
--- */
SELECT row_id, 'the words of a benchmark item with other numbers or names, similarity '
    || round(benchmark_twin_score, 2) AS reason
FROM signals
WHERE benchmark_twin_score >= getvariable('min_similarity')
