/* ---
stage: all
needs: [contamination]
thresholds: {min_similarity: 0.65, contaminated_similarity: 0.85, min_words: 6}
adopted: false
description: Rows with something like a benchmark item, heavily edited, or the few words of a short one ("Stack is also known as") without its answer. Other problems of the same kind look so too, so a person looks.
--- */
SELECT row_id, 'holds something like ' || contamination_items || ' benchmark item(s) of at most ' || contamination_words
    || ' words, similarity ' || round(contamination_score, 2) AS reason
FROM signals
WHERE contamination_items > 0 AND contamination_score >= getvariable('min_similarity')
  AND (contamination_score < getvariable('contaminated_similarity')
       OR (contamination_words < getvariable('min_words') AND NOT contamination_answered))
