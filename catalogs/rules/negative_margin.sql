/* ---
stage: preference
needs: [pair_quality]
description: The source's own scores prefer the rejected side, so label and scores cannot both be right. A margin of zero is a tie and stays.
--- */
SELECT row_id, 'the margin is ' || round(score_margin, 4) || ': the scores prefer rejected' AS reason
FROM signals
WHERE score_margin < 0
