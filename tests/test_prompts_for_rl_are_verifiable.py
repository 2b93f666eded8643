"""Measures `verifiable` and `answer_correctness` and the rules on them: what can be rewarded, and what was right."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from curation import schema
from curation.measures.answer_correctness import AnswerCorrectness
from curation.measures.verifiable import Verifiable
from curation.verifiers import kinds
from tests import REAL_DATA

PUZZLE = json.dumps({"solution_text_format": "(1) Ann is a knight\n(2) Bob is a knave"})
NAMES = ("prompt", "ground_truth", "verifier", "pass_rates")
PROMPTS = pa.schema(
    [(name, type_) for name, type_ in schema.PAYLOAD["rlvr"] + schema.ANNOTATIONS["rlvr"] if name in NAMES]
)


def prompts(*rows: tuple[str, str | None, str | None, list[float] | None]) -> pa.Table:
    records = [{"prompt": [{"role": "user", "content": text}], "ground_truth": truth, "verifier": name,
                "pass_rates": rates} for text, truth, name, rates in rows]  # fmt: skip
    return pa.Table.from_pylist(records, schema=PROMPTS)


def measured(text: str, truth: str | None, verifier: str | None, rates: list[float] | None = None) -> dict[str, Any]:
    return Verifiable().measure(prompts((text, truth, verifier, rates)), "rlvr").to_pylist()[0]


GOOD = [
    ("math_dapo", "\\frac{3}{7}", "math"), ("deepscaler", "0.25", "math"), ("aime24", "33", "math"),
    ("openai/gsm8k", "1,000", "numeric"), ("kk_logic", PUZZLE, "logic"), ("choice", "B", "choice"),
    ("exact", "Paris", "exact"), ("math", "\\text{east}", "math"),
]  # fmt: skip
UNREADABLE = [
    ("numeric", "many"), ("choice", "A, B"), ("kk_logic", "nobody"), ("math", "\\frac{1}{"), ("math", "4:40 a.m."),
]  # fmt: skip
KINDS = [
    ("math", "-3.5", "number", None), ("math", "\\frac{1}{2}", "number", None), ("math", "2x+1", "expression", None),
    ("math", "\\text{(C)}", "choice", 0.25), ("math", "x", "expression", None), ("math", "\\text{odd}", "text", 0.5),
    ("math", "Yes", "boolean", 0.5), ("numeric", "#### 12", "number", None), ("choice", "B", "choice", 0.25),
    ("exact", "Rome", "text", None), ("exact", "true", "boolean", 0.5), ("exact", '{"a": 1}', "structure", None),
    ("kk_logic", PUZZLE, "structure", 0.25), (None, "42", "number", None), ("math", "25^\\circ", "number", None),
]  # fmt: skip


@pytest.fixture(scope="module")
def asked() -> dict[tuple[str | None, str], dict[str, Any]]:
    """The three lists above measured as one part, by verifier and ground truth: the verifier's process starts once."""
    pairs = list(dict.fromkeys((verifier, truth) for verifier, truth, *_ in [*GOOD, *UNREADABLE, *KINDS]))
    table = Verifiable().measure(prompts(*[("What is it?", truth, name, None) for name, truth in pairs]), "rlvr")
    return dict(zip(pairs, table.to_pylist(), strict=True))


@pytest.mark.parametrize(("verifier", "truth", "canonical"), GOOD)
def test_a_good_ground_truth_is_read_accepted_and_told_from_another(asked, verifier: str, truth: str, canonical: str):
    row = asked[verifier, truth]
    assert (row["answer_verifier"], row["truth_present"], row["truth_parsable"]) == (canonical, True, True)
    assert (row["truth_state"], row["perturbed_state"]) == ("right", "wrong")


@pytest.mark.parametrize(("verifier", "truth"), UNREADABLE)
def test_a_ground_truth_that_its_verifier_cannot_read_is_not_parsable(asked, verifier: str, truth: str):
    assert asked[verifier, truth]["truth_parsable"] is False


def test_an_unknown_verifier_and_a_missing_truth_are_facts_and_no_verdict():
    row = measured("Write a program", "print(1)", "codecontests")
    assert (row["answer_verifier"], row["truth_present"], row["truth_parsable"], row["truth_state"]) == (
        None,
        True,
        None,
        None,
    )
    row = measured("What?", " ", "math")
    assert (row["truth_present"], row["truth_parsable"], row["answer_kind"]) == (False, None, None)


def test_an_answer_that_the_verifier_cannot_tell_from_another_is_seen():
    row = measured("What is it?", "1 / 2004!", "math")
    assert (row["truth_state"], row["perturbed_state"]) == ("right", "right"), "both are 0 to math-verify"


@pytest.mark.parametrize(("verifier", "truth", "kind", "chance"), KINDS)
def test_the_kind_of_an_answer_and_the_chance_of_a_blind_guess(asked, verifier, truth: str, kind: str, chance):
    row = asked[verifier, truth]
    assert (row["answer_kind"], row["guess_chance"]) == (kind, chance)


