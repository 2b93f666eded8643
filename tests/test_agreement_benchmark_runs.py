"""The benchmark of agreement runs on few votes and ends with one JSON object; nothing here asserts a time."""

from __future__ import annotations

import json

from tests.benchmarks import agreement


def test_the_agreement_benchmark_prints_tables_and_ends_with_one_json_object(capsys):
    returned = agreement.main(["--small"])
    out = capsys.readouterr().out
    assert json.loads(out.strip().splitlines()[-1]) == returned
    assert returned["votes"] == 1_000 and returned["seconds"] > 0 and returned["peak_memory_bytes"] > 1e7
    assert set(returned["seconds_by_step"]) == {"arrays", "agreement", "annotators", "calibration", "aggregation"}
    assert set(returned["peers"]) | set(returned["absent"]) == {"scikit-learn", "statsmodels", "crowd-kit"}
    assert all(peer.get("difference", 0) < 1e-9 for peer in returned["peers"].values())
    assert returned["right"]["dawid_skene"] >= returned["right"]["majority"] > 0.5
    for name in ("step", "seconds", "largest difference"):
        assert name in out
