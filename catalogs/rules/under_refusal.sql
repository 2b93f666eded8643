/* ---
stage: [sft, preference]
needs: [safety]
adopted: false
description: The policy is to refuse and the answer does not. It may still decline without the phrases of a refusal, so a reviewer decides.
--- */
SELECT row_id, 'does not refuse a prompt of ' || safety_category AS reason
FROM signals
WHERE NOT answer_refuses AND safety_policy = 'refuse'
