"""Shares of every stratum before and after a cut: figures with known values, and the check that fails on them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.auditing.labels import labels_of, measured_labels, pooled, told_labels
from curation.auditing.strata import shift
from curation.catalog import Catalog, write_parquet
from curation.config import find_project
from curation.measuring import ensure, named
from curation.mixtures import build
from tests.lakes import conversation


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


MIXTURE = "/* ---\nstage: sft\ntokenizer: tiny\ntemplate: chatml\n--- */\nSELECT * FROM kept\n"
ENGLISH = "The train from London arrives at the station every morning and the people wait for it on the platform. "
GERMAN = "Der Zug aus Berlin kommt jeden Morgen am Bahnhof an und die Leute warten auf dem Bahnsteig auf ihn. "


@pytest.fixture
def mixture(catalog, kedge, tiny_model):
    """A frozen mixture `m` of 70 short English rows, 60 long German ones and one in French."""
    talks = [(f"Write a poem on train {n}.", ENGLISH) for n in range(70)]
    talks += [(f"{n}? Wo ist er?", GERMAN * 8) for n in range(60)]
    talks.append(("Quand?", "Le train de Paris arrive tous les matins dans la grande gare, et les gens l'attendent."))
    Path("talks.jsonl").write_text("".join(conversation(*talk) for talk in talks))
    Path("kedge.yaml").write_text(f"tokenizers: {{tiny: {tiny_model}}}\n")
    Path("catalogs/mixtures").mkdir()
    Path("catalogs/mixtures/m.sql").write_text(MIXTURE)
    assert kedge("add", "talks.jsonl")[0] == kedge("mix", "build", "m")[0] == 0
    return Catalog(find_project())


def strata_of(kedge) -> dict[str, dict[str, tuple[float, float]]]:
    """kind -> stratum -> its share of rows before and after the mixture `m` is cut to 400 tokens."""
    code, out, err = kedge("audit", "m", "--max-length", "400", "--json")
    assert code in (0, 1), err
    return {item["kind"]: {entry["name"]: (entry["before"], entry["after"]) for entry in item["strata"]}
            for item in json.loads(out)["details"]["strata"] if item["unit"] == "trained tokens"}  # fmt: skip


def test_languages_and_skills_that_are_measured_are_strata_of_the_audit(mixture, kedge):
    assert {"language", "skill"}.isdisjoint(strata_of(kedge)), "nothing is measured for an audit"
    assert kedge("measure", "--only", "language")[0] == 0
    found = strata_of(kedge)
    assert set(found["language"]) == {"de", "en or other"} and "skill" not in found
    before, after = found["language"]["de"]
    assert 0.7 < before < 1 and after < before
    assert kedge("measure", "--only", "skills")[0] == 0
    assert set(strata_of(kedge)["skill"]) == {"creative_writing", "unknown"}


def test_what_meta_says_of_a_language_comes_before_what_was_measured(mixture):
    parts = build(mixture, "m").train
    for name in ("language", "skills"):
        ensure(mixture, named(name))
    measured = {item.kind: item for item in measured_labels(mixture, build(mixture, "m"))}
    assert set(measured) == {"language", "skill"} and told_labels(parts) == {}
    rows = pq.read_table(parts[0])
    meta = [json.dumps({"language": "Deutsch"}) if "Wo ist" in row[0]["content"] else None
            for row in rows["messages"].to_pylist()]  # fmt: skip
    path = mixture.project.root / "told.parquet"
    write_parquet(path, rows.set_column(rows.schema.get_field_index("meta"), "meta", pa.array(meta, pa.string())))
    found = labels_of(mixture, [path], (measured["language"],))["language"].to_pylist()
    asked = [row[0]["content"] for row in rows["messages"].to_pylist()]
    assert {(label, "Wo ist" in text) for label, text in zip(found, asked, strict=True)} == {
        ("Deutsch", True), ("en or other", False)}  # fmt: skip
    assert found.count("en or other") == 71


def test_a_source_that_is_not_measured_leaves_the_audit_as_it_was(mixture, kedge):
    ensure(mixture, named("language"))
    Path("more.jsonl").write_text("".join(conversation(f"more {n}?", "Yes.") for n in range(3)))
    assert kedge("add", "more.jsonl")[0] == kedge("mix", "build", "m")[0] == 0
    assert measured_labels(mixture, build(mixture, "m")) == () and "language" not in strata_of(kedge)
    assert kedge("measure", "--only", "language")[0] == 0
    assert [item.kind for item in measured_labels(mixture, build(mixture, "m"))] == ["language"]


@pytest.mark.parametrize(("counts", "expected"), [
    ({"en": 900, "de": 60, "fr": 3}, {"en or other": 903, "de": 60}),
    ({"en": 900, "de": 30, "fr": 30}, {"en": 900, "other": 60}),
    ({"en": 900, None: 90}, {"en": 900, "unknown": 90}),
    ({"en": 30, "de": 19}, {"other": 49}),
    ({"en": 9_000, "de": 80, "fr": 60}, {"en": 9_000, "other": 140}),
])  # fmt: skip
def test_labels_of_a_handful_of_rows_are_no_strata(counts, expected):
    values = pl.Series([label for label, count in counts.items() for _ in range(count)], dtype=pl.String)
    assert dict(pooled(values).value_counts().iter_rows()) == expected
