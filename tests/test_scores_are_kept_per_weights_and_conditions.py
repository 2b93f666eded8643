"""Scores in the lake, suites and benchmark files."""

from __future__ import annotations

import json
import shutil

import pyarrow as pa
import pytest

from curation import schema
from curation.checkpoints import Checkpoint
from curation.errors import InstrumentError, UserError
from evals.benchmarks import benchmark_fingerprint, load_task
from evals.scores import read_scores, scored_benchmarks, scored_conditions, write_scores
from evals.suites import load_suite, suite_name
from tests import REAL_DATA

CHECKPOINT = Checkpoint(run="r", step=1, path="x", weights="full", weights_hash="a" * 32)
CONDITIONS = {"benchmark_fingerprint": "b", "template": None, "sampling": {"temperature": 0.0}, "max_new_tokens": 8}


def rows(*ids: str, state: str = "right") -> pa.Table:
    empty = dict.fromkeys(schema.SCORES.names)
    values = [empty | {"benchmark": "t", "sample_id": i, "repeat": 0, "state": state, "score": 1.0} for i in ids]
    return pa.Table.from_pylist(values, schema=schema.SCORES)


def test_equal_scores_are_equal_bytes_whatever_their_order(catalog):
    first = write_scores(catalog, CHECKPOINT, "t", rows("b", "a"), CONDITIONS)
    second = write_scores(catalog, CHECKPOINT, "t", rows("a", "b"), CONDITIONS | {"max_new_tokens": 9})
    assert first != second
    assert (first / "part-scores.parquet").read_bytes() == (second / "part-scores.parquet").read_bytes()


def test_scores_belong_to_weights_and_not_to_a_name(catalog):
    write_scores(catalog, CHECKPOINT, "t", rows("a"), CONDITIONS)
    twin = CHECKPOINT.model_copy(update={"run": "other", "step": 9})
    changed = CHECKPOINT.model_copy(update={"weights_hash": "c" * 32})
    found = read_scores(catalog, twin, "t")
    assert found is not None and found[1] == CONDITIONS and found[0]["sample_id"].to_pylist() == ["a"]
    assert read_scores(catalog, changed, "t") is None
    assert scored_benchmarks(catalog, twin) == ["t"]
    assert scored_benchmarks(catalog, changed) == []


def test_scores_are_read_under_given_conditions_or_the_latest(catalog):
    other = CONDITIONS | {"template": "t2"}
    write_scores(catalog, CHECKPOINT, "t", rows("a"), CONDITIONS)
    write_scores(catalog, CHECKPOINT, "t", rows("a", "b"), other)
    assert scored_conditions(catalog, CHECKPOINT, "t") == [CONDITIONS, other]
    latest, exact = read_scores(catalog, CHECKPOINT, "t"), read_scores(catalog, CHECKPOINT, "t", CONDITIONS)
    assert latest is not None and latest[0].num_rows == 2
    assert exact is not None and exact[0].num_rows == 1
    assert read_scores(catalog, CHECKPOINT, "t", {"template": "never"}) is None


def test_a_sample_scored_twice_or_in_an_unknown_state_is_refused(catalog):
    with pytest.raises(InstrumentError, match="scored twice"):
        write_scores(catalog, CHECKPOINT, "t", rows("a", "a"), CONDITIONS)
    with pytest.raises(InstrumentError, match="states correct"):
        write_scores(catalog, CHECKPOINT, "t", rows("a", state="correct"), CONDITIONS)
    assert not catalog.manifests("scores")


def write_benchmark(catalog, text: str, items: list[dict], file: str = "items.jsonl") -> None:
    folder = catalog.project.catalogs / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "numbers.yaml").write_text(text)
    (catalog.project.root / file).write_text("".join(json.dumps(item) + "\n" for item in items))


GSM = """\
data: items.jsonl
question: "Q: {{ question }}"
answer: answer
answer_pattern: '####\\s*(.*)'
verifier: numeric
"""


def test_a_benchmark_file_becomes_items_with_gold_answers(catalog):
    write_benchmark(catalog, GSM, [{"question": "1+1", "answer": "it is\n#### 2"}])
    task = load_task(catalog, "numbers")
    assert [(item.question, item.gold) for item in task.items] == [("Q: 1+1", "2")]


