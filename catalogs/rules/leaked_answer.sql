/* ---
stage: rlvr
needs: [verifiable]
adopted: false
description: The prompt holds its answer. An example in the prompt or the options of a question may look the same, so a reviewer decides.
--- */
SELECT row_id, CASE WHEN answer_stated_in_prompt THEN 'the prompt states its answer'
    ELSE 'the whole answer stands in the prompt' END AS reason
FROM signals
WHERE answer_stated_in_prompt OR answer_in_prompt
