"""`kedge scores add`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curation import checkpoints
from curation.checkpoints import Checkpoint
from evals.scores import read_scores


@pytest.fixture
def samples(catalog) -> Path:
    checkpoints.register(catalog, Checkpoint(run="r", step=1, path="x", weights="full", weights_hash="a" * 32))
    common = {"checkpoint": "r@1", "benchmark": "b"}
    rows = [
        common | {"sample_id": "s1", "state": "right"},
        common | {"sample_id": "s2", "state": "truncated", "output_tokens": 9},
    ]
    path = catalog.project.root / "foreign.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_samples_of_another_harness_become_scores_with_their_states(samples, catalog, kedge):
    code, out, _ = kedge("scores", "add", samples, "--json")
    assert code == 0
    assert json.loads(out) == {"added": [{"benchmark": "b", "checkpoint": "r@1", "n": 2}]}
    found = read_scores(catalog, checkpoints.find(catalog, "r"), "b")
    assert found is not None
    assert found[0]["score"].to_pylist() == [1.0, 0.0]
    assert found[0]["cluster"].to_pylist() == ["s1", "s2"]
    assert found[1]["harness"] == "imported"


def test_every_bad_sample_is_named_and_nothing_is_stored(samples, catalog, kedge):
    good = samples.read_text()
    samples.write_text(good + '{"checkpoint": "r@1", "benchmark": "b", "sample_id": "s3", "state": "correct"}\n')
    code, _, err = kedge("scores", "add", samples)
    assert code == 2 and "foreign.jsonl:3: state" in err
    samples.write_text(good + good.splitlines()[0] + "\n")
    code, _, err = kedge("scores", "add", samples)
    assert code == 2 and "sample s1 (repeat 0) stands twice" in err
    samples.write_text(good.replace("r@1", "r@9"))
    code, _, err = kedge("scores", "add", samples)
    assert code == 2 and "there is no checkpoint 'r@9'" in err
    assert not catalog.manifests("scores")
