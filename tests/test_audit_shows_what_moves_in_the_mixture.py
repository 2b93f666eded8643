"""Shares of every stratum before and after a cut: figures with known values, and the check that fails on them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.auditing.strata import shift


def test_the_figures_are_those_of_a_thinking_share_that_falls_from_a_half_to_less_than_a_fifth():
    made = shift("mode", "rows", ["plain", "think"], np.array([50.0, 50.0]), np.array([81.7, 18.3]))
    assert made is not None
    assert (round(made.total_variation, 3), round(made.kl, 3)) == (0.317, 0.217)
    assert (round(made.js_bits, 3), round(made.psi, 2)) == (0.083, 0.47)
    assert (made.worst, round(made.worst_loss, 3)) == ("think", 0.634)
    small = shift("mode", "rows", ["plain", "think"], np.array([50.0, 50.0]), np.array([52.6, 47.4]))
    assert small is not None and (round(small.total_variation, 3), round(small.psi, 3)) == (0.026, 0.003)


def test_a_stratum_that_is_gone_has_no_finite_divergence_and_the_json_says_null():
    made = shift("source", "rows", ["a", "b"], np.array([5.0, 5.0]), np.array([5.0, 0.0]))
    assert made is not None and math.isinf(made.psi) and made.worst_loss == 1.0
    assert made.as_json()["psi"] is None and json.dumps(made.as_json(), allow_nan=False)
    assert shift("source", "rows", ["a"], np.array([0.0]), np.array([0.0])) is None
    gone = shift("source", "rows", ["a"], np.array([3.0]), np.array([0.0]))
    assert gone is not None and gone.total_variation == 1.0


@given(st.lists(st.tuples(st.integers(1, 1000), st.integers(1, 1000)), min_size=2, max_size=6))
def test_divergences_are_not_negative_and_nothing_moves_where_all_keep_the_same_share(counts):
    before, after = (np.array(column, float) for column in zip(*counts, strict=True))
    names = [str(index) for index in range(len(counts))]
    made = shift("k", "u", names, before, after)
    same = shift("k", "u", names, before, before * 3)
    assert made is not None and same is not None
    assert 0 <= made.total_variation <= 1 and made.kl >= -1e-12 and 0 <= made.js_bits + 1e-12 <= 1.0 + 1e-9
    assert made.psi >= -1e-12 and same.total_variation == pytest.approx(0) and same.worst_loss == pytest.approx(0)


def write(path: Path, thinking: int, plain: int) -> Path:
    """Rows of one source: half of them think at length."""
    with path.open("w") as stream:
        for number in range(thinking + plain):
            thought = f"<think>{'12+3 ' * 300}</think>" if number < thinking else ""
            answer = "fifteen " * (1 if number < thinking else 60)
            turns = [{"role": "user", "content": f"{number}?"}, {"role": "assistant", "content": thought + answer}]
            stream.write(json.dumps({"messages": turns}) + "\n")
    return path


def test_cutting_the_thinking_half_of_one_source_is_an_error_and_not_a_surprise(tmp_path, tiny_model, kedge):
    path = write(tmp_path / "rows.jsonl", 20, 20)
    code, out, _ = kedge("audit", path, "--tokenizer", tiny_model, "--max-length", 600, "--json")
    report = json.loads(out)
    check = next(item for item in report["checks"] if item["id"] == "A10")
    assert code == 1 and check["level"] == "error"
    assert "trained tokens by mode" in check["message"] and "'thought' loses" in check["message"]
    moved = {(item["kind"], item["unit"]): item for item in report["details"]["strata"]}
    assert moved["source", "rows"]["total_variation"] == 0.0
    assert moved["mode", "trained tokens"]["total_variation"] > 0.05
    assert {item["name"] for item in moved["length", "rows"]["strata"]} <= {"up to 512", "up to 1,024", "up to 2,048",
                                                                            "up to 4,096"}  # fmt: skip
    _, out, _ = kedge("audit", path, "--tokenizer", tiny_model, "--max-length", 8000, "--json")
    assert next(item for item in json.loads(out)["checks"] if item["id"] == "A10")["level"] == "ok"


def test_the_report_shows_shares_before_and_after(tmp_path, tiny_model, kedge):
    path = write(tmp_path / "rows.jsonl", 4, 4)
    kedge("audit", path, "--tokenizer", tiny_model, "--max-length", 600, "--to", tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "What it does to the mixture" in page and "trained tokens by mode" in page