def test_a_benchmark_is_its_settings_and_bytes_and_not_its_place(catalog):
    write_benchmark(catalog, GSM, [{"question": "1+1", "answer": "#### 2"}])
    before = benchmark_fingerprint(catalog, "numbers")
    write_benchmark(catalog, GSM.replace("items", "moved"), [{"question": "1+1", "answer": "#### 2"}], "moved.jsonl")
    assert benchmark_fingerprint(catalog, "numbers") == before
    write_benchmark(catalog, GSM + "max_new_tokens: 9\n", [{"question": "1+1", "answer": "#### 2"}])
    assert benchmark_fingerprint(catalog, "numbers") != before
    write_benchmark(catalog, GSM, [{"question": "1+1", "answer": "#### 3"}])
    assert benchmark_fingerprint(catalog, "numbers") != before


def test_every_item_without_a_question_or_gold_answer_is_named_at_once(catalog):
    good = {"question": "1+1", "answer": "#### 2"}
    write_benchmark(catalog, GSM, [{"question": "x", "answer": "no mark"}, {"answer": "#### 2"}, good, good])
    with pytest.raises(UserError) as caught:
        load_task(catalog, "numbers")
    text = str(caught.value)
    assert "items.jsonl:1" in text and "items.jsonl:2" in text and "ids stand twice" in text


def test_choices_take_an_index_a_letter_or_the_text_of_an_option(catalog):
    text = "data: items.jsonl\nquestion: '{{ q }}'\nkind: choice\nchoices: options\nanswer: gold\n"
    golds = [1, "b", "yes"]
    write_benchmark(catalog, text, [{"q": f"q{g}", "options": ["no", "yes"], "gold": g} for g in golds])
    assert [(item.gold, item.gold_index) for item in load_task(catalog, "numbers").items] == [("B", 1)] * 3


def test_settings_that_contradict_each_other_are_refused_with_their_file(catalog):
    write_benchmark(catalog, GSM + "repeats: 3\n", [])
    with pytest.raises(UserError, match="repeats need a temperature"):
        load_task(catalog, "numbers")
    write_benchmark(catalog, GSM + "pattern: '('\n", [])
    with pytest.raises(UserError, match=r"numbers\.yaml:6.*no regular expression"):
        load_task(catalog, "numbers")


def test_a_suite_is_taken_from_the_option_the_run_or_the_only_file(catalog):
    folder = catalog.project.catalogs / "suites"
    folder.mkdir()
    (folder / "skills.yaml").write_text("benchmarks:\n  - {name: numbers, margin: 0.1}\n")
    assert suite_name(catalog, "foreign", None) == "skills"
    assert suite_name(catalog, "foreign", "given") == "given"
    assert load_suite(catalog, "skills").benchmarks[0].margin == 0.1
    (folder / "other.yaml").write_text("benchmarks:\n  - {name: numbers, gates: true}\n")
    with pytest.raises(UserError, match="--suite"):
        suite_name(catalog, "foreign", None)
    with pytest.raises(UserError, match=r"other\.yaml:2.*gates: unknown key"):
        load_suite(catalog, "other")


def test_every_shipped_benchmark_suite_and_probe_file_loads(catalog):
    from evals.benchmarks import load_benchmark
    from evals.probing import load_probes

    for kind, load in (("benchmarks", load_benchmark), ("suites", load_suite), ("probes", load_probes)):
        shipped = catalog.project.paths(kind, ".yaml")
        assert shipped
        for name in shipped:
            assert load(catalog, name)
    with pytest.raises(UserError, match="there is no data at"):
        load_task(catalog, "gsm8k")


@pytest.mark.real_data
def test_the_real_gsm8k_test_split_loads_whole_through_the_shipped_file(catalog):
    folder = catalog.project.root / "data" / "gsm8k"
    folder.mkdir(parents=True)
    shutil.copy(REAL_DATA / "benchmarks" / "gsm8k_test.jsonl.gz", folder / "test.jsonl.gz")
    task = load_task(catalog, "gsm8k")
    assert len(task.items) == 1319
    assert task.items[0].gold == "18"
