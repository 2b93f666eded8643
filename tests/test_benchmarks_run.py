"""Benchmarks run on few rows, print a table, and end with one JSON object; nothing here asserts a time."""

from __future__ import annotations

import json
import sys

import pytest

from tests.benchmarks import spine
from tests.benchmarks.watching import watch


def test_the_spine_benchmark_prints_a_table_and_ends_with_one_json_object(capsys):
    returned = spine.main(["--rows", "240"])
    out = capsys.readouterr().out
    line = json.loads(out.strip().splitlines()[-1])
    assert line == returned and line["rows"] == 240
    for step in ("ingest", "measure", "mix"):
        for figure in ("rows_per_second", "rows_per_cpu_second", "ratio_to_datasets", "peak_memory_bytes"):
            assert line[f"{figure}_{step}"] > 0
    assert line["ratio_to_duckdb_ingest"] > 0
    assert line["peak_memory_bytes"] == max(line[f"peak_memory_bytes_{step}"] for step in ("ingest", "measure", "mix"))
    assert line["peak_memory_bytes"] > 1e7
    for name in ("step", "rows/s", "rows per CPU-second", "peak MiB", "ratio to the peer"):
        assert name in out


def test_the_memory_of_children_and_a_peak_between_samples_count(tmp_path):
    child = "x = b'x' * 80_000_000; import time; time.sleep(0.4)"
    tree = f"import subprocess, sys; x = b'x' * 60_000_000; subprocess.run([sys.executable, '-c', {child!r}])"
    assert watch([sys.executable, "-c", tree], tmp_path).peak_bytes > 140e6
    assert watch([sys.executable, "-c", "x = b'x' * 90_000_000"], tmp_path).peak_bytes > 90e6


def test_a_command_that_fails_ends_the_benchmark_with_its_last_lines(tmp_path):
    with pytest.raises(RuntimeError, match=r"(?s)ended with 3.*too bad"):
        watch([sys.executable, "-c", "print('too bad'); raise SystemExit(3)"], tmp_path)


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


def test_the_audit_benchmark_ends_with_one_json_object(capsys):
    from tests.benchmarks import audit

    returned = audit.main(["--rows", "500"])
    out = capsys.readouterr().out
    assert json.loads(out.strip().splitlines()[-1]) == returned
    for step in ("one_length", "sweep"):
        assert returned[f"seconds_{step}"] >= 0 and returned[f"cpu_ratio_to_duckdb_{step}"] > 0
    assert returned["peak_memory_bytes"] > 1e6


def test_the_rendering_benchmark_ends_with_one_json_object(capsys):
    pytest.importorskip("trl")
    from tests.benchmarks import rendering

    returned = rendering.main(["--small"])
    out = capsys.readouterr().out
    assert json.loads(out.strip().splitlines()[-1]) == returned
    assert returned["ratio_to_tokenizers"] > 0 and returned["ratio_to_trl"] > 0 and returned["rows"] > 500
