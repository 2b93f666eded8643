"""Join measures: what they are given, and that their values lie beside the rows however these are split or grow."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation import measuring
from curation.join_work import JoinWork
from curation.measures import JoinMeasure
from curation.measuring import ensure, measure_fingerprint, signal_parts
from tests.lakes import conversation, lake_bytes, make_project

SEEN: list[JoinWork] = []


class Crowd(JoinMeasure):
    """How many rows of all sources are as long as this one; evidence for each but the first by row_id."""

    version: ClassVar[int] = 1
    stages: ClassVar[tuple[str, ...]] = ("sft",)
    against: ClassVar[tuple[str, ...]] = ("benchmark",)
    needs: ClassVar[tuple[str, ...]] = ("text_statistics",)
    columns: ClassVar[pa.Schema] = pa.schema([("crowd", pa.int64()), ("items", pa.int64())])
    evidence: ClassVar[pa.Schema] = pa.schema([("row_id", pa.uuid()), ("length", pa.int32())])
    evidence_kind: ClassVar[str] = "crowds"
    factor: int = 1

    def join(self, work: JoinWork) -> None:
        SEEN.append(work)
        work.counts["lengths"] = work.connection.execute(
            "SELECT count(DISTINCT chars) FROM signals_text_statistics"
        ).fetchall()[0][0]
        items = sum(work.run(_num_rows, [part.path for part in work.against], "counting"))
        crowd = f"{self.factor} * count(*) OVER (PARTITION BY chars) AS crowd"
        work.connection.execute(
            f"CREATE TEMP VIEW measured AS SELECT row_id, {crowd}, {items} AS items FROM signals_text_statistics"
        )
        work.connection.execute("CREATE TEMP VIEW found AS SELECT row_id, chars AS length FROM signals_text_statistics "
                                "QUALIFY row_number() OVER (PARTITION BY chars ORDER BY row_id) > 1")  # fmt: skip
        (work.cache / "kept").touch()


class Forgetful(Crowd):
    """A join that has values for `measured` alone: a SELECT over `one`, which has them for every row of a source."""

    measured: str = "FROM one LIMIT 3"

    def join(self, work: JoinWork) -> None:
        super().join(work)
        work.connection.execute(
            "CREATE TEMP VIEW one AS SELECT row_id, 1::BIGINT AS crowd, 1::BIGINT AS items "
            "FROM signals_text_statistics WHERE source = 'one';"
            f"CREATE OR REPLACE TEMP VIEW measured AS {self.measured}"
        )


def _num_rows(path: Path) -> int:
    return pq.read_metadata(path).num_rows


@pytest.fixture
def project(catalog, kedge):
    make_project(catalog.project.root, files=3, rows=10)
    for name in ("one", "two"):
        assert kedge("add", name)[0] == 0
    Path("quiz.jsonl").write_text('{"question": "1+1?"}\n{"question": "1+2?"}\n')
    assert kedge("add", "quiz.jsonl", "--stage", "benchmark")[0] == 0
    SEEN.clear()
    return catalog


def test_values_lie_beside_their_rows_in_every_part_and_needed_measures_come_first(project):
    said: list[str] = []
    assert ensure(project, Crowd(), tell=said.append) == ["one", "two"]
    assert [line.split(" of ")[0] for line in said] == ["measuring text_statistics", f"measuring {Crowd.plugin_name()}"]
    (work,) = SEEN
    assert [part.num_rows for part in work.parts] == [11] * 6 and set(work.parts[0].signals) == {"text_statistics"}
    assert [part.stage for part in work.against] == ["benchmark"] and work.previous is None
    lengths: list[int] = []
    for source in ("one", "two"):
        folder, rows = project.source(source)
        parts = signal_parts(project, Crowd(), source)
        statistics = signal_parts(project, measuring.named("text_statistics"), source)
        assert parts is not None and statistics is not None and len(parts) == 3
        for part, chars, of in zip(parts, statistics, rows.parts, strict=True):
            table = pq.read_table(part)
            assert table.schema.equals(pa.schema([("row_id", pa.uuid()), *Crowd.columns]))
            assert table["row_id"].to_pylist() == pq.read_table(folder / of.name)["row_id"].to_pylist()
            assert table["items"].to_pylist() == [2] * 11
            lengths += pq.read_table(chars)["chars"].to_pylist()
    found = project.latest("evidence", "crowds")
    assert found is not None
    assert found[1].counts == {"lengths": len(set(lengths))} and found[1].num_rows == len(lengths) - len(set(lengths))


def test_a_join_is_made_again_where_a_source_or_a_benchmark_grew_and_its_past_is_at_hand(project, kedge):
    ensure(project, Crowd())
    old = measure_fingerprint(project, Crowd())
    Path("quiz.jsonl").write_text('{"question": "1+1?"}\n{"question": "1+2?"}\n{"question": "1+3?"}\n')
    assert kedge("add", "quiz.jsonl", "--stage", "benchmark")[0] == 0 or kedge("add", "quiz")[0] == 0
    assert measure_fingerprint(project, Crowd()) != old
    assert ensure(project, Crowd()) == ["one", "two"]
    first, second = SEEN
    assert second.previous is not None and old[:16] in second.previous.parts
    assert first.cache == second.cache and (second.cache / "kept").exists()
    assert not first.folder.exists(), "scratch is gone"
    assert len(project.manifests("evidence", "crowds")) == 1, "the earlier evidence is forgotten"


def test_other_options_are_another_measure_whose_values_stay(project):
    for factor in (1, 2, 1):
        ensure(project, Crowd(factor=factor))
    assert len(SEEN) == 2 and SEEN[0].cache != SEEN[1].cache
    assert len(project.manifests("evidence", "crowds")) == 2
    values = [pq.read_table(signal_parts(project, Crowd(factor=factor), "one")[0])["crowd"] for factor in (1, 2)]
    assert [2 * value.as_py() for value in values[0]] == values[1].to_pylist()


def test_growing_in_steps_gives_the_same_bytes_as_building_at_once(project, kedge, tmp_path):
    files = sorted((project.project.root / "data").glob("one-*.jsonl"))
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    ensure(project, Crowd())
    at_once = lake_bytes(project.project.root, "signals", "evidence")
    for path in files[1:]:
        path.rename(hidden / path.name)
    shutil.rmtree(project.lake / "signals")
    shutil.rmtree(project.lake / "evidence")
    for path in [None, *files[1:]]:
        if path is not None:
            (hidden / path.name).rename(path)
        assert kedge("add", "one")[0] == 0
        ensure(project, Crowd())
    assert lake_bytes(project.project.root, "signals", "evidence") == at_once


def test_sources_are_ranked_by_the_projects_priority_and_then_by_name(project):
    (project.project.root / "kedge.yaml").write_text("source_priority: [two, unheard_of]\n")
    from curation.catalog import Catalog
    from curation.config import find_project

    other = Catalog(find_project())
    before = measure_fingerprint(project, Crowd())
    ensure(other, Crowd())
    assert SEEN[0].priorities == {"two": 0, "one": 1, "quiz": 2}
    assert measure_fingerprint(other, Crowd()) != before


TWICE = "FROM one UNION ALL FROM (FROM one ORDER BY row_id LIMIT 1)"


@pytest.mark.parametrize("values", [
    "FROM one LIMIT 3", TWICE, f"FROM ({TWICE}) WHERE row_id <> (SELECT max(row_id) FROM one)",
])  # fmt: skip
def test_a_join_that_leaves_rows_without_a_value_or_gives_two_publishes_nothing(project, values):
    with pytest.raises(RuntimeError, match="no value, or several, for a row of one"):
        ensure(project, Forgetful(measured=values))
    assert signal_parts(project, Forgetful(measured=values), "one") is None
    assert not list(project.lake.glob(".tmp-*join*"))


def test_workers_share_the_jobs_of_a_join_and_keep_their_order(project, tmp_path):
    ensure(project, Crowd())
    work = SEEN[0]
    many = JoinWork(work.connection, work.parts, work.against, {}, tmp_path, tmp_path, None, workers=2)
    paths = [part.path for part in (*work.against, *work.parts)]
    assert list(many.run(_num_rows, paths, "counting")) == [2, *[11] * 6]


def test_a_rule_reads_the_evidence_of_a_join_measure(catalog, kedge):
    Path("chat.jsonl").write_text(conversation("a", "b") * 3)
    assert kedge("add", "chat.jsonl")[0] == 0
    (catalog.project.catalogs / "rules").mkdir()
    (catalog.project.catalogs / "rules" / "twice.sql").write_text(
        "/* ---\nstage: sft\nneeds: [exact_duplicates]\n--- */\n"
        "SELECT row_id, 'the same as ' || representative_source AS reason FROM duplicates\n"
    )
    code, out, err = kedge("rules", "twice")
    assert code == 0, err
    assert "the same as chat" in out
