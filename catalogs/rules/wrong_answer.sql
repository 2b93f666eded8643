/* ---
stage: [sft, rlvr]
needs: [answer_correctness]
adopted: false
description: The final answer differs from the reference that the source holds. References are wrong too, and a key of that name may hold something else, so a reviewer decides per source.
--- */
SELECT row_id, 'the final answer ' || coalesce(left(final_answer, 60), '') || ' is not the reference in ' || reference_key AS reason
FROM signals
WHERE answer_state = 'wrong'
