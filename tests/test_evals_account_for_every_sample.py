"""Accounting: what a raw response becomes; every trap of reasoning text has a row here."""

from __future__ import annotations

import functools
import gzip
import json
from collections import Counter

import pytest

from curation.errors import InstrumentError, UserError
from curation.verifiers.pool import Workers
from evals import Request, Response
from evals.accounting import account, accuracy, after_thought, cut_at_stop, score_table
from evals.benchmarks import Benchmark, Item, Task, benchmark_fingerprint, load_task
from evals.scores import count_states
from tests import REAL_DATA

BENCHMARK = Benchmark(data="x", question="{{ q }}", verifier="numeric")
ITEM = Item("a", "q", "12", "a")
PROMPT = "<|im_start|>assistant\n"


def state(text: str, *, finished: bool = True, prompt: str = PROMPT, benchmark: Benchmark = BENCHMARK) -> str:
    return account(benchmark, ITEM, Response("a", 0, text, (1, 2), finished), prompt).state


@pytest.mark.parametrize(
    ("text", "finished", "expected"),
    [
        ("<think>1+1</think>12", True, "right"),
        ("<think>12</think>13", True, "wrong"),
        ("<think>so \\boxed{12}", False, "truncated"),  # never search an unclosed thought
        ("<think>so \\boxed{12}", True, "unparsed"),
        ("<think>x</think>the answer is 12", False, "truncated"),
        ("<think>x</think>", True, "unparsed"),
        ("<think>5</think>no number", True, "unparsed"),
        ("thought 5</think>12", True, "right"),  # the prompt opened the thought
        ("<think>5</think><think>6</think>12", True, "right"),  # two blocks
        ("<think></think>12", True, "right"),  # an empty block
        ("<think>5</think>wait <think>12", False, "truncated"),
        ("<think>5</think>12, without a <think> mark", True, "right"),  # a quoted mark
        ("12", True, "right"),
        ("", True, "unparsed"),
        ("", False, "truncated"),
    ],
)
def test_a_response_becomes_exactly_one_state(text: str, finished: bool, expected: str):
    assert state(text, finished=finished) == expected


def test_text_without_a_close_is_a_thought_where_the_prompt_opened_one():
    opened = PROMPT + "<think>\n"
    assert state("12", prompt=opened) == "unparsed"
    assert state("12", prompt=opened, finished=False) == "truncated"
    assert state("5</think>12", prompt=opened) == "right"


def test_stop_texts_end_an_answer_after_the_thought_only():
    stopping = Benchmark(data="x", question="q", verifier="numeric", stop=["\n\n"])
    assert state("<think>a\n\nb</think>12\n\nQ: 1+1 A: 2", benchmark=stopping, finished=False) == "right"
    assert state("<think>a\n\nb", benchmark=stopping, finished=False) == "truncated"
    assert cut_at_stop("\n\n12\n\n13", ["\n\n"]) == ("\n\n12", True)


def test_a_marker_of_another_model_family_is_honoured():
    family = Benchmark(data="x", question="q", verifier="numeric", think=("<|begin_of_thought|>", "<|end_of_thought|>"))
    assert state("<|begin_of_thought|>12", benchmark=family) == "unparsed"
    assert state("<|begin_of_thought|>1<|end_of_thought|>12", benchmark=family) == "right"
    assert after_thought("<think>x", None) == "<think>x"


def test_a_refusal_is_a_tag_and_not_a_state():
    result = account(BENCHMARK, ITEM, Response("a", 0, "I'm sorry, I can't help.", (1,), True), PROMPT)
    assert (result.state, result.refused) == ("unparsed", True)


def test_a_harness_problem_is_an_error_and_leaves_the_score():
    result = account(BENCHMARK, ITEM, Response("a", 0, problem="another prompt"), PROMPT)
    assert (result.state, result.finish_reason, result.detail) == ("error", "error", "another prompt")


