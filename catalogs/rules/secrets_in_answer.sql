/* ---
stage: [midtrain, sft, preference]
needs: [personal_data]
description: A key, a token, a private key or a password in a URL that a model would learn to say; documented examples do not count.
--- */
SELECT row_id, answer_secrets || ' secret(s) in what the model learns to say: ' || array_to_string(answer_secret_kinds, ', ') AS reason
FROM signals
WHERE answer_secrets > 0
