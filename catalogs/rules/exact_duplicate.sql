/* ---
stage: all
needs: [exact_duplicates]
description: Rows whose payload stands elsewhere; the representative (first source by name, lowest row_id) stays.
--- */
SELECT row_id, 'one of ' || duplicate_count || ' identical rows' AS reason
FROM signals
WHERE duplicate_rank > 0
