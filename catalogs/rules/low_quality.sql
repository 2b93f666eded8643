/* ---
stage: all
needs: [classifier]
thresholds: {min_quality: 0.5}
adopted: false
description: A classifier of your own scores the answer low; finds nothing until kedge.yaml names its model.
--- */
-- Name the model in kedge.yaml (classifiers: {classifier: {path: models/quality, label: good}}), or copy this file and
-- name it here, several if need be, each with columns of its own name:
--   needs: [{classifier: {name: quality, path: models/quality, label: good}},
--           {classifier: {name: toxicity, path: models/toxicity.bin, label: toxic}}]
--   ... WHERE quality_score < 0.5 OR toxicity_score > 0.8
SELECT row_id, 'the classifier scores the answer ' || round(classifier_score, 2) AS reason
FROM signals
WHERE classifier_score < getvariable('min_quality')
