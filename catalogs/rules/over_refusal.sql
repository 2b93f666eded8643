/* ---
stage: [sft, preference]
needs: [safety]
adopted: false
description: The answer refuses although the policy is to answer, or the prompt only sounds dangerous. Patterns tell the category of most prompts, so a reviewer decides.
--- */
SELECT row_id, coalesce('refuses a prompt of ' || safety_category || ', where the policy is: ' || safety_policy,
    'refuses a prompt that only sounds dangerous') AS reason
FROM signals
WHERE answer_refuses AND (benign_look_alike OR safety_policy <> 'refuse')
