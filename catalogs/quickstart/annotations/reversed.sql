/* ---
description: Answers before and after SFT, side by side; which checkpoint wrote which is not told.
guidelines: |
  A word was to be spelled backwards. Choose the answer that is right; look at the end of it, after the thought.
  If both are right, or both nearly so, say that it is a tie. If neither is of any use, say that both are bad.
questions:
  - {name: better, kind: preference, title: Which answer is better?}
  - {name: reason, kind: text, title: Why?, required: false}
annotators_per_item: 3
budget: {items: 60, price_per_vote: 0.10}
--- */
SELECT list(generation_id ORDER BY generation_id) AS generation_ids, any_value(source) AS topic
FROM generation
WHERE job IN ('answers_mid', 'answers_sft') AND finish_reason = 'stop'
GROUP BY prompt_hash
HAVING count(DISTINCT text) = 2