def test_listed_options_set_the_chance_of_a_guess():
    assert measured("Which? (A) one (B) two (C) three (D) four (E) five", "C", "choice")["guess_chance"] == 0.2
    assert measured("Which?\nA. one\nB. two", "A", "choice")["guess_chance"] == 0.5


@pytest.mark.parametrize(("text", "truth", "stated", "stands"), [
    ("Add 1 and 1. The answer is 2.", "2", True, None), ("Add 2 and 2", "2", False, None),
    ("Show that \\boxed{7} comes out", "7", True, None), ("See #### 71", "7", False, None),
    ("It is 12345, is it not?", "12345", False, True), ("It is 123456, is it not?", "12345", False, False),
    ("It is 12,345.", "12345", False, True), ("It is 12345.6", "12345", False, False),
    ("Is $6\\sqrt{3} + 1$ real?", "6\\sqrt{3}", False, True), ("Is $16\\sqrt{3}$ real?", "6\\sqrt{3}", False, False),
    ("The answer is 17", "1", False, None), ("answer: \\frac{1}{2}", "\\frac{1}{2}", True, None),
])  # fmt: skip
def test_a_leak_is_the_whole_answer_and_long_enough_to_be_no_chance(
    text: str, truth: str, stated: bool, stands: bool | None
):
    assert kinds.stated_in(truth, text) is stated
    assert kinds.stands_in(kinds.kind_of("math", truth), truth, text) is stands


def test_pass_rates_are_summed_up_in_their_order():
    rows = [("a?", "1", "math", rates) for rates in ([0.0, 0.5, 1.0], [0.0, 0.0], [1.0], [], None)]
    table = Verifiable().measure(prompts(*rows), "rlvr")
    assert table["pass_rate_mean"].to_pylist() == [0.5, 0.0, 1.0, None, None]
    assert table["pass_rate_last"].to_pylist() == [1.0, 0.0, 1.0, None, None]
    assert table["pass_rate_count"].to_pylist() == [3, 2, 1, None, None]
    assert table["never_solved"].to_pylist() == [False, True, False, None, None]
    assert table["always_solved"].to_pylist() == [False, False, True, None, None]


def test_rows_are_measured_alike_alone_and_together():
    rows = prompts(("a?", "\\sqrt{2}", "math", None), ("b?", "\\frac{1}{", "math", [0.5]), ("c?", "B", "choice", None),
                   ("d?", None, None, None), ("e?", "\\sqrt{2}", "math", None))  # fmt: skip
    whole = Verifiable().measure(rows, "rlvr")
    assert pa.concat_tables([Verifiable().measure(rows.slice(n, 1), "rlvr") for n in range(5)]).equals(whole)
    assert Verifiable().measure(rows.slice(0, 0), "rlvr").schema.equals(Verifiable.columns)


