/* ---
stage: sft
needs: [copies, text_statistics]
thresholds: {max_copies: 10, min_chars: 40}
adopted: false
description: Long answers that stand in many rows word by word; the first rows of each stay, short answers may recur.
--- */
SELECT row_id, 'its answer of ' || answer_chars || ' characters stands in ' || answer_copies || ' rows' AS reason
FROM signals
WHERE answer_rank >= getvariable('max_copies') AND answer_chars >= getvariable('min_chars')
