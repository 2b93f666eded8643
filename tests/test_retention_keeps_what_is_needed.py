"""The rule `keep` of a run: which checkpoints lose their weights, which never do, and what a kill leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation import checkpoints, schema
from curation.catalog import Catalog, write_parquet
from curation.checkpoints import Checkpoint
from curation.errors import UserError
from curation.outputs import Manifest
from curation.run_files import Keep
from curation.runs import Run
from trainers import retention
from trainers.retention import decide

RUN = """\
trainer: {name: trl_sft, max_steps: 10}
mixture: m
base: models/tiny
keep: {last: 2, every: 300}
"""
STEPS = (100, 200, 300, 400, 500)


def made(step: int, **more) -> Checkpoint:
    return Checkpoint(run="r", step=step, path=f"w/{step}", weights="full", weights_hash=f"hash{step}", **more)


def kept(verdicts) -> list[int]:
    return [int(item.id.rpartition("@")[2]) for item in verdicts if item.kept]


@pytest.fixture
def lake(catalog: Catalog) -> Catalog:
    """A run with five checkpoints whose folders hold a file each."""
    (catalog.project.root / "catalogs" / "runs").mkdir()
    (catalog.project.root / "catalogs" / "runs" / "sft.yaml").write_text(RUN)
    for step in STEPS:
        enter(catalog, "sft", step)
    return catalog


def enter(catalog: Catalog, run: str, step: int, **more) -> Checkpoint:
    folder = catalog.folder("runs", run, "f" * 16, "weights", f"checkpoint-{step}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    path = more.pop("path", None) or catalog.project.relative(folder)
    return checkpoints.register(catalog, Checkpoint(
        run=run, step=step, path=path, weights="full", weights_hash=f"{run}{step}", run_fingerprint="f" * 32,
        parent=more.pop("parent", "base-tiny@0"), **more))  # fmt: skip


def there(catalog: Catalog, run: str = "sft") -> list[int]:
    folders = catalog.folder("runs", run, "f" * 16, "weights").glob("checkpoint-*")
    return sorted(int(path.name.rpartition("-")[2]) for path in folders)


def apply(catalog: Catalog) -> list[str]:
    return retention.apply(catalog, Run(catalog, "sft"))


def test_the_last_ones_and_the_multiples_stay_and_every_verdict_says_why():
    verdicts = decide([made(step) for step in STEPS], Keep(last=2, every=300), {}, {})
    assert kept(verdicts) == [300, 400, 500]
    assert [item.why for item in verdicts] == ["no rule keeps it", "no rule keeps it", "a multiple of 300 steps",
                                               "among the last 2", "among the last 2"]  # fmt: skip


def test_the_best_stays_the_earlier_of_equals_and_losses_count_downwards():
    run = [made(step) for step in STEPS]
    scores = dict(zip([item.id for item in run], (0.1, 0.9, 0.9, 0.2, 0.3), strict=True))
    assert kept(decide(run, Keep(best="gsm8k"), scores, {})) == [200, 500]
    assert kept(decide(run, Keep(best="eval_loss"), scores, {}, lower_is_better=True)) == [100, 500]


def test_what_is_not_scored_yet_may_be_the_best_and_stays():
    verdicts = decide([made(step) for step in STEPS], Keep(best="gsm8k"), {"r@100": 0.5, "r@200": 0.4}, {})
    assert kept(verdicts) == [100, 300, 400, 500]
    assert verdicts[2].why == "not scored on gsm8k"


@given(
    steps=st.sets(st.integers(1, 50), min_size=1),
    last=st.integers(1, 5),
    every=st.none() | st.integers(1, 7),
    best=st.none() | st.just("b"),
    data=st.data(),
)
def test_the_last_the_tagged_and_the_needed_never_go(steps, last, every, best, data):
    tagged = data.draw(st.sets(st.sampled_from(sorted(steps))))
    needed = data.draw(st.sets(st.sampled_from(sorted(steps))))
    scored = data.draw(st.sets(st.sampled_from(sorted(steps))))
    run = [made(step, tags=["t"] if step in tagged else []) for step in steps]
    verdicts = decide(run, Keep(last=last, every=every, best=best), {f"r@{step}": 1.0 / step for step in scored},
                      {f"r@{step}": "needed" for step in needed})  # fmt: skip
    stays = set(kept(verdicts))
    assert {max(steps)} | tagged | needed | set(sorted(steps)[-last:]) <= stays
    assert best is None or steps - scored <= stays
    assert [item.id for item in verdicts] == [f"r@{step}" for step in sorted(steps)]


def test_weights_go_and_records_stay_and_say_how_to_get_them_again(lake: Catalog, kedge):
    assert apply(lake) == ["sft@100", "sft@200"]
    assert there(lake) == [300, 400, 500] and apply(lake) == []
    found = checkpoints.find(lake, "sft@200")
    assert found.pruned and found.weights_hash == "sft200"
    with pytest.raises(UserError, match=r"removed by the rule 'keep'.*kedge train sft --from base-tiny@0"):
        found.folder(lake)
    code, out, _ = kedge("checkpoint", "list", "sft")
    assert code == 0 and out.count("weights removed by the rule") == 2 and "a multiple of 300 steps" in out
    listed = json.loads(kedge("checkpoint", "list", "sft", "--json")[1])
    assert [item["pruned"] for item in listed] == [True, True, False, False, False]


def test_the_list_tells_what_the_rule_would_remove(lake: Catalog, kedge):
    listed = json.loads(kedge("checkpoint", "list", "--json")[1])
    assert [item["kept"] for item in listed] == [False, False, True, True, True]
    assert "to be removed" in kedge("checkpoint", "list")[1] and there(lake) == list(STEPS)


def test_weights_that_were_trained_again_are_registered_again(lake: Catalog):
    apply(lake)
    enter(lake, "sft", 200)
    assert not checkpoints.find(lake, "sft@200").pruned
    checkpoints.find(lake, "sft@200").folder(lake)


def test_a_checkpoint_that_a_run_file_names_stays(lake: Catalog):
    runs = lake.project.root / "catalogs" / "runs"
    (runs / "dpo.yaml").write_text("trainer: {name: x, options: {reference: sft@200}}\nmixture: m\nparent: sft@100\n")
    assert apply(lake) == []
    verdict = retention.standing(lake, "sft")[0]
    assert verdict.kept and "dpo.yaml names it" in verdict.why
    (runs / "dpo.yaml").write_text("nothing: true\nbase: lake/runs/sft/ffffffffffffffff/weights/checkpoint-100\n")
    assert apply(lake) == ["sft@200"]


@pytest.mark.parametrize("use", ["parent", "merged_from", "base_path", "same folder"])
def test_a_checkpoint_that_another_one_comes_from_stays(lake: Catalog, use: str):
    folder = "lake/runs/sft/ffffffffffffffff/weights/checkpoint-100"
    more = {"parent": {"parent": "sft@100"}, "merged_from": {"merged_from": {"sft@100": 1.0}},
            "base_path": {"base_path": folder}, "same folder": {"path": folder}}[use]  # fmt: skip
    enter(lake, "child", 10, **more)
    assert apply(lake) == ["sft@200"] and 100 in there(lake)


def test_a_tagged_one_stays_and_a_file_that_cannot_be_read_keeps_everything(lake: Catalog, kedge):
    assert kedge("checkpoint", "tag", "sft@100", "good")[0] == 0
    broken = lake.project.root / "catalogs" / "runs" / "broken.yaml"
    broken.write_text("parent: [")
    with pytest.raises(UserError):
        apply(lake)
    assert there(lake) == list(STEPS) and not any(item.pruned for item in checkpoints.every(lake))
    broken.unlink()
    assert apply(lake) == ["sft@200"]


def test_folders_outside_the_runs_own_are_never_removed(lake: Catalog, tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    enter(lake, "sft", 50, path=str(outside))
    link = lake.folder("runs", "sft", "f" * 16, "weights", "checkpoint-60")
    link.symlink_to(outside)
    checkpoints.register(lake, made(60).model_copy(update={"run": "sft", "path": lake.project.relative(link)}))
    assert apply(lake) == ["sft@100", "sft@200"] and outside.is_dir() and link.is_symlink()


def test_the_best_is_read_from_published_scores_and_from_the_training_log(lake: Catalog):
    for step, answers in ((100, "rw"), (200, "rr"), (300, "ww"), (400, "we"), (500, "ww")):
        score(lake, f"sft{step}", answers)
    own = checkpoints.every(lake, "sft")
    found = retention.scores_of(lake, own, "sums")
    assert found == {"sft@100": 0.5, "sft@200": 1.0, "sft@300": 0.0, "sft@400": 0.0, "sft@500": 0.0}
    assert retention.scores_of(lake, own, "sums:error")["sft@400"] == 0.5
    assert retention.scores_of(lake, own, "sums:nonsense") == {}
    log = lake.folder("runs", "sft", "f" * 16) / "log.jsonl"
    lines = [{"step": 90, "eval_loss": 3}, {"step": 100, "eval_loss": 2}, {"step": 150, "loss": 9},
             {"step": 300, "eval_loss": 1.5}]  # fmt: skip
    log.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 400, "eval_l')
    assert retention.scores_of(lake, own, "eval_loss") == {"sft@100": 2.0, "sft@300": 1.5}


def score(catalog: Catalog, weights_hash: str, answers: str) -> None:
    states = {"r": "right", "w": "wrong", "e": "error"}
    rows = [{name: None for name in schema.SCORES.names}
            | {"benchmark": "sums", "sample_id": str(place), "repeat": 0, "state": states[answer],
               "score": float(answer == "r")} for place, answer in enumerate(answers)]  # fmt: skip
    with catalog.publishing(catalog.folder("scores", "sums", weights_hash)) as draft:
        part = write_parquet(draft.folder / "part-scores.parquet", pa.Table.from_pylist(rows, schema=schema.SCORES))
        draft.manifest = Manifest(kind="scores", name="sums", fingerprint=weights_hash, parts=[part],
                                  inputs={"weights_hash": weights_hash, "base_hash": None})  # fmt: skip


KILLED = """
import os, shutil, signal
from curation.catalog import Catalog
from curation.config import find_project
from curation.runs import Run
from trainers import retention
real = shutil.rmtree
def half(path, *more):
    next(iter(path.iterdir())).unlink()
    os.kill(os.getpid(), signal.SIGKILL)
shutil.rmtree = half
catalog = Catalog(find_project())
retention.apply(catalog, Run(catalog, "sft"))
"""


def test_a_kill_between_record_and_folder_leaves_no_record_of_half_weights(lake: Catalog):
    done = subprocess.run([sys.executable, "-c", KILLED], cwd=lake.project.root, check=False, env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    assert there(lake) == list(STEPS), "the kill came before any folder was gone"
    assert [item.step for item in checkpoints.every(lake, "sft") if item.pruned] == [100, 200]
    assert apply(lake) == [] and there(lake) == [300, 400, 500]
