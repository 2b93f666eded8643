"""`kedge rules`: rows caught with their evidence, thresholds moved, and the funnel from ingested to kept rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curation.caught import samples
from curation.funnel import funnel
from curation.rule_effects import effects, judge_all, moved
from tests.benchmarks.near_duplicate_rows import Writer
from tests.duplicated import add, edited, page, texts
from tests.lakes import conversation

LONG = """\
/* ---
stage: sft
needs: [text_statistics]
thresholds: {max_chars: 40}
adopted: false
description: Answers that are too long.
--- */
SELECT row_id, 'the answer has ' || answer_chars || ' characters' AS reason
FROM signals
WHERE answer_chars > getvariable('max_chars')
"""


@pytest.fixture
def judged(catalog, kedge):
    """Two sources; a rule that is not adopted catches 3 of 6 rows, one row stands in both sources, one is empty."""
    folder = catalog.project.catalogs / "rules"
    folder.mkdir()
    (folder / "long.sql").write_text(LONG)
    Path("a.jsonl").write_text(conversation("q1", "x" * 30) + conversation("q2", "x" * 50) + conversation("same", "ok"))
    Path("b.jsonl").write_text(conversation("q3", "<b>" + "x" * 90) + conversation("same", "ok")
                               + conversation("q4", "") + conversation("q5", "y" * 60))  # fmt: skip
    for name in ("a", "b"):
        assert kedge("add", f"{name}.jsonl")[0] == 0
    return catalog


def test_moving_a_threshold_says_how_many_rows_it_would_catch(judged):
    rule = judge_all(judged).rules["long"]
    shifts = {item["value"]: (item["caught"], item["present"]) for item in moved(judged, rule)}
    assert shifts == {20: (4, False), 32: (3, False), 40: (3, True), 50: (2, False), 80: (1, False)}


def test_a_rule_is_shown_with_its_rows_values_and_moved_thresholds(judged, kedge):
    code, out, _ = kedge("rules", "long")
    assert code == 0
    assert "Answers that are too long." in out and "the answer has 93 characters" in out
    assert "answer_chars 93" in out and "what moving a threshold would do" in out
    code, out, _ = kedge("rules", "long", "--json")
    told = json.loads(out)
    assert {item["source"]: item["caught"] for item in told["effects"]} == {"a": 1, "b": 2}
    assert {row["source"] for row in told["samples"]} == {"a", "b"} and len(told["samples"]) == 3


def test_sampled_rows_carry_the_evidence_of_join_measures_and_the_other_row(judged):
    (row,) = samples(judged, judge_all(judged), ["exact_duplicate"])["exact_duplicate"]
    assert row["source"] == "b" and row["values"] == {"duplicate_rank": 1, "duplicate_count": 2}
    (evidence,) = row["evidence"]
    assert evidence["representative_source"] == "a" and evidence["representative text"] == "same · ok"


def test_at_most_twenty_rows_of_a_rule_are_sampled_and_always_the_same(catalog, kedge):
    Path("many.jsonl").write_text("".join(conversation(f"q{number}", "") for number in range(50)))
    assert kedge("add", "many.jsonl")[0] == 0
    first, again = (samples(catalog, judge_all(catalog), ["empty_answer"])["empty_answer"] for _ in range(2))
    assert len(first) == 20 and first == again
    assert [row["row_id"] for row in first] != sorted(row["row_id"] for row in first), "not the first by id"


def test_alone_counts_rows_that_no_other_adopted_rule_leaves_out(judged):
    found = {(item["rule"], item["source"]): item for item in effects(judged)}
    assert found["empty_answer", "b"] | {"example": ""} == {"rule": "empty_answer", "source": "b", "adopted": True,
                                                             "caught": 1, "alone": 1, "example": ""}  # fmt: skip
    assert found["long", "a"]["alone"] == 1, "of a rule that is not adopted: rows that no adopted rule leaves out"


def test_the_funnel_adds_up_from_records_to_kept_rows(judged, kedge):
    made = funnel(judged)
    sources = {item["source"]: item for item in made.sources}
    assert (sources["a"]["rows"], sources["a"]["kept"]) == (3, 3)
    assert (sources["b"]["records"], sources["b"]["rows"], sources["b"]["kept"]) == (4, 4, 2)
    assert sum(step["removed"] for step in made.steps) == 2 and made.steps[-1]["left"] == 5
    assert "long" not in {step["rule"] for step in made.steps}, "a rule that is not adopted removes nothing"
    code, out, _ = kedge("sql", "SELECT count(*) AS n FROM rows WHERE row_id NOT IN (SELECT row_id FROM verdicts)",
                         "--json")  # fmt: skip
    assert code == 0 and json.loads(out) == [{"n": 5}]


def test_the_funnel_is_written_as_a_page_that_escapes_every_text(judged, kedge, tmp_path):
    code, out, _ = kedge("rules", "--to", tmp_path / "report")
    assert code == 0 and "5 of 7 rows are kept" in out
    page = (tmp_path / "report" / "report.html").read_text()
    assert "&lt;b&gt;xxx" in page and "<b>xxx" not in page
    assert "empty_answer" in page and "(not adopted)" in page and "<svg" in page
    assert json.loads((tmp_path / "report" / "funnel.json").read_text())["steps"][-1]["left"] == 5
    code, _, err = kedge("rules", "long", "--to", tmp_path / "report")
    assert code == 2 and "a report holds all rules" in err


@pytest.mark.parametrize(("wrong", "said"), [
    (LONG.replace("getvariable('max_chars')", "40"), "the query does not read the threshold 'max_chars'"),
    (LONG.replace("getvariable('max_chars')", "getvariable('max_char')").replace("thresholds: {max_chars: 40}\n", ""),
     "there is no threshold 'max_char'"),
    (LONG.replace("getvariable('max_chars')", "getvariable(source)").replace("thresholds: {max_chars: 40}\n", ""),
     "getvariable() needs a name in quotes"),
    (LONG.replace("stage: sft", "stage: rlvr").replace("text_statistics", "anatomy"), "the measure 'anatomy'"),
    (LONG.replace("max_chars: 40", "max_chars: many"), "thresholds.max_chars"),
])  # fmt: skip
def test_a_wrong_threshold_is_one_clear_error(judged, kedge, wrong, said):
    (judged.project.catalogs / "rules" / "long.sql").write_text(wrong)
    code, _, err = kedge("rules")
    assert code == 2 and said in err.replace("\n", " ") and "Traceback" not in err


def test_a_changed_threshold_changes_the_verdicts_and_measures_nothing_again(judged, kedge):
    judge_all(judged)
    before = {path: path.stat().st_mtime_ns for path in (judged.lake / "signals").rglob("*.parquet")}
    path = judged.project.catalogs / "rules" / "long.sql"
    path.write_text(LONG.replace("max_chars: 40", "max_chars: 70"))
    assert {item["source"]: item["caught"] for item in effects(judged) if item["rule"] == "long"} == {"b": 1}
    assert {path: path.stat().st_mtime_ns for path in (judged.lake / "signals").rglob("*.parquet")} == before


def test_nobody_pays_for_what_a_rule_that_is_not_adopted_reads_unasked(judged, kedge):
    rule = judged.project.catalogs / "rules" / "long.sql"
    rule.write_text(LONG.replace("[text_statistics]", "[text_statistics, task_verbs]"))
    (item,) = [item for item in effects(judged) if item["rule"] == "long"]
    assert item["caught"] is None and item["example"] == "not measured; run: kedge rules long"
    assert not (judged.lake / "signals" / "task_verbs").exists()
    page = funnel(judged)
    assert "long" not in page.samples and "long" not in page.moved
    assert kedge("rules", "long")[0] == 0
    assert sum(item["caught"] for item in effects(judged) if item["rule"] == "long") == 3


NEAR = """\
/* ---
stage: midtrain
needs: [{near_duplicates: {threshold: 0.5}}]
thresholds: {min_similarity: 0.8, min_chars: 10}
adopted: false
description: Alike.
--- */
SELECT row_id, 'alike' AS reason FROM signals
WHERE near_duplicate_link >= getvariable('min_similarity') AND length("text") > getvariable('min_chars')
"""


def test_thresholds_below_what_the_measure_looks_for_are_left_out_and_told(catalog, kedge):
    words = Writer(3)
    pages = [page(words) for _ in range(3)]
    add("docs", texts(*pages, edited(pages[0], 40), edited(pages[1], 18)))
    (catalog.project.catalogs / "rules").mkdir()
    (catalog.project.catalogs / "rules" / "alike.sql").write_text(NEAR)
    code, out, _ = kedge("rules", "near_duplicate", "--json")
    told = json.loads(out)
    assert code == 0 and told["least"] == {"min_similarity": 0.7}
    assert [(item["value"], item["caught"]) for item in told["moved"]] == [(0.7, 1), (0.875, 0), (1.0, 0)]
    code, out, _ = kedge("rules", "near_duplicate")
    assert code == 0 and "min_similarity below 0.7 is left out: near_duplicates looks for nothing less alike" in out
    assert kedge("rules", "--to", "report")[0] == 0
    assert "min_similarity below 0.7 is left out" in Path("report/report.html").read_text()
    code, out, _ = kedge("rules", "alike", "--json")
    told = json.loads(out)
    shifts = [(item["threshold"], item["value"], item["caught"]) for item in told["moved"]]
    assert told["least"] == {"min_similarity": 0.5} and ("min_similarity", 0.64, 1) in shifts
    assert [value for name, value, _ in shifts if name == "min_chars"] == [5, 8, 10, 12, 20], "others are moved as ever"
    assert 0.4 not in [value for name, value, _ in shifts if name == "min_similarity"]
    assert json.loads(kedge("rules", "exact_duplicate", "--json")[1])["least"] == {}
