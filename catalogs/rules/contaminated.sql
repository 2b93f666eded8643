/* ---
stage: all
needs: [contamination]
thresholds: {min_similarity: 0.65, min_words: 6}
description: Rows that hold an item of an ingested benchmark, copied, edited or paraphrased; twins, and short stems without their answer, are rules of their own.
--- */
SELECT row_id, 'holds ' || contamination_items || ' benchmark item(s), at best ' || contamination_class
    || ' with a similarity of ' || round(contamination_score, 2) AS reason
FROM signals
WHERE contamination_items > 0 AND contamination_score >= getvariable('min_similarity')
  AND (contamination_words >= getvariable('min_words') OR contamination_answered)
