"""Drift on stored scores: verdicts, what may be compared, instrument failures, context, reports."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from curation import checkpoints, schema
from curation.catalog import Catalog
from curation.checkpoints import Checkpoint
from curation.errors import UserError
from evals.drift import DriftReport, drift
from evals.drift_report import as_json, markdown, page
from evals.scores import write_scores

CONDITIONS = {"benchmark_fingerprint": "b", "template": "t", "tokenizer": "k", "sampling": {"temperature": 0.0},
              "max_new_tokens": 8, "repeats": 1, "harness": "x", "harness_version": "1",
              "template_kwargs": {}}  # fmt: skip
LETTER = {"r": "right", "w": "wrong", "t": "truncated", "u": "unparsed", "o": "timeout", "e": "error"}


@pytest.fixture
def chained(catalog: Catalog) -> Catalog:
    """base-m@0 -> mid@10 -> sft@5, sft@9, and a suite `one` with the benchmark `qa` (margin 5 points)."""
    enter(catalog, "base-m", 0, None)
    enter(catalog, "mid", 10, "base-m@0")
    enter(catalog, "sft", 5, "mid@10")
    enter(catalog, "sft", 9, "mid@10")
    suite(catalog, "  - {name: qa, margin: 0.05}\n")
    return catalog


def enter(catalog: Catalog, run: str, step: int, parent: str | None, **more) -> Checkpoint:
    record = Checkpoint(run=run, step=step, path=f"w/{run}-{step}", weights="full", weights_hash=f"{run}{step}",
                        parent=parent, **more)  # fmt: skip
    return checkpoints.register(catalog, record)


def suite(catalog: Catalog, benchmarks: str) -> None:
    folder = catalog.project.catalogs / "suites"
    folder.mkdir(exist_ok=True)
    (folder / "one.yaml").write_text(f"benchmarks:\n{benchmarks}")


def score(catalog: Catalog, reference: str, states: str, benchmark: str = "qa", *, prompt: str = "p",
          clusters: Sequence[str] | None = None, repeats: int = 1, refused: Sequence[int] = (), first: int = 0,
          **conditions) -> None:  # fmt: skip
    """One sample per letter of `states` (r w t u o e), `repeats` of them per item."""
    rows = []
    for index, letter in enumerate(states):
        item = index // repeats + first
        rows.append(dict.fromkeys(schema.SCORES.names) | {
            "benchmark": benchmark, "sample_id": f"i{item:04d}", "repeat": index % repeats, "state": LETTER[letter],
            "score": float(letter == "r"), "cluster": clusters[index] if clusters else f"i{item:04d}",
            "gold": "4", "response": f"answer {letter}", "output_tokens": 5, "refused": index in refused,
            "prompt": prompt, "prompt_hash": prompt,
        })  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=schema.SCORES)
    write_scores(catalog, checkpoints.find(catalog, reference), benchmark, table, CONDITIONS | conditions)


def chain_scores(catalog: Catalog, **states: str) -> DriftReport:
    for name, letters in states.items():
        run, _, step = name.rpartition("_")
        score(catalog, f"{run.replace('_', '-')}@{step}", letters)
    return drift(catalog, "sft")


def only(report: DriftReport, against: str = "start"):
    found = [item for item in report.of(report.last) if item.against == against]
    assert len(found) == 1
    return found[0]


def test_a_drop_beyond_the_margin_fails_and_names_what_was_lost(chained):
    report = chain_scores(chained, mid_10="r" * 100, sft_9="r" * 60 + "t" * 10 + "u" * 10 + "w" * 20)
    made = only(report)
    assert (made.verdict, made.direction, report.exit_code) == ("FAIL", "regressed", 1)
    assert made.difference == pytest.approx(-0.4)
    assert {name: count for name, count in made.lost.items() if count} == {
        "truncated": 10, "unparsed": 10, "changed answer": 20}  # fmt: skip
    assert made.p == pytest.approx(2 * 0.5**40)
    assert report.verdict.startswith("sft@9 vs mid@10: FAIL: 1 regressed")


def test_an_answer_that_timed_out_is_lost_as_such_and_open_in_the_bounds(chained):
    report = chain_scores(chained, mid_10="r" * 100, sft_9="r" * 80 + "o" * 15 + "w" * 5)
    made = only(report)
    assert {name: count for name, count in made.lost.items() if count} == {"timeout": 15, "changed answer": 5}
    (last,) = [item for item in report.standings if item.checkpoint == "sft@9"]
    assert (last.counts["timeout"], last.score, last.lower, last.upper) == (15, 0.8, 0.8, 0.95)
    assert "15 timeout" in markdown(report) and "timeout" in page(report)
    assert "timeout 15.0 %" in page(report)


def test_a_real_drop_inside_the_margin_passes_and_is_still_called_regressed(chained):
    report = chain_scores(chained, mid_10="r" * 2_000, sft_9="w" * 40 + "r" * 1_960)
    made = only(report)
    assert (made.verdict, made.direction, report.exit_code) == ("PASS", "regressed", 0)


def test_five_points_on_a_small_benchmark_are_undecided_and_say_what_would_decide(chained):
    report = chain_scores(chained, mid_10="r" * 100 + "w" * 98, sft_9="w" * 30 + "r" * 70 + "r" * 20 + "w" * 78)
    made = only(report)
    assert (made.verdict, made.direction, report.exit_code) == ("UNDECIDED", "no detected change", 3)
    assert "n = " in made.message and "a loss of 5 points" in made.message
    assert made.smallest_detectable == pytest.approx(2.8 * (50 / 198) ** 0.5 / 198**0.5, rel=0.02)


def test_equal_answers_pass_only_where_there_are_enough_of_them(chained):
    assert only(chain_scores(chained, mid_10="r" * 200, sft_9="r" * 200)).verdict == "PASS"
    suite(chained, "  - {name: few, margin: 0.05}\n")
    for reference in ("mid@10", "sft@9"):
        score(chained, reference, "r" * 20, "few")
    assert only(drift(chained, "sft")).verdict == "UNDECIDED"


def test_a_loss_against_the_best_earlier_checkpoint_is_not_hidden_by_the_start(chained):
    report = chain_scores(chained, mid_10="r" * 50 + "w" * 150, sft_5="r" * 180 + "w" * 20, sft_9="r" * 60 + "w" * 140)
    assert only(report, "start").verdict == "PASS"
    best = only(report, "best")
    assert (best.a, best.verdict, best.num_candidates, report.exit_code) == ("sft@5", "FAIL", 2, 1)
    assert report.verdict.endswith("without a detected change; FAIL beside sft@5: qa")


def test_the_first_base_is_reported_and_gates_only_where_it_is_the_best(chained):
    report = chain_scores(chained, base_m_0="r" * 40 + "w" * 160, mid_10="r" * 200, sft_9="r" * 200)
    base = only(report, "base")
    assert (base.gate, base.verdict, base.direction, report.exit_code) == (False, "not gated", "improved", 0)


def test_a_base_that_was_better_than_all_since_gates_as_the_best(chained):
    report = chain_scores(chained, base_m_0="r" * 100, mid_10="w" * 100, sft_9="w" * 100)
    base = [item for item in report.of("sft@9") if item.a == "base-m@0"]
    assert [item.against for item in base] == ["best"]
    report = drift(chained, "mid")
    assert only(report).a == "base-m@0" and report.exit_code == 1


def test_every_checkpoint_of_the_run_has_its_own_verdict(chained):
    report = chain_scores(chained, mid_10="r" * 200, sft_5="w" * 200, sft_9="r" * 200)
    assert report.judgement("sft@5") == "FAIL"
    assert report.judgement("sft@9") == "PASS"
    assert report.exit_code == 0
    assert drift(chained, "sft@5").exit_code == 1


def test_another_checkpoint_can_be_named_to_compare_with(chained):
    report = chain_scores(chained, base_m_0="w" * 200, mid_10="r" * 200, sft_5="r" * 200, sft_9="r" * 200)
    assert report.start == "mid@10"
    report = drift(chained, "sft", "sft@5")
    assert report.start == "sft@5" and only(report, "given").verdict == "PASS"
    with pytest.raises(UserError, match="is the checkpoint itself"):
        drift(chained, "sft", "sft@9")


def test_more_gates_make_every_interval_wider(chained):
    chain_scores(chained, mid_10="r" * 100 + "w" * 98, sft_9="w" * 10 + "r" * 188)
    alone = only(drift(chained, "sft"))
    suite(chained, "  - {name: qa, margin: 0.05}\n" + "".join(f"  - {{name: b{i}}}\n" for i in range(4)))
    for index in range(4):
        for reference in ("mid@10", "sft@9"):
            score(chained, reference, "rw" * 50, f"b{index}")
    among = next(item for item in drift(chained, "sft").of("sft@9") if item.benchmark == "qa")
    assert among.interval == alone.interval
    assert among.adjusted is not None and alone.adjusted is not None
    assert among.adjusted.low < alone.adjusted.low and among.p_adjusted > alone.p_adjusted
    assert among.level == pytest.approx(0.01)


def test_a_benchmark_that_does_not_gate_is_shown_and_fails_nothing(chained):
    suite(chained, "  - {name: qa, gate: false}\n")
    report = chain_scores(chained, mid_10="r" * 100, sft_9="w" * 100)
    assert (only(report).verdict, only(report).direction, report.exit_code) == ("not gated", "regressed", 0)
    assert "not gated: 1 regressed" in report.verdict  # nothing passed that nothing gates


def test_clustered_items_are_judged_by_cluster(chained):
    names = [f"c{index // 50}" for index in range(200)]
    score(chained, "mid@10", "r" * 200, clusters=names)
    score(chained, "sft@9", "w" * 50 + "r" * 150, clusters=names)
    made = only(drift(chained, "sft"))
    assert (made.num_clusters, made.test, made.verdict) == (4, "sign flip", "UNDECIDED")


def test_repeated_samples_count_as_one_item(chained):
    score(chained, "mid@10", "rrrw" * 50, repeats=4)
    score(chained, "sft@9", "rrww" * 50, repeats=4)
    made = only(drift(chained, "sft"))
    assert (made.n, made.test, made.losses) == (50, "sign flip", 50)
    assert made.difference == pytest.approx(-0.25)
    assert made.verdict == "FAIL"


def test_errors_of_the_instrument_leave_the_comparison_and_are_counted(chained):
    report = chain_scores(chained, mid_10="r" * 200, sft_9="e" + "r" * 199)
    made = only(report)
    assert (made.n, made.num_errors, made.difference) == (199, 1, 0.0)
    standing = next(item for item in report.standings if item.checkpoint == "sft@9")
    assert standing.score == 1.0 and standing.lower == pytest.approx(199 / 200)


def test_a_refusal_is_told_from_a_changed_answer(chained):
    score(chained, "mid@10", "r" * 100)
    score(chained, "sft@9", "w" * 30 + "r" * 70, refused=range(10))
    assert {name: count for name, count in only(drift(chained, "sft")).lost.items() if count} == {
        "refused": 10, "changed answer": 20}  # fmt: skip


def test_scores_under_another_budget_or_template_are_refused_as_an_instrument_failure(chained):
    score(chained, "mid@10", "r" * 100, max_new_tokens=4, template="other")
    score(chained, "sft@9", "r" * 100)
    report = drift(chained, "sft")
    assert report.exit_code == 4
    assert "mid@10 was scored under another template, max_new_tokens" in str(report.instrument[0])
    assert "INSTRUMENT FAILURE" in report.verdict


def test_a_checkpoint_scored_under_two_templates_is_compared_under_the_common_one(chained):
    score(chained, "mid@10", "r" * 100)
    score(chained, "sft@9", "r" * 100)
    score(chained, "sft@9", "w" * 100, template="of the next stage")
    report = drift(chained, "sft")
    assert only(report).difference == 0.0 and not report.instrument


def test_other_prompts_for_the_same_items_are_refused(chained):
    score(chained, "mid@10", "r" * 100)
    score(chained, "sft@9", "r" * 100, prompt="another")
    report = drift(chained, "sft")
    assert report.exit_code == 4
    assert "100 of 100 prompts differ" in str(report.instrument[0])
    assert only(report).verdict == "NOT COMPARABLE"


def test_only_shared_items_are_compared(chained):
    score(chained, "mid@10", "r" * 100 + "w" * 40)
    score(chained, "sft@9", "r" * 60 + "w" * 40, first=40)
    made = only(drift(chained, "sft"))
    assert (made.n, made.num_unshared, made.difference) == (100, 40, 0.0)


def test_a_verdict_that_hangs_on_truncation_is_an_instrument_failure(chained):
    report = chain_scores(chained, mid_10="r" * 200, sft_9="t" * 40 + "r" * 160)
    assert report.exit_code == 4
    assert "40 of 200 answers of sft@9 were cut by the budget" in str(report.instrument[0])


def test_a_verdict_that_stands_whatever_was_truncated_is_read(chained):
    report = chain_scores(chained, mid_10="r" * 200, sft_9="t" * 10 + "w" * 150 + "r" * 40)
    assert (report.exit_code, only(report).verdict) == (1, "FAIL")


def test_missing_scores_are_all_named_with_the_command_to_type(chained):
    with pytest.raises(UserError) as raised:
        drift(chained, "sft")
    text = str(raised.value)
    assert "mid@10 is not scored on 'qa'" in text and "sft@9 is not scored on 'qa'" in text
    assert "run: kedge eval sft" in text


def test_a_misspelt_run_is_met_with_a_proposal(chained, kedge):
    code, _, err = kedge("drift", "sfd")
    assert code == 2 and "did you mean 'sft'" in err and "Traceback" not in err


def test_a_foreign_run_without_parent_is_compared_with_its_first_checkpoint(chained):
    enter(chained, "foreign", 100, None)
    enter(chained, "foreign", 200, None)
    score(chained, "foreign@100", "r" * 200)
    score(chained, "foreign@200", "w" * 200)
    report = drift(chained, "foreign")
    assert (report.start, report.last, report.exit_code) == ("foreign@100", "foreign@200", 1)
    assert "data unknown" in markdown(report)


def test_the_context_names_template_change_waivers_and_mixture_shift(catalog: Catalog):
    folder = catalog.folder("mixtures")
    for name, counts in (("a", {"x": 30, "y": 70}), ("b", {"x": 50, "y": 50})):
        target = folder / name / (name * 16)
        target.mkdir(parents=True)
        sources = {source: {"rows": 1, "trained_tokens": count} for source, count in counts.items()}
        record = {"kind": "mixtures", "name": name, "fingerprint": name * 32, "counts": {"sources": sources}}
        (target / "manifest.json").write_text(json.dumps(record))
    audit = catalog.folder("audits", "two", "0" * 16)
    audit.mkdir(parents=True)
    (audit / "manifest.json").write_text(json.dumps({"kind": "audits", "name": "two", "fingerprint": "key"}))
    (audit / "audit.json").write_text(json.dumps({
        "checks": [{"id": "A1", "value": 0.5, "waived": "short on purpose"}, {"id": "A2", "value": 0.0, "waived": ""}],
        "sources": [{"source": "x", "kept_trained_tokens": 50}, {"source": "y", "kept_trained_tokens": 10},
                    {"source": "all", "kept_trained_tokens": 60}]}))  # fmt: skip
    enter(catalog, "one", 1, None, mixture=f"a@{'a' * 32}", template="t1")
    enter(catalog, "two", 1, "one@1", mixture=f"b@{'b' * 32}", template="t2", audit="key")
    suite(catalog, "  - {name: qa}\n")
    for reference in ("one@1", "two@1"):
        score(catalog, reference, "r" * 200)
    text = markdown(drift(catalog, "two"))
    assert "TEMPLATE CHANGED" in text
    assert "waived A1 at 0.5: short on purpose" in text
    assert "x 30.0 % → 50.0 % → 83.3 %" in text


def test_all_outputs_come_from_the_same_numbers_and_escape_what_a_model_wrote(chained, tmp_path: Path, kedge):
    score(chained, "mid@10", "r" * 100)
    score(chained, "sft@9", "r" * 50 + "w" * 50, prompt="p")
    report = drift(chained, "sft")
    report.flips[0]["response_after"] = "<script>alert(1)</script>"
    html = page(report)
    assert "<script>" not in html and "&lt;script" in html.replace('</span><span class="changed">', "")
    value = as_json(report)
    assert json.dumps(value, allow_nan=False)
    assert value["verdict"] in html and value["verdict"] in markdown(report)
    assert len(report.flips) == 20
    code, out, _ = kedge("drift", "sft", "--json", "--to", tmp_path / "out")
    assert code == 1
    assert json.loads(out)["verdict"] == value["verdict"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.html", "report.md", "drift.json"}
