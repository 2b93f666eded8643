/* ---
stage: all
needs: [contamination]
thresholds: {min_similarity: 0.85, min_words: 6}
description: Rows that hold an item of an ingested benchmark, copied, lightly edited or paraphrased. Less similar ones and short stems without their answer are benchmark_suspect, other numbers or names benchmark_twin.
--- */
SELECT row_id, 'holds ' || contamination_items || ' benchmark item(s), at best ' || contamination_class
    || ' with a similarity of ' || round(contamination_score, 2) AS reason
FROM signals
WHERE contamination_items > 0 AND contamination_score >= getvariable('min_similarity')
  AND (contamination_words >= getvariable('min_words') OR contamination_answered)
