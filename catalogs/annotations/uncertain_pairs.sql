/* ---
description: Kept pairs that nobody has answered yet, those of the smallest margin first.
guidelines: |
  Read the conversation, then both answers to its end. Choose the answer that helps the person more: is it right, does
  it do what was asked, is it complete without being long, is it safe? Length and tone alone decide nothing.
  If both are equally good, say so. If neither could be given to a person, say that both are bad.
questions:
  - {name: better, kind: preference, title: Which answer is better?}
  - {name: reason, kind: text, title: Why?, required: false}
  - {name: problems, kind: flags, title: Is anything wrong here?, required: false,
     labels: [unclear prompt, personal data, unsafe, other language]}
annotators_per_item: 3
retest_share: 0.05
budget: {items: 200}
--- */
SELECT row_id, source AS topic, -abs(margin) AS priority, margin, chosen_score, rejected_score
FROM kept
WHERE chosen IS NOT NULL AND rejected IS NOT NULL
  AND row_id NOT IN (SELECT row_id FROM annotated)