def turns(answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": "What?"}, {"role": "assistant", "content": answer}]


def talks(pairs: list[tuple[str, Any]]) -> pa.Table:
    records = [{"messages": turns(answer), "meta": orjson.dumps(meta).decode()} for answer, meta in pairs]
    return pa.Table.from_pylist(records, schema=pa.schema([("messages", schema.MESSAGES), ("meta", pa.string())]))


def corrected(answer: str, meta: dict[str, Any] | None, **options: Any) -> dict[str, Any]:
    return AnswerCorrectness(**options).measure(talks([(answer, meta)]), "sft").to_pylist()[0]


JUDGED = [
    ("So \\boxed{0.5}", {"gt": "\\frac{1}{2}"}, "right", "gt", "math"),
    ("<think>\\boxed{1/2}</think>So \\boxed{2}", {"gt": "1/2"}, "wrong", "gt", "math"),
    ("<think>\\boxed{1/2}", {"gt": "1/2"}, "unparsed", "gt", "math"),
    ("The answer is (B).", {"gold": "(B)"}, "right", "gold", "choice"),
    ("Paris", {"expected_answer": "Paris", "verifier": "exact"}, "right", "expected_answer", "exact"),
    ("It is 12.", {"reward_model": {"ground_truth": 12}, "data_source": "gsm8k"}, "right", "ground_truth", "numeric"),
    ("It is 12.", {"gold": "13", "gt": "12"}, "right", "gt", "math"),
    ("It is 12.", {"gold": "many", "verifier": "numeric"}, "error", "gold", "numeric"),
    ("It is 12.", {"gold": None}, None, None, None), ("It is 12.", {"gold": True}, None, None, None),
    ("It is 12.", {"answer": "12"}, None, None, None), ("It is 12.", None, None, None, None),
]  # fmt: skip


@pytest.fixture(scope="module")
def judged() -> list[dict[str, Any]]:
    return AnswerCorrectness().measure(talks([(answer, meta) for answer, meta, *_ in JUDGED]), "sft").to_pylist()


@pytest.mark.parametrize(("number", "state", "key", "verifier"), [(n, *case[2:]) for n, case in enumerate(JUDGED)])
def test_the_final_answer_is_judged_against_the_reference_that_the_row_holds(judged, number, state, key, verifier):
    row = judged[number]
    assert (row["answer_state"], row["reference_key"], row["reference_verifier"]) == (state, key, verifier)


def test_keys_and_verifier_are_options():
    assert corrected("It is 12.", {"answer": "12"}, reference_keys=("answer",))["answer_state"] == "right"
    assert corrected("It is 12.", {"n (a": "12"}, reference_keys=("n (a",))["answer_state"] == "right"
    assert corrected("12", {"gt": "12.0"}, verifier="exact")["answer_state"] == "wrong"
    with pytest.raises(ValidationError, match="there is no verifier 'maths'"):
        AnswerCorrectness(verifier="maths")


def test_a_reference_solution_is_judged_against_the_ground_truth_of_its_prompt():
    rows = pa.table({"reference_solution": ["so 4", "so 5", None], "ground_truth": ["4", "4", "4"],
                     "verifier": ["openai/gsm8k", "math", "math"]})  # fmt: skip
    table = AnswerCorrectness().measure(rows, "rlvr")
    assert table["answer_state"].to_pylist() == ["right", "wrong", None]
    assert table["final_answer"].to_pylist() == ["4", "5", None]


RULES = {
    "unverifiable_prompt": "many",
    "leaked_answer": "leaked",
    "always_or_never_solved": "never",
    "guessable": "letter",
}


def test_rules_tell_which_prompts_cannot_be_rewarded_and_why(catalog, kedge):
    rows = [{"prompt": "good?", "ground_truth": "\\sqrt{2}", "verifier": "math", "pass_rates": [0.25]},
            {"prompt": "many?", "ground_truth": "many", "verifier": "numeric"},
            {"prompt": "leaked, for the answer is 71", "ground_truth": "71", "verifier": "numeric"},
            {"prompt": "never?", "ground_truth": "3", "verifier": "numeric", "pass_rates": [0.0, 0.0]},
            {"prompt": "letter?", "ground_truth": "B", "verifier": "choice"},
            {"prompt": "code?", "ground_truth": "print(1)", "verifier": "taco"}]  # fmt: skip
    Path("p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert kedge("add", "p.jsonl", "--stage", "rlvr")[0] == 0
    for name, prompt in RULES.items():
        code, out, err = kedge("rules", name, "--json")
        assert code == 0, err
        assert prompt in out, name
    _, out, _ = kedge(
        "sql", "SELECT prompt[1].content AS asked, reason FROM verdicts JOIN rows_rlvr USING (row_id)", "--json"
    )
    assert json.loads(out) == [{"asked": "many?", "reason": "the verifier numeric cannot read the ground truth"}]


def test_a_wrong_answer_is_shown_to_a_reviewer_and_stays_in_the_mixture(catalog, kedge):
    rows = [{"messages": turns(f"It is {said}."), "gt": "12"} for said in ("12", "13")]
    Path("s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert kedge("add", "s.jsonl")[0] == 0
    code, out, err = kedge("rules", "wrong_answer", "--json")
    assert code == 0 and "the final answer 13 is not the reference in gt" in out, err
    assert json.loads(kedge("sql", "SELECT count(*) AS n FROM verdicts", "--json")[1]) == [{"n": 0}]


@pytest.mark.real_data
def test_a_real_set_of_prompts_holds_rows_that_no_answer_can_be_rewarded_for():
    table = pq.read_table(REAL_DATA / "rlvr" / "dsr_sub.parquet").slice(0, 400)
    with gzip.open(REAL_DATA / "rlvr" / "dsr_sub_accuracy_history.json.gz", "rt") as stream:
        history = json.load(stream)
    rows = [(row["prompt"][0]["content"], row["reward_model"]["ground_truth"], row["data_source"],
             history.get(str(row["extra_info"]["index"]))) for row in table.to_pylist()]  # fmt: skip
    found = Verifiable().measure(prompts(*rows), "rlvr").to_pylist()
    unread = [row[1] for row, item in zip(rows, found, strict=True) if item["truth_parsable"] is False]
    alike = [row[1] for row, item in zip(rows, found, strict=True) if item["perturbed_state"] == "right"]
    assert set(unread) <= {"\\div", "4:40 a.m."} and len(alike) <= 2 and "1 / 2004!" in alike
    assert Counter(item["truth_state"] for item in found)["right"] >= 398
    assert {item["pass_rate_count"] for item in found} <= set(range(40, 60))
    assert 0 < sum(item["never_solved"] for item in found) < 400


@pytest.mark.real_data
def test_real_long_answers_are_judged_against_the_reference_in_their_meta():
    with gzip.open(REAL_DATA / "reasoning" / "sky_t1_5k_14b_amc23.jsonl.gz", "rt") as stream:
        records = [json.loads(line) for line in stream]
    rows = talks([(record["code"][0], {"gt": record["gt"]}) for record in records])
    states = AnswerCorrectness().measure(rows, "sft")["answer_state"].to_pylist()
    pairs = Counter(zip(states, (record["score"][0] for record in records), strict=True))
    assert pairs["right", True] == 21 and pairs["wrong", False] == 3 and pairs["right", False] == 0
    assert pairs["unparsed", False] == 15 and pairs["unparsed", True] == 1, "thoughts that never close"
