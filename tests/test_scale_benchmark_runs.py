"""The benchmark of scale runs on few rows, executes nothing twice, and ends with one JSON object."""

from __future__ import annotations

import json

import duckdb
import pytest

from tests.benchmarks import scale, scale_rows


def test_the_scale_benchmark_ends_with_one_json_object(capsys):
    returned = scale.main(["--rows", "1200"])
    out = capsys.readouterr().out
    assert json.loads(out.strip().splitlines()[-1]) == returned and returned["rows"] == 1_200
    for name in ("seconds_first", "seconds_repeat", "peak_memory_bytes"):
        assert returned[name] > 0
    for name in ("add math", "measure", "mix build all", "seconds again", "peak MiB"):
        assert name in out


def test_a_second_run_that_writes_anything_ends_the_benchmark(tmp_path):
    scale.prepare(tmp_path, 400, 1)
    scale.told("add", "tools", root=tmp_path)
    with pytest.raises(RuntimeError, match=r"'measure' changed \['evidence/"):
        scale.repeat_costs(tmp_path)


def test_the_rows_hold_duplicates_near_duplicates_and_benchmark_questions_and_are_the_same_every_time(tmp_path):
    counts = scale_rows.write_rows(tmp_path / "a", 20_000)
    scale_rows.write_rows(tmp_path / "b", 20_000)
    assert counts == {"math": 8_000, "chat": 6_000, "code": 4_000, "tools": 2_000}
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(files) == 9 and "items.jsonl" in files
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    connection = duckdb.connect()
    texts = "SELECT messages[1].content AS ask, messages[2].content AS say FROM '{}/*-*.jsonl'"
    connection.execute(f"CREATE TABLE rows AS {texts.format(tmp_path / 'a')}")
    total, distinct = connection.execute("SELECT count(*), count(DISTINCT (ask, say)) FROM rows").fetchall()[0]
    assert total == 20_000 and 0.01 < 1 - distinct / total < 0.03
    leaks = f"SELECT count(*) FROM rows, '{tmp_path}/a/items.jsonl' WHERE ask = 'Please solve this. ' || question"
    assert 5 <= connection.execute(leaks).fetchall()[0][0] <= 40
    scale_rows.write_rows(tmp_path / "long", 2_000, words=4)
    chars, longer = (connection.execute(f"SELECT avg(len(ask) + len(say)) FROM ({query})").fetchall()[0][0]
                     for query in ("FROM rows", texts.format(tmp_path / "long")))  # fmt: skip
    assert 300 < chars < 700 and 3.3 < longer / chars < 4.5
