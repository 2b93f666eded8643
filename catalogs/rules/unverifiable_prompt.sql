/* ---
stage: rlvr
needs: [verifiable]
description: The ground truth is missing, its verifier cannot read it or refuses it, or cannot tell it from another answer. No answer to such a prompt gets the reward it deserves.
--- */
SELECT row_id, CASE WHEN NOT truth_present THEN 'there is no ground truth'
    WHEN NOT truth_parsable THEN 'the verifier ' || answer_verifier || ' cannot read the ground truth'
    WHEN truth_state <> 'right' THEN 'the verifier ' || answer_verifier || ' finds the ground truth itself ' || replace(truth_state, 'timeout', 'too long to compare')
    ELSE 'the verifier ' || answer_verifier || ' takes another answer for the ground truth' END AS reason
FROM signals
WHERE NOT truth_present
   OR NOT truth_parsable
   OR truth_state NOT IN ('right', 'error')
   OR perturbed_state = 'right'
