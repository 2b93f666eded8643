/* ---
stage: all
needs: [skills]
adopted: false
description: Rows for which neither their data nor the map of words in catalogs/skills tells a skill.
--- */
SELECT row_id, 'no skill is told by its data or its words' AS reason
FROM signals
WHERE skill IS NULL
