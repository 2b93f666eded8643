/* ---
stage: sft
needs: [reasoning_behaviour, trace_structure]
adopted: false
thresholds: {min_chars: 2000, max_signs: 0}
description: A long trace that never verifies, never goes back and tries nothing else. It may still be right, so a person decides.
--- */
SELECT row_id, verifications + backtracks + alternatives || ' signs of checking or turning back in ' || thought_chars
    || ' characters of thought' AS reason
FROM signals
WHERE thought_chars >= getvariable('min_chars')
  AND verifications + backtracks + alternatives <= getvariable('max_signs')
