-- The index, `lake/catalog.duckdb`: one row per published output. It holds nothing that the manifests beside the
-- outputs do not say, so it may be deleted at any time; `kedge rebuild` makes it anew.
CREATE TABLE IF NOT EXISTS manifests (
    path VARCHAR PRIMARY KEY,  -- of the output's folder, below lake/
    kind VARCHAR,              -- rows | rejects | signals | evidence | verdicts | mixtures | audits | runs | scores | drift | reward_models
    name VARCHAR,              -- of the source, measure, rule, mixture, run or benchmark
    fingerprint VARCHAR,       -- 32 hex characters over everything that the output was made of
    stage VARCHAR,             -- midtrain | sft | preference | rlvr, null where it has none
    num_rows BIGINT,
    manifest JSON              -- manifest.json as it lies beside the output
);
