"""Rows as verl's own datasets hold and render them, before anything is trained: all of them, with the audited ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation import cli, environments
from curation.catalog import Catalog
from curation.config import find_project
from curation.errors import InstrumentError, UserError
from curation.quickstart.journey import inside
from tests.verl_cases import TOOLS, called, say
from tests.verl_cpu import kedge_project
from tests.verl_cpu.kedge_project import RL, SFT, write_run
from trainers.process import verl_prepare
from trainers.training import prepared, write_job
from trainers.verl_rl import PRESETS

try:
    environments.python("verl")
except UserError as absent:
    pytest.skip(str(absent), allow_module_level=True)

pytestmark = pytest.mark.verl

ODD: list[dict[str, Any]] = [
    {"messages": [say("user", "q"), say("assistant", "a")]},
    {"messages": [say("system", "s"), say("user", "add"), say("assistant", "", tool_calls=called()),
                  say("tool", "2", tool_call_id="1"), say("assistant", "2")], "tools": json.dumps(TOOLS)},
    {"messages": [say("user", "q"), say("assistant", "b", reasoning="kept apart"), say("user", "and?"),
                  say("assistant", "c")]},
    {"messages": [say("user", "plus", name="ann"), say("assistant", "12")], "tools": json.dumps(TOOLS[:1])},
]  # fmt: skip


@pytest.fixture(scope="module")
def root(verl_project: Path, tiny_model: Path) -> Path:
    (verl_project / "odd.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ODD))
    (verl_project / "catalogs" / "mixtures" / "odd.sql").write_text(
        kedge_project.MIXTURE.format(stage="sft").replace("FROM kept", "SELECT row_id FROM kept WHERE source = 'odd'")
    )
    with inside(verl_project):
        assert cli.run(["add", "odd.jsonl", "--stage", "sft"]) == 0
        for name in ("asked", "odd"):
            assert cli.run(["mix", "build", name]) == 0
    return verl_project


def job_of(root: Path, name: str) -> dict[str, Any]:
    """Audit a run and write everything that verl is given."""
    with inside(root):
        assert cli.run(["audit", name]) == 0
        return write_job(prepared(Catalog(find_project(root)), name))


def answer(job: dict[str, Any]) -> dict[str, Any]:
    found = json.loads((Path(job["output"]).parent / "verl" / "answer.json").read_text())["run"]
    return dict(found)


def test_conversations_with_tools_thoughts_and_names_have_their_audited_ids_in_verl(root: Path, tiny_model: Path):
    write_run(root, "odd", tiny_model, SFT | {"train_batch_size": 2, "max_length": 1024}, mixture="odd")
    job = job_of(root, "odd")
    assert answer(job) == {"problems": [], "lengths": {"train": len(ODD)}, "differing": []}
    files = sorted((Path(job["output"]).parent / "verl").glob("train-*.parquet"))
    assert len(files) > 1, "rows whose messages have other keys lie in files of their own"
    assert sum(pq.read_metadata(path).num_rows for path in files) == len(ODD)


def test_verl_holding_fewer_rows_or_rendering_other_ids_is_an_instrument_failure(root: Path, tiny_model: Path):
    write_run(root, "prompts", tiny_model, PRESETS["gspo"] | RL)
    job = job_of(root, "prompts")
    assert answer(job)["differing"] == []
    table = pq.read_table(job["fates"])
    short = pa.array([min(tokens, 60) for tokens in table["tokens"].to_pylist()], pa.int32())
    fewer, other = root / "fewer.parquet", root / "other.parquet"
    at = table.column_names.index("tokens")
    kept = pa.array(["whole"] * table.num_rows)
    pq.write_table(table.set_column(at, "tokens", short).set_column(
        table.column_names.index("fate"), "fate", kept), fewer)  # fmt: skip
    hashes = pa.array([1] * table.num_rows, pa.uint64())
    pq.write_table(table.set_column(table.column_names.index("ids_hash"), "ids_hash", hashes), other)
    with pytest.raises(InstrumentError, match=r"\d+ rows were written for train, and verl's dataset holds \d+"):
        verl_prepare.prepare(job | {"fates": str(fewer)}, "rl")
    with pytest.raises(InstrumentError, match="verl renders rows otherwise than the audit: row"):
        verl_prepare.prepare(job | {"fates": str(other)}, "rl")


@pytest.mark.parametrize(("more", "expected"), [
    ({"resume": "/elsewhere/weights"}, "verl goes on in a run of its own alone"),
    ({"config": {"reward.custom_reward_function.path": "x"}}, "the run names rewards and a reward function of verl"),
    ({"config": {"actor_rollout_ref.actor.strategy": "veomni"}}, "does not know the checkpoints of 'veomni'"),
])  # fmt: skip
def test_what_the_wrapper_cannot_do_is_said_before_anything_is_written(
    tmp_path: Path, tiny_model: Path, more: dict, expected: str
):
    job = {"roles": {}, "resume": None, "rewards": [{"name": "answer"}], "config": {}, "tokenizer": str(tiny_model),
           "output": str(tmp_path / "weights")}  # fmt: skip
    with pytest.raises(UserError, match=expected):
        verl_prepare.prepare(job | more, "rl")
    assert not list(tmp_path.iterdir())
