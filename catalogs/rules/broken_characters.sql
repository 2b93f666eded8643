/* ---
stage: [midtrain, sft, preference]
needs: [characters]
thresholds: {max_broken_share: 0.02}
description: Mojibake, U+FFFD, control and private-use characters in what the model learns to say, as of a file read in the wrong encoding.
--- */
SELECT row_id, round(100 * answer_broken_share, 1) || ' % of the answer are broken characters' AS reason
FROM signals
WHERE answer_broken_share > getvariable('max_broken_share')
