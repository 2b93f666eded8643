/* ---
stage: [midtrain, sft]
needs: [datatrove_statistics]
thresholds: {max_duplicate_line_chars: 0.3, min_lines: 5}
adopted: false
description: Much of the text stands in repeated lines, by datatrove's LineStats (Gopher repetition); needs the extra scale.
--- */
SELECT row_id, round(100 * datatrove_line_char_duplicates)::INTEGER || ' % of the characters are in repeated lines' AS reason
FROM signals
WHERE datatrove_line_char_duplicates > getvariable('max_duplicate_line_chars')
  AND datatrove_n_lines >= getvariable('min_lines')
