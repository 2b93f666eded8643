"""`kedge show` of a checkpoint with its examination, and of names that several plug-ins have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curation import checkpoints
from curation.catalog import Catalog
from curation.checkpoints import Checkpoint
from evals.reward_report import RewardReport, latest_report, publish

WEIGHTS = "a" * 64


@pytest.fixture
def examined(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """The reward model `rm@20`, examined twice, and `rm@40`, which nobody examined."""
    monkeypatch.setattr("evals.reward_report.page", lambda report: f"page with {len(report.flags)}")
    for step in (20, 40):
        folder = catalog.project.root / f"rm-{step}"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"weights")
        tags = ["scorer"] if step == 20 else []
        checkpoints.register(catalog, Checkpoint(run="rm", step=step, path=f"rm-{step}", weights="full",
                                                 weights_hash=WEIGHTS, tags=tags))  # fmt: skip
    for flags in (["odd"], ["odd", "long"]):
        publish(catalog, RewardReport("rm@20", WEIGHTS, [], [], [], flags), None)
    return catalog


def shown(kedge, name: str) -> list[dict]:
    code, out, err = kedge("show", name, "--json")
    assert code == 0, err
    return list(json.loads(out))


@pytest.mark.parametrize("name", ["rm@20", "scorer"])
def test_a_reward_model_is_shown_with_its_newest_examination(examined: Catalog, kedge, name: str):
    (item,) = shown(kedge, name)
    newest = latest_report(examined, "rm@20", WEIGHTS)
    assert newest is not None and newest.read_text() == "page with 2"
    assert item["examination"] == f"{newest.relative_to(Path.cwd())} (2 things to look at)"
    assert "examination: lake/reward_models/rm@20/" in kedge("show", name)[1]


def test_a_checkpoint_that_was_not_examined_or_has_other_weights_by_now_has_no_examination(examined: Catalog, kedge):
    found = {item["name"]: item for item in shown(kedge, "rm")}
    assert set(found) == {"rm@20", "rm@40"} and "examination" in found["rm@20"]
    assert "examination" not in found["rm@40"]
    record = examined.folder("runs", "rm", "checkpoints", "step-00000020.json")
    record.write_text(record.read_text().replace(WEIGHTS, "b" * 64))
    assert "examination" not in shown(kedge, "rm@20")[0]


@pytest.mark.parametrize(("name", "kinds"), [
    ("language", ["reward", "measure"]), ("repetition", ["reward", "measure"]), ("trl_sft", ["mirror", "trainer"]),
    ("jsonl", ["source"]),
])  # fmt: skip
def test_every_plug_in_of_a_name_is_shown(catalog: Catalog, kedge, name: str, kinds: list[str]):
    assert [item["kind"] for item in shown(kedge, name)] == kinds
    code, out, _ = kedge("show", name)
    assert code == 0 and all(f"{kind} {name}\n" in out for kind in kinds)
