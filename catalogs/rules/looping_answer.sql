/* ---
stage: [sft, preference]
needs: [repetition]
thresholds: {min_rounds: 4, min_words: 200, max_words_after: 20, min_stale_share: 0.1}
description: An answer or thought that runs into a loop and never leaves it. Both tests must fire; exact rounds up to the end, and no novel 8-grams any more. They were set on 570 real traces, of whose 211 finished ones they take none.
--- */
SELECT row_id, round(loop_rounds, 1) || ' rounds of the same ' || loop_period || ' words ('
    || round(100 * loop_share)::INTEGER || ' % of the text) and nothing new after them' AS reason
FROM signals
WHERE loop_rounds >= getvariable('min_rounds') AND loop_words >= getvariable('min_words')
  AND words_after_loop <= getvariable('max_words_after') AND stale_share >= getvariable('min_stale_share')
