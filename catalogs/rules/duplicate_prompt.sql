/* ---
stage: rlvr
needs: [copies]
adopted: false
description: Prompts that stand elsewhere too (case and white space folded); one row of each stays.
--- */
SELECT row_id, 'its prompt stands in ' || prompt_copies || ' rows, with '
    || CASE WHEN coalesce(prompt_answer_copies, 0) = prompt_copies THEN 'the same answer' ELSE 'several answers' END
    AS reason
FROM signals
WHERE prompt_rank > 0
