"""Every rollout of a run lands in the lake, and pass rates feed back into curation."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from curation.views import full_session
from tests.lakes import lake_bytes
from trainers.rewards.client import Journal, record, summed
from trainers.rewards.evidence import publish

ONE, TWO, THREE = ("11" * 16, "22" * 16, "33" * 16)


def rollout(row_id: str | None, outcome: str, step: int | None = 1, split: str = "train") -> dict:
    result = summed({"answer": (float(outcome == "right") if outcome != "exception" else None, outcome),
                     "format": (1.0, "kept")}, {"answer": 1.0, "format": 0.1}, 0.0)  # fmt: skip
    sample = {"row_id": row_id, "step": step, "num_tokens": 9, "finished": True, "meta": {"split": split}}
    return record(sample, result, "grpo")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two processes' rollouts, one of which was killed in the middle of a line."""
    place = tmp_path / "rollouts"
    Journal(str(place)).write([rollout(ONE, "right"), rollout(ONE, "wrong"), rollout(TWO, "wrong"),
                               rollout(None, "right"), rollout(THREE, "right", 2)])  # fmt: skip
    other = Journal(str(place))
    other.write([rollout(ONE, "right", 2), rollout(TWO, "unparsed", 2), rollout(TWO, "exception", 2),
                 rollout(THREE, "right", None), rollout(ONE, "wrong", 2, "val")])  # fmt: skip
    assert other.file is not None
    with sorted(place.glob("*.jsonl"))[-1].open("a") as stream:
        stream.write(json.dumps(rollout(ONE, "right"))[:40])
    return place


def asked(catalog, query: str) -> list[tuple]:
    connection = full_session(catalog)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def test_rollouts_and_pass_rates_are_views_of_the_lake(catalog, folder: Path):
    assert publish(catalog, "grpo", folder) == {"rollouts": 10, "rows": 3, "broken_lines": 1}
    assert asked(catalog, "SELECT run, count(*), sum(reward), any_value(components->>'format') FROM rollouts GROUP BY 1"
                 ) == [("grpo", 10, pytest.approx(6.0), "1.0")]  # fmt: skip
    rates = asked(catalog, "SELECT replace(row_id::VARCHAR, '-', ''), num_rollouts, num_judged, pass_rate, first_step, "
                  "last_step FROM pass_rates ORDER BY 1")  # fmt: skip
    assert rates == [(ONE, 3, 3, pytest.approx(2 / 3), 1, 2), (TWO, 3, 2, 0.0, 1, 2), (THREE, 2, 2, 1.0, 2, 2)]
    sometimes = "SELECT replace(row_id::VARCHAR, '-', '') FROM pass_rates WHERE pass_rate > 0 AND pass_rate < 1"
    assert asked(catalog, sometimes) == [(ONE,)]
    assert asked(catalog, "SELECT DISTINCT sample FROM rollouts ORDER BY 1") == [(0,), (1,)]


def test_publishing_again_gives_the_same_bytes_and_more_rollouts_replace_the_old_ones(catalog, folder: Path):
    publish(catalog, "grpo", folder)
    before = lake_bytes(catalog.project.root, "evidence")
    publish(catalog, "grpo", folder)
    assert lake_bytes(catalog.project.root, "evidence") == before and len(before) == 4
    Journal(str(folder)).write([rollout(TWO, "right", 3)])
    publish(catalog, "grpo", folder)
    publish(catalog, "other", folder)
    assert asked(catalog, "SELECT run, count(*) FROM rollouts GROUP BY 1 ORDER BY 1") == [("grpo", 11), ("other", 11)]
    assert len(catalog.manifests("evidence")) == 4, "two kinds of two runs"


def test_a_publication_that_is_killed_half_way_is_finished_by_the_next(catalog, folder: Path, monkeypatch):
    from trainers.rewards import evidence

    publish(catalog, "grpo", folder)
    whole = lake_bytes(catalog.project.root, "evidence")
    for _, manifest in catalog.manifests("evidence"):
        assert manifest.counts["rollouts"] == 10
    Journal(str(folder)).write([rollout(TWO, "right", 3)])

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(evidence, "shutil", SimpleNamespace(rmtree=killed))
    with pytest.raises(KeyboardInterrupt):
        publish(catalog, "grpo", folder)
    monkeypatch.undo()
    assert publish(catalog, "grpo", folder)["rollouts"] == 11
    assert len(catalog.manifests("evidence")) == 2 and lake_bytes(catalog.project.root, "evidence") != whole


def test_a_run_without_rollouts_publishes_empty_evidence(catalog, tmp_path: Path):
    assert publish(catalog, "sft", tmp_path / "none") == {"rollouts": 0, "rows": 0, "broken_lines": 0}
    assert asked(catalog, "SELECT count(*) FROM pass_rates") == [(0,)]
    for text in ("[]", "{}", "nonsense", '{"row_id": "xyz", "outcome": "right", "outcomes": {}, "reward": 1}'):
        (tmp_path / "rollouts-1.jsonl").write_text(text + "\n")
        assert publish(catalog, "sft", tmp_path)["broken_lines"] == 1
