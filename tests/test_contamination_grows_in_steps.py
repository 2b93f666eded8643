"""Contamination depends on the set of rows and items alone: not on their order, parts, workers or earlier runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.join_work import RowPart
from curation.measures.contamination import Contamination
from tests.contamination_corpus import generated_items, make_corpus
from tests.test_contamination_evidence import row_id, work_of, write_part

ORDER = "ORDER BY row_id, item, component"


def rows_of(count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    corpus = make_corpus(count, 2, generated_items(80, 2), ["nothing planted"])
    rows = [{"text": row.get("text"), "row_id": row_id(number),
             "messages": row.get("messages")}
            for number, row in enumerate(corpus.rows)]  # fmt: skip
    return rows, [{"question": item["question"], "answer": item["answer"]} for item in corpus.items]


def results(folder: Path, parts: list[RowPart], items: list[RowPart], cache: Path, workers: int = 1) -> list[pa.Table]:
    folder.mkdir(exist_ok=True)
    work = work_of(folder, parts, items, cache)
    if workers > 1:
        work = type(work)(**{**vars(work), "workers": workers})
    Contamination().join(work)
    tables = [work.connection.sql(f"SELECT * FROM found {ORDER}").to_arrow_table(),
              work.connection.sql("SELECT * FROM measured ORDER BY row_id").to_arrow_table()]  # fmt: skip
    return [*tables, work.counts]


def test_parts_order_growth_and_workers_change_nothing(tmp_path):
    rows, items = rows_of(600)
    exam = [write_part(tmp_path / "exam.parquet", "benchmark", "exam", items, 10_000)]
    split = [write_part(tmp_path / f"{number}.parquet", "midtrain", "web", rows[number * 150 : (number + 1) * 150])
             for number in range(4)]  # fmt: skip
    whole = [write_part(tmp_path / "whole.parquet", "midtrain", "web", rows)]
    at_once = results(tmp_path / "a", whole, exam, tmp_path / "cache-a")
    assert at_once[0].num_rows > 20
    assert results(tmp_path / "b", split[::-1], exam, tmp_path / "cache-b", workers=2) == at_once
    results(tmp_path / "c", split[:2], exam, tmp_path / "cache-c")
    seeds = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache-c").glob("seeds-*")}
    assert len(seeds) == 2
    assert results(tmp_path / "c", split, exam, tmp_path / "cache-c") == at_once
    assert {path: path.stat().st_mtime_ns for path in seeds} == seeds, "old parts are not scanned again"


def test_items_in_another_order_or_split_give_the_same_evidence(tmp_path):
    rows, items = rows_of(200)
    whole = [write_part(tmp_path / "whole.parquet", "midtrain", "web", rows)]
    numbered = [item | {"row_id": row_id(10_000 + number)} for number, item in enumerate(items)]
    exam = [write_part(tmp_path / "exam.parquet", "benchmark", "exam", numbered)]
    other = [write_part(tmp_path / f"exam-{number}.parquet", "benchmark", "exam", numbered[::-1][number::2])
             for number in range(2)]  # fmt: skip
    assert results(tmp_path / "a", whole, exam, tmp_path / "one") == results(
        tmp_path / "b", whole, other, tmp_path / "two"
    )


def test_another_item_makes_another_index_and_finds_it(tmp_path):
    rows, items = rows_of(200)
    whole = [write_part(tmp_path / "whole.parquet", "midtrain", "web", rows)]
    few = [write_part(tmp_path / "few.parquet", "benchmark", "exam", items[:10], 10_000)]
    all_items = [write_part(tmp_path / "all.parquet", "benchmark", "exam", items, 10_000)]
    before = results(tmp_path / "a", whole, few, tmp_path / "cache")
    after = results(tmp_path / "b", whole, all_items, tmp_path / "cache")
    assert after[0].num_rows > before[0].num_rows
    assert after == results(tmp_path / "c", whole, all_items, tmp_path / "fresh")


def test_options_are_part_of_the_identity_and_a_model_counts_by_its_bytes(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    one = Contamination(embedding_model=str(model))
    before = one.fingerprint()
    moved = tmp_path / "moved"
    model.rename(moved)
    assert Contamination(embedding_model=str(moved)).fingerprint() == before != Contamination().fingerprint()
    (moved / "config.json").write_text("{ }")
    assert Contamination(embedding_model=str(moved)).fingerprint() != before
    assert Contamination(threshold=0.8).fingerprint() != Contamination().fingerprint()
