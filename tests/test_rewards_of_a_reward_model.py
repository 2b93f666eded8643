"""The reward component `reward_model`: a sequence classifier's score of a whole conversation."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from curation.errors import UserError
from trainers.rewards import Sample
from trainers.rewards.combining import combine, components
from trainers.rewards.reward_model import RewardModel


@pytest.fixture(scope="module")
def folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model under a head of one output, its tokenizer and template beside."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(3)
    target = tmp_path_factory.mktemp("reward") / "model"
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1)
    torch.nn.init.normal_(model.score.weight)
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(target)
    return target


def sample(number: int) -> Sample:
    return Sample(f"The answer is {number}." * (number + 1), prompt=[{"role": "user", "content": f"{number} plus 0?"}])


def test_scores_are_those_of_the_model_whatever_the_batch(folder: Path):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    model.config.pad_token_id = tokenizer.pad_token_id
    samples = [sample(number) for number in range(5)]
    expected = []
    for item in samples:
        turns = [*item.prompt, {"role": "assistant", "content": item.completion}]
        with torch.inference_mode():
            ids = tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=True)["input_ids"]
            expected.append(float(model(ids).logits[0, 0]))
    assert len({round(value, 4) for value in expected}) == 5
    for size in (1, 2, 8):
        scores = RewardModel(path=str(folder), batch_size=size).score(samples)
        assert [score.value for score in scores] == pytest.approx(expected, abs=1e-4)
    scaled = RewardModel(path=str(folder), mean=1.0, std=2.0).score(samples)
    assert [score.value for score in scaled] == pytest.approx([(value - 1) / 2 for value in expected], abs=1e-4)


def test_nothing_is_cut_and_a_rollout_without_a_prompt_has_no_value(folder: Path):
    found = RewardModel(path=str(folder), max_tokens=40).score([sample(0), sample(9), Sample("alone")])
    assert [score.outcome for score in found] == ["scored", "too_long", "no_prompt"]
    assert [score.value is None for score in found] == [False, True, True]


@pytest.fixture(scope="module")
def other(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with its head turned round and doubled."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    target = tmp_path_factory.mktemp("reward") / "other"
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    model.score.weight.data *= -2
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(folder).save_pretrained(target)
    return target


def test_an_ensemble_is_the_mean_or_the_least_of_its_models_each_of_which_is_kept(folder: Path, other: Path):
    samples = [sample(number) for number in range(3)]
    one = [score.value for score in RewardModel(path=str(folder)).score(samples)]
    use = {"name": "reward_model", "path": [str(folder), str(other)], "std": [1.0, 4.0], "weight": 3.0}
    for combined, expected in (("mean", [value / 4 for value in one]), ("min", [min(v, -v / 2) for v in one])):
        found = combine(components([use | {"combine": combined}]), samples)
        for item, value, of_one in zip(found, expected, one, strict=True):
            assert item["components"] == pytest.approx(
                {"reward_model": value, "reward_model.1": of_one, "reward_model.2": -of_one / 2}, abs=1e-4)  # fmt: skip
            assert item["reward"] == pytest.approx(3 * value, abs=1e-4), "the parts count for nothing"
            assert set(item["outcomes"].values()) == {"scored"}
    skipped = combine(components([use]), samples, skip={"reward_model": "timeout"})[0]
    assert skipped["outcomes"] == dict.fromkeys(("reward_model", "reward_model.1", "reward_model.2"), "timeout")
    assert RewardModel(path=[str(folder)]).parts == ()


def test_a_rollout_that_one_model_cannot_score_has_no_value(folder: Path, other: Path, tmp_path: Path):
    long = shutil.copytree(other, tmp_path / "long")
    template = (long / "chat_template.jinja").read_text()
    (long / "chat_template.jinja").write_text("{{ 'too long ' * 60 }}" + template)
    paths = [str(folder), str(long)]
    (item,) = combine(components([{"name": "reward_model", "path": paths, "max_tokens": 60}]), [sample(0)])
    assert item["reward"] is None and item["components"]["reward_model"] is None
    assert item["components"]["reward_model.1"] is not None, "what the others say is kept"
    assert item["outcomes"] == {"reward_model": "too_long", "reward_model.1": "scored", "reward_model.2": "too_long"}


def test_what_a_model_gives_for_a_token_of_the_answer_is_taken_off(folder: Path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    samples = [sample(number) for number in range(3)]
    plain = [score.value for score in RewardModel(path=str(folder)).score(samples)]
    for item, before, after in zip(samples, plain, RewardModel(path=str(folder), per_token=0.5).score(samples),
                                   strict=True):  # fmt: skip
        tokens = len(tokenizer(item.completion + "<|im_end|>\n", add_special_tokens=False)["input_ids"])
        assert after.value == pytest.approx(before - 0.5 * tokens, abs=1e-4)


def test_a_folder_without_a_model_is_told(tmp_path: Path):
    with pytest.raises(UserError, match="there is no model in"):
        components([{"name": "reward_model", "path": str(tmp_path)}])
