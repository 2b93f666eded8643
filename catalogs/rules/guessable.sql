/* ---
stage: rlvr
needs: [verifiable]
thresholds: {min_chance: 0.2}
adopted: false
description: A blind guess hits the answer (yes or no, few options), so reward comes without reasoning. Choices are a fair task for many, so a reviewer decides.
--- */
SELECT row_id, 'a blind guess hits ' || round(100 * guess_chance)::INTEGER || ' % of the time (' || answer_kind || ')' AS reason
FROM signals
WHERE guess_chance >= getvariable('min_chance')
