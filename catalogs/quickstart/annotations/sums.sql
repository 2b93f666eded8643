/* ---
description: Answers of two checkpoints side by side; which one wrote which is not told.
guidelines: |
  Two numbers were to be added. Choose the answer whose result, after the thought, is right.
  If both are right, choose the one whose thought is right too; if there is nothing between them, say that it is a tie.
  If neither result is right, say that both are bad.
questions:
  - {name: better, kind: preference, title: Which answer is better?}
  - {name: reason, kind: text, title: Why?, required: false}
annotators_per_item: 3
budget: {items: 60, price_per_vote: 0.10}
--- */
SELECT list(DISTINCT generation_id ORDER BY generation_id) AS generation_ids, any_value(source) AS topic
FROM generation
WHERE job IN ('answers_mid', 'answers_sft') AND finish_reason = 'stop' AND text LIKE '<think>%</think>%'
GROUP BY prompt_hash
HAVING count(DISTINCT text) = 2
