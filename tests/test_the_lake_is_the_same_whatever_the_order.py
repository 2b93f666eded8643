"""Growing in steps or at once, shuffled files, one worker or two: identical rows, signals, verdicts and mixtures."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from curation import parsing
from curation.catalog import Catalog
from curation.config import find_project
from curation.ingest import ingest
from curation.measuring import ensure, named
from curation.mixtures import build
from tests.lakes import SFT, conversation, lake_bytes, make_project, write_source

MEASURES = ("text_statistics", "exact_duplicates")


def walk(root: Path, workers: int = 1) -> dict[str, str]:
    catalog = Catalog(find_project(root))
    for source in ("one", "two"):
        ingest(catalog, source, workers=workers)
    for name in MEASURES:
        ensure(catalog, named(name), workers=workers)
    build(catalog, "both")
    return lake_bytes(root)


@pytest.fixture(scope="module")
def at_once(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return walk(make_project(tmp_path_factory.mktemp("once") / "project"))


def test_the_lake_holds_something_of_every_kind(at_once):
    kinds = {path.split("/")[0] for path in at_once}
    assert kinds == {"rows", "rejects", "signals", "evidence", "verdicts", "mixtures"}
    assert len([path for path in at_once if path.startswith("rows/one/part-")]) == 3


def test_two_workers_write_the_bytes_of_one(tmp_path: Path, at_once):
    assert walk(make_project(tmp_path / "project"), workers=2) == at_once


def test_files_in_another_order_give_the_same_bytes(tmp_path: Path, at_once):
    root = make_project(tmp_path / "project")
    for path in sorted((root / "data").iterdir(), reverse=True):  # another order of directory entries and of dates
        moved = path.with_suffix(".moved")
        shutil.copyfile(path, moved)
        path.unlink()
        moved.rename(path)
    write_source(root, "one", [f"data/one-{number}.jsonl" for number in (2, 0, 1)])
    assert walk(root) == at_once


def test_a_source_grown_in_steps_is_the_source_added_at_once(tmp_path: Path, at_once):
    root = make_project(tmp_path / "project")
    later = {path.name: path.read_bytes() for path in (root / "data").glob("*-0.jsonl")}
    later |= {path.name: path.read_bytes() for path in (root / "data").glob("one-2.jsonl")}
    for name in later:
        (root / "data" / name).unlink()
    catalog = Catalog(find_project(root))
    for source in ("one", "two"):
        ingest(catalog, source)
    for name in MEASURES:
        ensure(catalog, named(name))
    for name, data in later.items():
        (root / "data" / name).write_bytes(data)
        ingest(catalog, name.partition("-")[0])
    assert walk(root) == at_once


def test_a_grown_source_reads_and_measures_only_what_is_new(tmp_path: Path):
    root = make_project(tmp_path / "project", files=2)
    walk(root)
    catalog = Catalog(find_project(root))
    before = {
        path: path.stat().st_mtime_ns for path in (root / "lake" / "signals" / "text_statistics").rglob("*.parquet")
    }
    (root / "data" / "one-9.jsonl").write_text(conversation("new", "row"))
    report = ingest(catalog, "one")
    assert (report.num_files, report.num_files_read, report.parts_written) == (3, 1, 1)
    ensure(catalog, named("text_statistics"))
    after = {
        path: path.stat().st_mtime_ns for path in (root / "lake" / "signals" / "text_statistics").rglob("*.parquet")
    }
    assert len(after) == len(before) + 1
    assert {path: after[path] for path in before} == before


def test_ingesting_again_changes_nothing(tmp_path: Path, at_once):
    root = make_project(tmp_path / "project")
    assert walk(root) == walk(root) == at_once
    report = ingest(Catalog(find_project(root)), "one", verify=True)
    assert (report.num_files_read, report.parts_written) == (0, 0)


def test_a_row_that_left_its_file_leaves_the_lake(tmp_path: Path):
    root = make_project(tmp_path / "project")
    walk(root)
    (root / "data" / "one-2.jsonl").unlink()
    (root / "data" / "two-2.jsonl").unlink()
    catalog = Catalog(find_project(root))
    for source in ("one", "two"):
        ingest(catalog, source)
    fresh = make_project(tmp_path / "fresh", files=2)
    again = Catalog(find_project(fresh))
    for source in ("one", "two"):
        ingest(again, source)
    assert lake_bytes(root, "rows", "rejects") == lake_bytes(fresh, "rows", "rejects")


def test_identical_payloads_are_numbered_by_their_meta_and_not_by_arrival(tmp_path: Path):
    root = make_project(tmp_path / "project")
    walk(root)
    catalog = Catalog(find_project(root))
    connection = catalog.session()
    try:
        rows = connection.execute(
            "SELECT content_hash, occurrence, meta::JSON ->> 'note' AS note FROM rows_sft WHERE source = 'one' AND "
            "messages[1].content LIKE 'one same 5%' ORDER BY 1, 2").fetchall()  # fmt: skip
    finally:
        connection.close()
    assert [(occurrence, note) for _, occurrence, note in rows] == [(0, "file 0"), (1, "file 1"), (2, "file 2")]


def test_files_of_many_parts_grow_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parsing, "ROWS_PER_PART", 7)
    once = make_project(tmp_path / "once")
    ingest(Catalog(find_project(once)), "one")
    assert len([path for path in lake_bytes(once, "rows") if path.endswith(".parquet")]) == 15
    steps = make_project(tmp_path / "steps")
    paths = {path.name: path.read_bytes() for path in (steps / "data").glob("one-*")}
    for name in paths:
        (steps / "data" / name).unlink()
    for name in sorted(paths, reverse=True):
        (steps / "data" / name).write_bytes(paths[name])
        ingest(Catalog(find_project(steps)), "one")
    assert lake_bytes(steps) == lake_bytes(once)


def test_a_mixture_has_the_same_bytes_whatever_the_number_of_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    mixture = SFT + "SELECT * FROM take_rows('one', 18000, seed := 3)\n"  # more than a row group
    root = make_project(tmp_path / "project", files=2, rows=12_000, mixture=mixture)
    catalog = Catalog(find_project(root))
    ingest(catalog, "one", workers=1)
    session, found = Catalog.session, []
    for threads in (1, 2, 4):
        monkeypatch.setattr(Catalog, "session", lambda self, threads=threads: session(self, threads=threads))
        build(catalog, "both")
        found.append(lake_bytes(root, "mixtures", "verdicts"))
        for kind in ("mixtures", "verdicts"):
            shutil.rmtree(root / "lake" / kind)
    assert found[0] == found[1] == found[2]
