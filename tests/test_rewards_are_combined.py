"""Components of a reward: what each says of a rollout, and how they add up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from curation import registry
from curation.errors import UserError
from trainers.rewards import Reward, Sample, Score
from trainers.rewards.combining import Component, combine, components

GOOD = "<think>two and two</think>\n<answer>4</answer>"


def made(name: str, **options: Any) -> Any:
    return registry.make("rewards", name, options)


def scores(name: str, texts: list[str], given: dict[str, Any] | None = None, **options: Any) -> list[Score]:
    return made(name, **options).score([Sample(text, **(given or {})) for text in texts])


def test_every_reward_is_a_plug_in_that_scores_nothing_and_one_rollout():
    known = registry.entries("rewards")
    assert set(known) == {"answer", "endpoint", "format", "function", "judge", "language", "length", "repetition",
                          "reward_model", "steps"}  # fmt: skip
    needed = {"length": {"max_tokens": 10, "buffer_tokens": 2}, "steps": {"scorer": {"name": "format"}}}
    for name in set(known) - {"endpoint", "function", "judge", "reward_model"}:  # an address, a file, a model
        reward = made(name, **needed.get(name, {}))
        assert reward.score([]) == [] and reward.version >= 1 and reward.fingerprint()
        (score,) = reward.score([Sample(GOOD, num_tokens=4)])
        assert isinstance(score, Score) and isinstance(score.outcome, str)


def test_the_answer_is_judged_by_the_verifier_of_its_row():
    reward = made("answer")
    samples = [
        Sample(GOOD, ground_truth="4", verifier="openai/gsm8k"), Sample(GOOD, ground_truth="5", verifier="numeric"),
        Sample("<think>4", ground_truth="4", verifier="numeric"), Sample(GOOD, ground_truth="4", verifier="codeforces"),
        Sample(GOOD, ground_truth="", verifier="numeric"), Sample(GOOD, ground_truth="four", verifier="numeric"),
        Sample("\\boxed{\\frac{8}{2}}", ground_truth="4", verifier="math_dapo"),
        Sample("def f(): return 1", ground_truth="assert f() == 1\nassert f() + 1 == 3", verifier="code"),
    ]  # fmt: skip
    assert reward.score(samples) == [
        (1, "right"), (0, "wrong"), (0, "unparsed"), (None, "no_verifier"), (None, "no_verifier"),
        (None, "verifier_error"), (1, "right"), (0, "wrong")]  # fmt: skip
    assert made("answer", partial=True).score(samples[-1:]) == [(0.5, "wrong")]
    assert made("answer", right=2, wrong=-1).score(samples[:2]) == [(2, "right"), (-1, "wrong")]
    with pytest.raises(UserError, match="there is no verifier 'maths'"):
        made("answer", verifier="maths")


@pytest.mark.parametrize(("text", "outcome"), [
    (GOOD, "kept"), ("<think>a</think><answer>b</answer>\n", "kept"), ("<answer>4</answer>", "thought"),
    ("<think></think><answer>4</answer>", "thought"), ("<think>a<answer>4</answer>", "thought"),
    ("<think>a</think>4", "answer"), ("<think>a</think><answer> </answer>", "answer"), ("", "thought"),
    ("<think>a</think><answer>4</answer> more", "answer"), ("so <think>a</think><answer>4</answer>", "thought"),
    ("<think>a</think><think>b</think><answer>4</answer>", "thought"),
    ("<think>a</think><answer>4</answer><answer>5</answer>", "answer"),
])  # fmt: skip
def test_the_format_is_one_thought_and_one_answer_in_tags(text: str, outcome: str):
    assert scores("format", [text]) == [(float(outcome == "kept"), outcome)]


def test_the_format_follows_its_options():
    assert scores("format", ["<answer>4</answer>"], think="allowed") == [(1, "kept")]
    assert scores("format", [GOOD, "4"], think="forbidden", answer="text") == [(0, "thought"), (1, "kept")]
    assert scores("format", ["a</think><answer>4</answer>"], think_opened=True) == [(1, "kept")]
    assert scores("format", ["#### 4", "4"], pattern=r"#### \d+") == [(1, "kept"), (0, "pattern")]


def test_overlong_completions_are_punished_as_in_equation_13_of_dapo():
    reward = made("length", max_tokens=100, buffer_tokens=20)
    found = reward.score([Sample("", num_tokens=number) for number in (1, 80, 85, 90, 100, 101, 500)])
    assert [score.value for score in found] == [0, 0, -0.25, -0.5, -1, -1, -1]
    assert [score.outcome for score in found] == ["within"] * 2 + ["buffer"] * 3 + ["overlong"] * 2
    assert reward.score([Sample("text")]) == [(None, "no_length")]
    wanted = made("length", max_tokens=100, buffer_tokens=20, target_tokens=50, per_token=0.01)
    assert [score.value for score in wanted.score([Sample("", num_tokens=50), Sample("", num_tokens=30)])] == [0, -0.2]
    with pytest.raises(UserError, match="make the buffer smaller"):
        made("length", max_tokens=10, buffer_tokens=20)


def test_length_is_counted_by_a_tokenizer_where_the_trainer_tells_none(tiny_model: Path):
    short, long = scores("length", ["one two", "one two " * 60], max_tokens=40, buffer_tokens=20,
                         tokenizer=str(tiny_model))  # fmt: skip
    assert short == (0, "within") and long == (-1, "overlong")


def test_repetition_is_the_share_of_n_grams_that_stood_before():
    found = scores("repetition", ["a b c d e f", "a b a b a b a b a b", "one two", "的" * 20], n=2)
    assert [round(score.value or 0, 3) for score in found] == [0, round(2 / 9 - 1, 3), 0, round(1 / 19 - 1, 3)]
    assert [score.outcome for score in found] == ["varied", "repetitive", "varied", "repetitive"]
    assert scores("repetition", ["a b a b"], n=2, free=0.5) == [(0, "varied")]


def test_language_consistency_is_the_share_in_the_language_of_the_prompt():
    english = "The harbour was quiet in the morning and all the ships lay at anchor near the old stone pier. " * 2
    german = "Der Hafen war am Morgen still und alle Schiffe lagen vor Anker an der alten steinernen Mole. " * 2
    found = scores("language", [english, f"<think>{german}</think>{english}", german, "4"], {"prompt_text": english})
    assert [score.outcome for score in found] == ["consistent", "mixed", "other", "unknown"]
    assert found[0].value == 1 and 0.3 < (found[1].value or 0) < 0.7 and found[2].value == 0 and found[3].value is None
    assert scores("language", [german], language="de") == [(1, "consistent")]


def test_a_function_of_the_user_is_called_as_its_parameters_tell(tmp_path: Path):
    file = tmp_path / "mine.py"
    file.write_text(
        "def ours(samples, scale=1): return [scale * len(item.completion) for item in samples]\n"
        "def like_verl(data_source, solution_str, ground_truth, extra_info=None):\n"
        "    return {'score': float(ground_truth == solution_str), 'id': extra_info['row_id']}\n"
        "def like_trl(prompts, completions, ground_truth, **kwargs):\n"
        "    return [None if truth is None else 1.0 for truth in ground_truth]\n"
    )
    samples = [Sample("abc", row_id="1", ground_truth="abc"), Sample("d")]
    for name, options, values in (("ours", {"options": {"scale": 2}}, [6, 2]), ("like_verl", {}, [1, 0]),
                                  ("like_trl", {}, [1, None])):  # fmt: skip
        reward = made("function", path=f"{file}:{name}", **options)
        assert [score.value for score in reward.score(samples)] == values
    before = made("function", path=f"{file}:ours").fingerprint()
    file.write_text(file.read_text() + "# changed\n")
    assert made("function", path=f"{file}:ours").fingerprint() != before
    with pytest.raises(UserError, match=r"is not FILE\.py:NAME"):
        made("function", path=str(file))


class Faulty(Reward):
    """Returns what it is told to."""

    version = 1
    gives: Any = None

    def score(self, samples):
        if isinstance(self.gives, Exception):
            raise self.gives
        return self.gives if isinstance(self.gives, list) else [self.gives] * len(samples)


@pytest.mark.parametrize(("gives", "outcome"), [
    (ValueError("no"), "exception"), ([], "wrong_length"), ([Score(1, "a")] * 3, "wrong_length"),
    (Score(float("nan"), "a"), "nan"), (Score(float("inf"), "a"), "infinite"), (Score("x", "a"), "no_number"),  # type: ignore[arg-type]
    (0.5, "no_number"),
])  # fmt: skip
def test_a_component_that_fails_has_an_outcome_of_its_own_and_its_value(gives: Any, outcome: str):
    parts = [Component("bad", 2.0, Faulty(gives=gives)), Component("format", 0.1, made("format"))]
    found = combine(parts, [Sample(GOOD)] * 2, failed_value=-1)
    assert [item["reward"] for item in found] == [pytest.approx(-1.9)] * 2
    assert found[0]["outcomes"] == {"bad": outcome, "format": "kept"} and found[0]["outcome"] == outcome
    assert found[0]["components"] == {"bad": None, "format": 1.0}


def test_components_are_weighted_and_those_with_nothing_to_say_are_left_out():
    parts = components([{"name": "answer", "weight": 1}, {"name": "format", "weight": 0.1}, {"name": "format"}])
    assert [part.name for part in parts] == ["answer", "format", "format_2"]
    right, silent = combine(parts, [Sample(GOOD, ground_truth="4", verifier="numeric"), Sample("4")])
    assert right["reward"] == pytest.approx(2.1) and right["outcome"] == "right"
    assert silent["reward"] == 0 and silent["outcome"] == "no_verifier" and silent["components"]["answer"] is None
    assert combine(parts[:1], [Sample("4")])[0]["reward"] is None, "nobody says anything"
    skipped = combine(parts, [Sample(GOOD)], skip={"format": "timeout"})[0]
    assert skipped["outcomes"]["format"] == skipped["outcome"] == "timeout"


def test_every_wrong_setting_of_rewards_is_told_at_once():
    with pytest.raises(UserError) as error:
        components([{"name": "anwser"}, {"name": "format", "think": "maybe"}, {"name": "answer", "weight": "much"},
                    {"name": "length"}])  # fmt: skip
    told = str(error.value)
    assert "did you mean 'answer'?" in told and "think" in told and "no weight" in told and "max_tokens" in told
    with pytest.raises(UserError, match="there is no reward"):
        components([])


def test_prompts_whose_answers_are_judged_by_tests_or_instructions_are_measured():
    import pyarrow as pa

    from curation import schema

    gold = ["assert f() == 1", "no test", json.dumps([{"id": "punctuation:no_comma"}])]
    rows = {name: [None] * 3 for name in schema.rows("rlvr").names}
    rows |= {"prompt": [[{"role": "user", "content": "Write f."}]] * 3, "ground_truth": gold,
             "verifier": ["code", "mbpp", "ifeval"]}  # fmt: skip
    found = registry.make("measures", "verifiable").measure(pa.table(rows, schema=schema.rows("rlvr")), "rlvr")
    assert found["answer_verifier"].to_pylist() == ["code", "code", "instructions"]
    assert found["truth_parsable"].to_pylist() == [True, False, True]
    assert found["truth_state"].to_pylist() == [None] * 3, "no right answer stands in tests"
    assert found["perturbed_state"].to_pylist() == ["unparsed", None, "unparsed"]