def test_marks_that_are_single_tokens_are_told_from_quotations(tiny_model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    begin, end = tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    plain = tokenizer.encode("7 in ", add_special_tokens=False)
    quoted = [token for piece in ("<", "/", "th", "ink", ">") for token in tokenizer.encode(piece)]
    answer = tokenizer.encode(" 12", add_special_tokens=False)
    ids = (begin, *plain, *quoted, *answer)
    text = tokenizer.decode(ids)
    assert "</think>" in text
    response = Response("a", 0, text, ids, True)
    assert account(BENCHMARK, ITEM, response, PROMPT).state == "right"  # by text alone the quotation closes the thought
    assert account(BENCHMARK, ITEM, response, PROMPT, tokenizer).state == "unparsed"
    closed = Response("a", 0, "", (begin, *plain, end, *answer, *quoted), True)
    assert account(BENCHMARK, ITEM, closed, PROMPT, tokenizer).state == "right"


def make_task(count: int) -> tuple[Task, tuple[Request, ...]]:
    items = tuple(Item(f"s{index:03d}", "q", "12", f"s{index:03d}") for index in range(count))
    requests = tuple(Request(item.sample_id, 0, PROMPT, (1, 2, 3)) for item in items)
    return Task("numbers", BENCHMARK, items, "f"), requests


def test_a_lost_or_doubled_sample_is_an_instrument_failure():
    task, requests = make_task(3)
    answers = [Response(request.sample_id, 0, "12", (5,), True) for request in requests]
    assert score_table(task, requests, answers)["state"].to_pylist() == ["right"] * 3
    for wrong in (answers[:2], [*answers, answers[0]], [*answers[:2], Response("other", 0, "12", (5,), True)]):
        with pytest.raises(InstrumentError, match="numbers: "):
            score_table(task, requests, wrong)


def test_more_than_one_error_in_a_hundred_is_an_instrument_failure_and_one_is_counted():
    task, requests = make_task(100)
    answers = [Response(request.sample_id, 0, "12", (5,), True) for request in requests]
    one = [Response(answers[0].sample_id, 0, problem="lost"), *answers[1:]]
    table = score_table(task, requests, one)
    assert table["state"].to_pylist().count("error") == 1
    assert accuracy(table) == 1.0
    with pytest.raises(InstrumentError, match="2 of 100 samples are errors"):
        score_table(task, requests, [Response(answers[1].sample_id, 0, problem="lost"), one[0], *answers[2:]])


def test_a_choice_takes_the_likeliest_option_and_the_first_of_equals():
    benchmark = Benchmark(data="x", question="q", kind="choice", choices="options")
    item = Item("a", "q", "B", "a", ("no", "yes", "maybe"), 1)

    def answer(*values: float) -> tuple[str, str | None]:
        return account(benchmark, item, Response("a", 0, finished=True, logprobs=values), PROMPT)[0:3:2]

    assert answer(-3.0, -1.0, -2.0) == ("right", "B")
    assert answer(-1.0, -1.0, -2.0) == ("wrong", "A")
    assert answer(-1.0, float("nan"), -2.0)[0] == "error"


def test_mathematics_is_compared_and_an_endless_comparison_is_a_timeout_and_not_wrong(monkeypatch):
    monkeypatch.setattr("evals.accounting.Workers", functools.partial(Workers, cpu_seconds=1.0))
    benchmark = Benchmark(data="x", question="q", verifier="math")
    texts = {"\\boxed{\\frac{\\sqrt{4}}{4}}": "right", "\\boxed{0.4}": "wrong", "\\boxed{9^{9^{9^{9}}}}": "timeout",
             "no idea at all, I am lost": "unparsed", "<think>\\boxed{0.5}": "unparsed",
             "<think>x</think>\\boxed{0.5}": "right"}  # fmt: skip
    items = tuple(Item(f"s{n}", "q", "\\frac{1}{2}", f"s{n}") for n in range(len(texts)))
    requests = tuple(Request(item.sample_id, 0, PROMPT, (1,)) for item in items)
    answers = [Response(item.sample_id, 0, text, (5,), True) for item, text in zip(items, texts, strict=True)]
    table = score_table(Task("maths", benchmark, items, "f"), requests, answers)
    assert dict(zip(texts, table["state"].to_pylist(), strict=True)) == texts
    rows = {row["state"]: row for row in table.to_pylist()}
    assert (rows["timeout"]["score"], rows["timeout"]["answer"]) == (0.0, "9^{9^{9^{9}}}")
    assert rows["timeout"]["finish_reason"] == "stop" and "limit of time" in rows["timeout"]["detail"]
    assert accuracy(table) == 2 / 6, "a timeout is no reward, and no error that leaves the score"
    assert count_states(table) == {"right": 2, "wrong": 1, "truncated": 0, "unparsed": 2, "timeout": 1, "error": 0}


def test_a_gold_answer_that_math_verify_cannot_read_is_an_error_of_the_instrument():
    benchmark = Benchmark(data="x", question="q", verifier="math")
    item = Item("a", "q", "\\frac{", "a")
    result = account(benchmark, item, Response("a", 0, "\\boxed{x + 1}", (1,), True), PROMPT)
    assert (result.state, result.score, result.finish_reason) == ("error", 0.0, "error")
    assert "gold answer does not parse" in str(result.detail)


def test_knights_and_knaves_are_judged_person_by_person():
    benchmark = Benchmark(data="x", question="q", verifier="logic", after="So:")
    item = Item("a", "q", "(1) Ann is a knight\n(2) Bob is a knave", "a")
    answers = {"So: Ann is a knight and Bob is a knave.": "right", "So: Ann and Bob are knights.": "wrong",
               "So: who knows?": "unparsed", "Ann is a knight and Bob is a knave.": "unparsed"}  # fmt: skip
    found = [account(benchmark, item, Response("a", 0, text, (1,), True), PROMPT).state for text in answers]
    assert found == list(answers.values())


@pytest.mark.parametrize(
    ("verifier", "gold", "problem"), [("math", " ", "holds no expression"), ("logic", "both lie", "assigns no roles")]
)
def test_an_item_whose_gold_answer_its_verifier_cannot_take_is_named(catalog, verifier: str, gold: str, problem: str):
    write_benchmark(catalog, verifier, {"q": "?", "answer": f"#{gold}"})
    with pytest.raises(UserError, match=problem):
        load_task(catalog, "own")


def test_a_benchmark_of_mathematics_is_another_one_under_another_release_of_its_parser(catalog, monkeypatch):
    write_benchmark(catalog, "math", {"q": "?", "answer": "#1"})
    before = benchmark_fingerprint(catalog, "own")
    assert load_task(catalog, "own").fingerprint == before
    monkeypatch.setattr("evals.benchmarks.version", lambda name: "9.9")
    assert benchmark_fingerprint(catalog, "own") != before
    write_benchmark(catalog, "numeric", {"q": "?", "answer": "#1"})
    numeric = benchmark_fingerprint(catalog, "own")
    monkeypatch.undo()
    assert benchmark_fingerprint(catalog, "own") == numeric


def write_benchmark(catalog, verifier: str, item: dict[str, str]) -> None:
    """A benchmark `own` of one item, whose gold answer follows a #."""
    folder = catalog.project.catalogs / "benchmarks"
    folder.mkdir(exist_ok=True)
    path = catalog.project.root / "test.jsonl"
    path.write_text(json.dumps(item) + "\n")
    (folder / "own.yaml").write_text(f"data: {path}\nquestion: '{{{{ q }}}}'\nanswer_pattern: '#(.*)'\n"
                                     f"verifier: {verifier}\n")  # fmt: skip


@pytest.mark.real_data
def test_every_reference_solution_of_math500_is_right_but_few_and_none_is_wrong(catalog):
    """A reference solution ends in the boxed answer itself, in another spelling here and there."""
    folder = catalog.project.root / "data" / "math500"
    folder.mkdir(parents=True)
    lines = gzip.decompress((REAL_DATA / "benchmarks" / "math500.jsonl.gz").read_bytes())
    (folder / "test.jsonl").write_bytes(lines)
    task = load_task(catalog, "math500")
    solutions = {record["unique_id"]: record["solution"] for record in map(json.loads, lines.splitlines())}
    requests = tuple(Request(item.sample_id, 0, PROMPT, (1,)) for item in task.items)
    answers = [Response(item.sample_id, 0, solutions[item.sample_id], (5,), True) for item in task.items]
    table = score_table(task, requests, answers, workers=2)
    assert table.num_rows == 500 and accuracy(table) > 0.98, count_states(table)


@pytest.mark.real_data
def test_real_traces_agree_with_their_published_scores_except_where_a_cut_thought_was_scored():
    benchmark = Benchmark(data="x", question="q", verifier="numeric", pattern=r"\\boxed\{([^{}]*)\}",
                          think=("<|begin_of_thought|>", "<|end_of_thought|>"))  # fmt: skip
    found: Counter[tuple[str, bool]] = Counter()
    for name in ("sky_t1_5k_14b_aime24", "sky_t1_5k_14b_amc23"):
        with gzip.open(REAL_DATA / "reasoning" / f"{name}.jsonl.gz", "rt") as stream:
            for line in stream:
                record = json.loads(line)
                text = record["code"][0]
                finished = text.rstrip().endswith("<|end_of_solution|>")
                item = Item("a", "q", str(record["gt"]), "a")
                result = account(benchmark, item, Response("a", 0, text, (1,), finished), PROMPT)
                found[result.state, record["score"][0]] += 1
    assert found == {("right", True): 27, ("wrong", False): 5, ("truncated", False): 37, ("truncated", True): 1}
