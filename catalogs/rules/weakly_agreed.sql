/* ---
stage: preference
needs: [annotation]
thresholds: {min_confidence: 0.7}
adopted: false
description: Pairs whose votes leave their label in doubt; 2 of 3 votes give 0.69, 3 of 3 give 0.94. To keep them with a smoothed label, read vote_confidence in the mixture.
--- */
SELECT row_id, num_votes || ' votes make its label right with probability ' || round(vote_confidence, 2) AS reason
FROM signals
WHERE vote_confidence < getvariable('min_confidence')
