"""The reward component `steps`: every step is scored by a scorer, and their scores make one number."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from curation import registry
from curation.errors import UserError
from tests.endpoints import Served, says, served
from trainers.rewards import Sample
from trainers.rewards.combining import combine, components

TEXT = "<think>so\n\nand so</think>\n\none\n\ntwo two\n\nthree"
PROMPT = [{"role": "user", "content": "Count to three."}]


@pytest.fixture
def server() -> Iterator[Served]:
    with served() as running:
        yield running


@pytest.fixture
def scorer(tmp_path: Path) -> dict[str, Any]:
    """A function whose score of a step is what stands for its first word in a table."""
    file = tmp_path / "mine.py"
    file.write_text(
        "def score(samples, table):\n"
        "    return [table.get(item.meta['steps'][-1].split()[0], 0.9) for item in samples]\n"
        "def longer(completions, **columns): return [len(text) for text in completions]\n"
    )
    table = {"one": 0.5, "two": 0.25, "three": 1.0, "nan": math.nan, "none": None, "big": 7.0}
    return {"name": "function", "path": f"{file}:score", "options": {"table": table}}


def made(scorer: dict[str, Any], **options: Any) -> Any:
    return registry.make("rewards", "steps", {"scorer": scorer} | options)


@pytest.mark.parametrize(("aggregate", "value"), [("min", 0.25), ("product", 0.125), ("mean", 1.75 / 3), ("last", 1.0)])
def test_the_scores_of_steps_make_one_number(scorer, aggregate: str, value: float):
    whole, each, lowest = made(scorer, aggregate=aggregate).score_parts([Sample(TEXT)])
    assert whole == [(pytest.approx(value), "scored")] and each == [(3, "0.5 0.25 1")] and lowest == [(2, "scored")]


def test_thoughts_are_left_out_or_a_step_or_split(scorer):
    counts = {how: made(scorer, thoughts=how).score_parts([Sample(TEXT)])[1][0].value
              for how in ("skip", "whole", "split")}  # fmt: skip
    assert counts == {"skip": 3, "whole": 4, "split": 5}
    assert made(scorer).score([Sample("<think>one")]) == [(None, "unfinished")]
    assert made(scorer, thoughts="whole").score([Sample("<think>one\n\ntwo")]) == [(0.9, "scored")]


def test_what_cannot_be_scored_is_an_outcome_and_its_neighbours_keep_their_scores(scorer):
    texts = ["one", "", "a</think>\n ", "one\n\nnone\n\ntwo", "one\ntwo\none\ntwo\none", "big"]
    found = made(scorer, max_steps=4, aggregate="product").score([Sample(text) for text in texts])
    assert found == [(0.5, "scored"), (None, "no_steps"), (None, "no_steps"), (None, "none"), (None, "too_many_steps"),
                     (None, "out_of_range")]  # fmt: skip
    assert made(scorer).score([Sample("big")]) == [(7, "scored")]
    assert made(scorer, sigmoid=True).score([Sample("big")])[0].value == pytest.approx(1 / (1 + math.exp(-7)))


def test_the_scores_of_every_step_stand_in_the_evidence(scorer):
    parts = components([{"name": "steps", "scorer": scorer, "weight": 2}, {"name": "format"}])
    found, odd = combine(parts, [Sample(TEXT), Sample("nan")], failed_value=-1)
    assert found["reward"] == 0.5 and found["components"] == {
        "steps": 0.25, "steps.each": 3, "steps.lowest": 2, "format": 0}  # fmt: skip
    assert found["outcomes"]["steps.each"] == "0.5 0.25 1"
    assert odd["outcome"] == "nan" and odd["reward"] == -2 and odd["components"]["steps"] is None


def test_a_component_scores_the_answer_up_to_the_end_of_each_step(scorer):
    longer = {"name": "function", "path": scorer["path"].replace(":score", ":longer")}
    whole, each, _ = made(longer, aggregate="last").score_parts([Sample("one\n\ntwo\n\n three", num_tokens=9)])
    assert whole[0].value == len("one\n\ntwo\n\n three") and each[0].outcome == "5 10 16"


def test_a_reward_model_scores_prefixes_as_it_scores_answers(tiny_model: Path, tmp_path: Path):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1)
    torch.nn.init.normal_(model.score.weight)
    model.save_pretrained(tmp_path / "rm")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "rm")
    use = {"name": "reward_model", "path": str(tmp_path / "rm")}
    alone: Any = registry.make("rewards", "reward_model", {"path": use["path"]})
    prefixes = ["one\n\n", "one\n\ntwo\n\n", "one\n\ntwo\n\nthree"]
    values = [score.value for score in alone.score([Sample(text, prompt=PROMPT) for text in prefixes])]
    assert len(set(values)) == 3
    whole, each, _ = made(use, aggregate="min").score_parts([Sample(prefixes[-1], prompt=PROMPT), Sample("alone")])
    assert [float(text) for text in each[0].outcome.split()] == pytest.approx(values, rel=1e-4)
    assert whole[0].value == pytest.approx(min(values), rel=1e-4) and whole[1] == (None, "no_prompt")


@pytest.mark.parametrize("num_labels", [1, 2, 3])
def test_a_token_classifier_is_read_at_the_last_token_of_each_step(tiny_model: Path, tmp_path: Path, num_labels: int):
    import torch
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    torch.manual_seed(4)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForTokenClassification.from_pretrained(tiny_model, num_labels=num_labels).eval()
    torch.nn.init.normal_(model.score.weight)
    model.save_pretrained(tmp_path / "prm")
    tokenizer.save_pretrained(tmp_path / "prm")
    positive = [1, 2] if num_labels == 3 else [1]
    use = {"name": "token_classifier", "path": str(tmp_path / "prm"), "positive": positive}
    _, each, _ = made(use, aggregate="product").score_parts([Sample("one\n\ntwo", prompt_text="Count.")])
    expected = []
    for text in ("Count.one\n", "Count.one\ntwo\n"):
        ids = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        for piece in ("Count.", "one", "\n", "two", "\n")[: 1 + 2 * text.count("\n")]:
            ids += tokenizer(piece, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            last = model(torch.tensor([ids])).logits[0, -1].float()
        expected.append(float(last.sigmoid()[0] if num_labels == 1 else last.softmax(0)[positive].sum()))
    assert [float(text) for text in each[0].outcome.split()] == pytest.approx(expected, rel=1e-3)
    assert made(use | {"max_tokens": 2}).score([Sample("one")]) == [(None, "too_long")]


def test_a_judge_grades_all_steps_in_one_reply(server):
    server.replies = [(200, says('{"scores": [1, 0.5, 0.25]}')), (200, says('{"scores": [1]}'))]
    use = {"name": "judge", "endpoint": {"url": server.url, "model": "m", "tries": 1, "repair": False}}
    first = made(use, aggregate="product").score([Sample(TEXT, prompt_text="Count.")])
    assert first == [(0.125, "scored")] and len(server.asked) == 1
    told = server.asked[0][2]["messages"][1]["content"]
    assert "Count." in told and "\ntwo two\n" in told and "and so" not in told
    assert made(use).score([Sample(TEXT)]) == [(None, "unparsed")], "one number for three steps"
    server.replies = [(500, {})]
    assert made(use).score([Sample("a"), Sample("b")]) == [(None, "endpoint")] * 2


def test_a_scorer_that_is_none_is_told(tmp_path: Path):
    for use, told in (({"name": "steps", "scorer": {}}, "steps are not scored by 'steps'"),
                      ({"name": "rewardmodel", "path": "x"}, "did you mean 'reward_model'"),
                      ({"name": "token_classifier", "path": str(tmp_path)}, "there is no model in"),
                      ({"name": "judge", "judge": "score"}, "kind 'steps' is needed"),
                      ({"name": "judge", "endpoint": {"urll": "x"}}, "did you mean 'url'")):  # fmt: skip
        with pytest.raises(UserError, match=told):
            made(use)


def test_the_evidence_of_a_run_tells_the_scores_of_steps_by_row(catalog, scorer, tmp_path: Path):
    from curation.views import full_session
    from trainers.rewards.client import record
    from trainers.rewards.evidence import publish

    sample = Sample(TEXT, row_id="0" * 31 + "1", step=3)
    (result,) = combine(components([{"name": "steps", "scorer": scorer}]), [sample])
    folder = tmp_path / "rollouts"
    folder.mkdir()
    line = record({"row_id": sample.row_id, "step": 3, "completion": TEXT}, result, "run")
    (folder / "rollouts-1.jsonl").write_text(json.dumps(line) + "\n")
    assert publish(catalog, "run", folder)["rollouts"] == 1
    connection = full_session(catalog)
    (told,) = connection.execute("SELECT outcomes FROM rollouts").fetchone() or ("{}",)
    connection.close()
    assert orjson.loads(told)["steps.each"] == "0.5 0.25 1"
