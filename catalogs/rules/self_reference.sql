/* ---
stage: [sft, preference]
needs: [phrases]
adopted: false
description: The assistant speaks of itself as a machine, or claims to be another model or of another company.
--- */
SELECT row_id, CASE WHEN len(answer_identities) > 0 THEN 'it says it is of ' || array_to_string(answer_identities, ', ')
    ELSE answer_self_references || ' of its answers speak of themselves as a machine' END AS reason
FROM signals
WHERE answer_self_references > 0 OR len(answer_identities) > 0
