/* ---
stage: rlvr
needs: [verifiable]
thresholds: {min_pass_rates: 1}
adopted: false
description: Every recorded pass rate is 0, or every one is 1, so a group of answers has no gradient. Rates belong to the model that was sampled; another one may solve what this one never did.
--- */
SELECT row_id, CASE WHEN never_solved THEN 'never solved' ELSE 'always solved' END
    || ' in ' || pass_rate_count || ' recorded pass rates' AS reason
FROM signals
WHERE (never_solved OR always_solved) AND pass_rate_count >= getvariable('min_pass_rates')
