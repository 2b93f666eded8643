/* ---
stage: all
needs: [language]
thresholds: {min_probability: 0.9}
adopted: false
description: A row in another language than most of its source, or an answer in another language than its row.
--- */
WITH counted AS (SELECT source, language, count(*) AS num_rows FROM signals WHERE language IS NOT NULL GROUP BY ALL),
usual AS (SELECT DISTINCT ON (source) source, language AS common FROM counted ORDER BY source, num_rows DESC, language)
SELECT row_id, CASE WHEN signals.language <> common THEN 'it is in ' || signals.language || ', most of its source in ' || common
    ELSE 'its answer is in ' || answer_language || ', the row in ' || signals.language END AS reason
FROM signals JOIN usual USING (source)
WHERE (signals.language <> common AND language_probability > getvariable('min_probability'))
   OR (answer_language <> signals.language AND answer_language_probability > getvariable('min_probability'))
