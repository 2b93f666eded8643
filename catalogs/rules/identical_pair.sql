/* ---
stage: preference
needs: [pair_quality]
description: Both sides are the same text; the loss is log 2 whatever the model does, and its gradient zero.
--- */
SELECT row_id, 'chosen and rejected are the same text' AS reason
FROM signals
WHERE sides_identical
