/* ---
stage: all
needs: [contamination]
thresholds: {min_similarity: 0.65}
description: Rows that hold an item of an ingested benchmark, copied, edited or paraphrased; twins are another rule.
--- */
SELECT row_id, 'holds ' || contamination_items || ' benchmark item(s), at best ' || contamination_class || ' with a similarity of '
       || round(contamination_score, 2) AS reason
FROM signals
WHERE contamination_items > 0 AND contamination_score >= getvariable('min_similarity')
