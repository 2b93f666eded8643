"""The reward component `reward_model`: a sequence classifier's score of a whole conversation."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.errors import UserError
from trainers.rewards import Sample
from trainers.rewards.combining import components
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


def test_a_folder_without_a_model_is_told(tmp_path: Path):
    with pytest.raises(UserError, match="there is no model in"):
        components([{"name": "reward_model", "path": str(tmp_path)}])
