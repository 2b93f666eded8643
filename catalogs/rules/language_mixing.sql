/* ---
stage: [sft, preference]
needs: [trace_structure]
adopted: false
thresholds: {min_share: 0.02, min_switches: 3}
description: The text goes back and forth between scripts, or thinks in one and answers in another. Translations and quotations do too, so a person looks; Latin words inside another script are common in mathematics and code and do not count.
--- */
SELECT row_id, CASE WHEN thought_script <> answer_script THEN 'thinks in ' || thought_script || ', answers in '
    || answer_script ELSE round(100 * second_script_share)::INTEGER || ' % ' || second_script || ', '
    || script_switches || ' switches' END AS reason
FROM signals
WHERE thought_script <> answer_script OR (second_script <> 'Latin'
    AND second_script_share >= getvariable('min_share') AND script_switches >= getvariable('min_switches'))
