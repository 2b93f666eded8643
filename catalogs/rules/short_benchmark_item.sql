/* ---
stage: all
needs: [contamination]
thresholds: {min_words: 6}
adopted: false
description: Rows with the few words of a short item ("Stack is also known as") and not its answer, which any text on the matter may hold.
--- */
SELECT row_id, 'holds ' || contamination_items || ' benchmark item(s) of at most ' || contamination_words || ' words'
    AS reason
FROM signals
WHERE contamination_items > 0 AND contamination_words < getvariable('min_words') AND NOT contamination_answered
