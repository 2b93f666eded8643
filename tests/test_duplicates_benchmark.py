"""The near-duplicate benchmark plants what it says, runs on few rows, and ends with one JSON object."""

from __future__ import annotations

import json

from tests.benchmarks import near_duplicates
from tests.benchmarks.near_duplicate_rows import planted, true_jaccard
from tests.benchmarks.near_duplicate_systems import SYSTEMS


def test_the_corpus_is_the_same_every_time_and_has_every_mechanism():
    first, second = planted(700), planted(700)
    assert first == second and len(set(first.mechanism)) == 8
    for name in ("verbatim", "case and punctuation"):
        at = first.mechanism.index(name)
        assert true_jaccard(first.texts[at], first.texts[first.original[at]]) == 1
    sums = [text for text in first.texts if text.startswith("What is ")]
    assert len(sums) == 35 and max(true_jaccard(sums[0], other) for other in sums[1:]) < 0.5
    judged, near = near_duplicates.truth(first)
    assert 40 < near.sum() < 98 and not (near & ~judged).any()


def test_the_near_duplicate_benchmark_ends_with_one_json_object(capsys, monkeypatch):
    for name in set(SYSTEMS) - {"kedge"}:
        monkeypatch.delitem(SYSTEMS, name)
    returned = near_duplicates.main(["--rows", "600"])
    line = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert line == returned and line["documents"] == 600 and line["peers"] == {}
    assert line["precision"] == 1.0 and line["candidate_recall"] >= line["recall"] > 0.8
    assert line["docs_per_cpu_second"] >= line["docs_per_cpu_second_of_commands"] > 0
    assert line["peak_memory_bytes"] > 1e7 and line["recall_by_mechanism"]["verbatim"] == 1.0
