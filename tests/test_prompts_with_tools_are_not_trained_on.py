"""RL prompts with tools: rows and audits know them, and no RL trainer here shows them to a model."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from curation import schema
from curation.catalog import write_parquet
from curation.errors import UserError
from curation.mixtures import FrozenMixture
from curation.outputs import Manifest
from trainers.training import check_tools

TOOLS = json.dumps([{"type": "function", "function": {"name": "add"}}])


def frozen(folder: Path, stage: str, *tools: str | None) -> FrozenMixture:
    path = folder / "part-00000.parquet"
    write_parquet(path, pa.Table.from_pylist([{"tools": one} for one in tools], schema=schema.frozen(stage)))
    manifest = Manifest(kind="mixtures", name="m", fingerprint="f")
    return FrozenMixture("m", "f", stage, folder, manifest, [path], [])


def test_prompts_with_tools_are_refused_before_a_run_starts(tmp_path: Path):
    with pytest.raises(UserError, match="2 prompts come with tools") as refused:
        check_tools(frozen(tmp_path, "rlvr", TOOLS, None, TOOLS), "catalogs/runs/grpo.yaml")
    assert refused.value.problems[0].where == "catalogs/runs/grpo.yaml"


def test_prompts_without_tools_are_taken(tmp_path: Path):
    check_tools(frozen(tmp_path, "rlvr", None, None), "run.yaml")


def test_pairs_with_tools_are_taken_since_their_trainers_render_them(tmp_path: Path):
    check_tools(frozen(tmp_path, "preference", TOOLS), "run.yaml")
