"""Real rows, a real tokenizer: an SFT mixture of more than 9,000 rows and what each context length would cost."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests import REAL_DATA

pytestmark = pytest.mark.real_data

SOURCES = {
    "gsm8k": "benchmarks/gsm8k_train.jsonl.gz",
    "alpaca": "sft/alpaca_en_demo.json.gz",
    "fastchat": "sft/fastchat_dummy_conversation.json.gz",
    "sky_aime": "reasoning/sky_t1_5k_14b_aime24.jsonl.gz",
    "sky_amc": "reasoning/sky_t1_5k_14b_amc23.jsonl.gz",
    "sky_math": "reasoning/sky_t1_5k_27b_math500.jsonl.gz",
}
MIXTURE = """/* ---
stage: sft
tokenizer: qwen2.5
template: tokenizer
rendering: whole
--- */
SELECT row_id FROM kept
"""


@pytest.fixture(scope="module")
def real_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from curation import cli

    folder = tmp_path_factory.mktemp("real")
    (folder / "kedge.yaml").write_text(f"tokenizers:\n  qwen2.5: {REAL_DATA / 'tokenizers' / 'qwen2.5'}\n")
    (folder / "catalogs" / "mixtures").mkdir(parents=True)
    (folder / "catalogs" / "mixtures" / "real.sql").write_text(MIXTURE)
    before = Path.cwd()
    os.chdir(folder)
    try:
        for name, path in SOURCES.items():
            assert cli.run(["add", str(REAL_DATA / path), "--name", name, "--stage", "sft"]) == 0
        assert cli.run(["mix", "build", "real"]) == 0
    finally:
        os.chdir(before)
    return folder


def test_the_mixture_of_real_rows_holds_more_than_nine_thousand(real_project: Path, kedge, monkeypatch):
    monkeypatch.chdir(real_project)
    _, out, _ = kedge("sql", "SELECT source, count(*) AS n FROM mixture_rows GROUP BY source", "--json")
    counts = {row["source"]: row["n"] for row in json.loads(out)}
    assert set(counts) == set(SOURCES)
    assert sum(counts.values()) >= 9_000


def test_the_frozen_mixture_loads_with_plain_datasets(real_project: Path):
    import datasets

    parts = sorted(str(path) for path in (real_project / "lake" / "mixtures" / "real").rglob("train/*.parquet"))
    loaded = datasets.load_dataset("parquet", data_files=parts, split="train", cache_dir=str(real_project / "hf"))
    assert len(loaded) >= 9_000
    assert {"row_id", "source", "messages"} <= set(loaded.column_names)


def test_audits_at_three_lengths_say_how_many_rows_lose_their_end(real_project: Path, kedge, monkeypatch):
    monkeypatch.chdir(real_project)
    cut = {}
    for length in (512, 2048, 8192):
        code, out, err = kedge("audit", "real", "--max-length", str(length), "--json")
        assert code in (0, 1), err
        report = json.loads(out)
        cut[length] = {row["source"]: row for row in report["sources"]}
    for source in ("sky_aime", "sky_amc", "sky_math"):
        losses = [cut[length][source]["rows_cut"] for length in (512, 2048, 8192)]
        assert losses == sorted(losses, reverse=True)
        assert losses[0] > 0
    assert cut[8192]["gsm8k"]["rows_cut"] == 0
