/* ---
stage: preference
needs: [pair_conflicts]
description: The same prompt with the same answers and reversed labels stands elsewhere; both rows are left out, since nothing here says which one is right. A row that annotators decided stays.
--- */
SELECT row_id, contradicting_pairs || CASE WHEN contradicting_pairs = 1 THEN ' pair prefers' ELSE ' pairs prefer' END
       || ' the other answer to the same prompt' AS reason
FROM signals
WHERE contradicting_pairs > 0 AND chosen IS NOT NULL AND rejected IS NOT NULL
  AND NOT coalesce(contains(meta, '"votes_for_chosen":'), false)
UNION ALL
SELECT row_id, 'the same answer to the same prompt is labelled both good and bad' AS reason
FROM signals
WHERE contradicting_pairs > 0 AND (chosen IS NULL OR rejected IS NULL)
