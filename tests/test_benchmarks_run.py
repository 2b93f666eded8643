"""Benchmarks run on few rows, print a table, and end with one JSON object; nothing here asserts a time."""

from __future__ import annotations

import json

from tests.benchmarks import spine


def test_the_spine_benchmark_ends_with_one_json_object(capsys):
    returned = spine.main(["--rows", "240"])
    out = capsys.readouterr().out
    line = json.loads(out.strip().splitlines()[-1])
    assert line == returned
    for step in ("ingest", "measure", "mix"):
        assert line[f"rows_per_second_{step}"] > 0
        assert line[f"ratio_to_datasets_{step}"] > 0
    assert 2e9 > line["peak_memory_bytes"] > 1e7
    assert "datasets in brackets" in out


def test_the_synthetic_rows_are_the_same_every_time_and_hold_duplicates(tmp_path):
    spine.write_rows(tmp_path / "a", 2_400)
    spine.write_rows(tmp_path / "b", 2_400)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(files) == 12
    lines = []
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        lines += (tmp_path / "a" / name).read_text().splitlines()
    assert len(lines) == 2_400 and 2_200 < len(set(lines)) < 2_400
