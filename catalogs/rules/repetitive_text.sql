/* ---
stage: [midtrain, sft, preference]
needs: [repetition]
adopted: false
thresholds: {max_loop_share: 0.3, max_template_share: 0.5, max_tail_share: 0.3, max_stale_share: 0.2, max_duplicate_line_share: 0.3}
description: One sign of repetition alone; tables, lyrics and lists show it too, so a person looks.
--- */
SELECT row_id, CASE WHEN loop_share > getvariable('max_loop_share') THEN 'a loop covers much of the text'
    WHEN template_loop_share > getvariable('max_template_share') THEN 'rounds that differ by numbers alone'
    WHEN tail_share > getvariable('max_tail_share') THEN 'the text ends in a repeated stretch'
    WHEN stale_share > getvariable('max_stale_share') THEN 'the text says nothing new up to its end'
    ELSE 'many lines stand there twice' END AS reason
FROM signals
WHERE loop_share > getvariable('max_loop_share') OR template_loop_share > getvariable('max_template_share')
   OR tail_share > getvariable('max_tail_share') OR stale_share > getvariable('max_stale_share')
   OR duplicate_line_byte_share > getvariable('max_duplicate_line_share')
