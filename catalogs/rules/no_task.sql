/* ---
stage: [sft, preference, rlvr]
needs: [task_verbs]
adopted: false
description: The last user turn neither commands nor asks (a greeting, thanks, a language without a lexicon).
--- */
SELECT row_id, 'the last user turn has no task verb and no question' AS reason
FROM signals
WHERE task_verb IS NULL
