"""The catalogue: one writer, the publish protocol, locks, the index."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.catalog import Catalog, write_parquet
from curation.errors import LockHeld, UserError
from curation.outputs import Manifest
from curation.queries import single_select

TABLE = pa.table({"a": list(range(1000)), "b": [f"text {n}" for n in range(1000)]})


def publish(catalog: Catalog, name: str = "one") -> Path:
    target = catalog.folder("mixtures", name, "f00d")
    with catalog.publishing(target) as draft:
        part = write_parquet(draft.folder / "part-0.parquet", TABLE)
        draft.manifest = Manifest(kind="mixtures", name=name, fingerprint="f00d", parts=[part])
    return target


def test_chunking_does_not_change_the_bytes_that_are_written(tmp_path: Path):
    chunked = pa.concat_tables([TABLE.slice(0, 7), TABLE.slice(7, 500), TABLE.slice(507)])
    assert write_parquet(tmp_path / "a", TABLE).hash == write_parquet(tmp_path / "b", chunked).hash


def test_the_number_of_threads_does_not_change_the_bytes_of_a_query(tmp_path: Path):
    hashes = set()
    for threads in (1, 2, 4):
        connection = duckdb.connect()
        connection.execute(f"SET threads = {threads}")
        query = "SELECT (i * 7919) % 100003 AS a, i::VARCHAR AS b FROM range(100000) t(i)"
        hashes.add(write_parquet(tmp_path / f"{threads}", query, connection=connection, order_by="a, b").hash)
        connection.close()
    assert len(hashes) == 1


def test_a_query_without_a_total_order_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="total order"):
        write_parquet(tmp_path / "a", "SELECT 1", connection=duckdb.connect())


def test_a_block_that_fails_publishes_nothing_and_leaves_nothing(catalog: Catalog):
    target = catalog.folder("mixtures", "x", "f00d")
    with pytest.raises(RuntimeError), catalog.publishing(target) as draft:
        write_parquet(draft.folder / "part-0.parquet", TABLE)
        raise RuntimeError("stop")
    assert not target.exists()
    assert not list(catalog.lake.glob(".tmp-*"))


def test_what_is_published_is_in_the_lake_and_in_the_index_and_rebuild_finds_it_again(catalog: Catalog):
    folder = publish(catalog)
    assert [found for found, _ in catalog.manifests("mixtures")] == [folder]
    (catalog.lake / "catalog.duckdb").unlink()
    assert catalog.rebuild() == 1
    with catalog.index(read_only=True) as connection:
        assert connection.execute("SELECT name, num_rows FROM manifests").fetchall() == [("one", 1000)]


def test_a_manifest_holds_no_dates_hosts_or_paths(catalog: Catalog):
    text = (publish(catalog) / "manifest.json").read_text()
    assert str(catalog.lake) not in text
    assert os.uname().nodename not in text
    assert "created_at" not in text


def test_publishing_the_same_twice_keeps_the_first(catalog: Catalog):
    first = (publish(catalog) / "provenance.json").read_bytes()
    assert (publish(catalog) / "provenance.json").read_bytes() == first


def test_leftovers_of_a_killed_command_are_removed_and_never_seen(catalog: Catalog):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    leftover = catalog.lake / f".tmp-{dead.stdout.strip()}-x-1"
    leftover.mkdir(parents=True)
    (leftover / "manifest.json").write_text("{}")
    publish(catalog)
    assert not leftover.exists()


def test_a_second_writer_is_told_which_command_holds_the_lock_and_a_killed_one_lets_go(catalog: Catalog):
    code = (
        "import time; from curation.catalog import Catalog; from curation.config import find_project\n"
        "with Catalog(find_project()).writing('rows', 'alpaca'):\n    print('held', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=catalog.project.root, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    held = rf"rows 'alpaca' is being written by .*process {process.pid}"
    with pytest.raises(LockHeld, match=held), catalog.writing("rows", "alpaca"):
        pass
    with catalog.writing("rows", "gsm8k"):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    with catalog.writing("rows", "alpaca"):
        pass


def test_an_index_held_by_another_process_ends_in_one_clear_error(catalog: Catalog, monkeypatch: pytest.MonkeyPatch):
    publish(catalog)
    code = "import duckdb, sys, time; c = duckdb.connect(sys.argv[1]); print('open', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, str(catalog.lake / "catalog.duckdb")],
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    try:
        assert process.stdout is not None and process.stdout.readline() == "open\n"
        monkeypatch.setattr("tenacity.stop_after_delay", lambda seconds: lambda state: True)
        start = time.monotonic()
        with pytest.raises(LockHeld, match="is open in"), catalog.index(read_only=True):
            pass
        assert time.monotonic() - start < 30
    finally:
        process.kill()
        process.wait()


def test_a_confined_session_reads_the_lake_and_nothing_else(catalog: Catalog, tmp_path_factory: pytest.TempPathFactory):
    part = publish(catalog) / "part-0.parquet"
    outside = tmp_path_factory.mktemp("outside") / "secret.csv"
    outside.write_text("a\n1\n")
    connection = catalog.session()
    catalog.confine(connection)
    assert connection.execute(f"SELECT count(*) FROM read_parquet('{part}')").fetchall() == [(1000,)]
    with pytest.raises(duckdb.Error):
        connection.execute(f"SELECT * FROM read_csv('{outside}')").fetchall()
    with pytest.raises(duckdb.Error):
        connection.execute("SET enable_external_access = true")
    connection.close()


@pytest.mark.parametrize("text", ["DELETE FROM rows", "SELECT 1; SELECT 2", "COPY rows TO 'x'", "INSTALL httpfs", ""])
def test_anything_but_one_select_is_refused(text: str):
    with pytest.raises(UserError, match="exactly one SELECT"):
        single_select(duckdb.connect(), text, "query")


def test_a_syntax_error_names_the_line():
    with pytest.raises(UserError, match=r"x.sql:2: "):
        single_select(duckdb.connect(), "SELECT 1\nFROM WHERE", "x.sql")


def test_an_empty_project_has_all_views_and_no_rows(catalog: Catalog):
    connection = catalog.session()
    for view in ("rows", "rows_midtrain", "rows_sft", "rows_preference", "rows_rlvr"):
        assert connection.execute(f"SELECT count(*) FROM {view}").fetchall() == [(0,)]
    connection.close()


def test_long_rows_get_smaller_row_groups(tmp_path: Path):
    table = pa.table({"text": ["x" * 100_000] * 2000})
    write_parquet(tmp_path / "a", table)
    assert pq.read_metadata(tmp_path / "a").num_row_groups >= 3


def test_what_a_killed_command_published_and_did_not_enter_is_entered_by_the_next(catalog, kedge, monkeypatch):
    import subprocess
    import sys

    from curation.catalog import Catalog

    publish(catalog)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()

    def die(self, folder, manifest):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "register", die)
        patch.setattr("os.getpid", lambda: gone.pid)
        with pytest.raises(KeyboardInterrupt):
            publish(catalog, "other")
    assert [path.name for path in (catalog.lake / ".locks").glob("entering-*")] == [f"entering-{gone.pid}"]
    assert kedge("doctor")[0] == 0
    with catalog.index(read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM manifests").fetchall() == [(2,)]
    assert not list((catalog.lake / ".locks").glob("entering-*"))


def publish_one(catalog: Catalog, name: str) -> None:
    with catalog.publishing(catalog.folder("mixtures", name, "0" * 16)) as draft:
        draft.manifest = Manifest(kind="mixtures", name=name, fingerprint="0" * 32)


def entered(catalog: Catalog) -> list[str]:
    with catalog.index(read_only=True) as connection:
        return [row[0] for row in connection.execute("SELECT name FROM manifests ORDER BY name").fetchall()]


def test_outputs_published_together_enter_the_index_at_the_end_at_once(catalog):
    marks = catalog.lake / ".locks"
    with catalog.together(), catalog.together():
        publish_one(catalog, "a")
        publish_one(catalog, "b")
        assert entered(catalog) == [] and len(list(marks.glob("entering-*"))) == 1
    assert entered(catalog) == ["a", "b"] and not list(marks.glob("entering-*"))


def test_what_was_published_before_an_error_is_in_the_index_too(catalog):
    with pytest.raises(ValueError, match="in between"), catalog.together():
        publish_one(catalog, "a")
        raise ValueError("in between")
    assert entered(catalog) == ["a"]


def test_long_work_enters_what_is_published_meanwhile(catalog, monkeypatch):
    monkeypatch.setattr("curation.catalog.TOGETHER", 0.0)
    with catalog.together():
        publish_one(catalog, "a")
        assert entered(catalog) == ["a"] and not list((catalog.lake / ".locks").glob("entering-*"))
