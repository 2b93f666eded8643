"""Launch files of any framework: where data is looked for, what is an error, what is no launch file."""

from __future__ import annotations

import json

import pytest

from curation.auditing.launch_files import read_launch
from curation.errors import UserError
from tests.launches import CHAT, read, write


def test_data_is_looked_for_here_and_then_beside_the_file(here):
    text = "base_model: model\ndatasets: [{path: mine.jsonl, type: chat_template}]\n"
    path = write(here, "configs/x.yml", text)
    with pytest.raises(UserError, match=r"'mine\.jsonl' is not on this machine.*kedge audit FILE DATASET"):
        read_launch(path)
    beside = write(here, "configs/mine.jsonl", json.dumps(CHAT) + "\n")
    launch = read_launch(path)
    assert launch is not None and launch.dataset == beside
    here_too = write(here, "mine.jsonl", json.dumps(CHAT) + "\n")
    launch = read_launch(path)
    assert launch is not None and launch.dataset == here_too


@pytest.mark.parametrize(("name", "text", "where"), [
    ("a.yml", "base_model: model\ndatasets:\n  - path: teknium/GPT4-LLM-Cleaned\n    type: alpaca\n", "a.yml:3"),
    ("sft.yaml", "model_name_or_path: model\ndataset_name: trl-lib/Capybara\npacking: true\n", "sft.yaml:2"),
    ("x.yaml", "data:\n  train_files: /none/train.parquet\nactor_rollout_ref: {model: {path: model}}\n", "x.yaml:2"),
])  # fmt: skip
def test_a_dataset_of_the_hub_is_an_error_that_asks_for_a_local_file(here, name, text, where):
    path = write(here, name, text)
    with pytest.raises(UserError, match="kedge audit FILE DATASET") as caught:
        read_launch(path)
    assert caught.value.problems[0].where == where
    launch = read_launch(path, here / "chat.jsonl")
    assert launch is not None and launch.datasets == (here / "chat.jsonl",)


@pytest.mark.parametrize(("text", "said"), [
    ("base_model: model\nrl: ppo\ndatasets: [{path: chat.jsonl}]\n", "no mirror"),
    ("base_model: model\nreward_model: true\ndatasets: [{path: pairs.jsonl}]\n", "no mirror"),
    ("model_name_or_path: model\nstage: ppo\ndataset: identity\n", "no mirror"),
    ("base_model: model\ndatasets: 3\n", "must be a list"),
    ("base_model: model\nbase_model: model\n", "stands here twice"),
])  # fmt: skip
def test_what_cannot_be_audited_is_an_error_with_its_line(here, text, said):
    with pytest.raises(UserError, match=said) as caught:
        read_launch(write(here, "x.yaml", text))
    assert caught.value.problems[0].where.startswith("x.yaml:")


@pytest.mark.parametrize(("name", "text"), [
    ("run.yaml", "trainer: {name: trl_sft}\nmixture: first\nbase: model\n"), ("list.yaml", "- a\n- b\n"),
    ("empty.yaml", ""), ("train.sh", "python train.py data.truncation=left\n"), ("notes.txt", "base_model: x\n"),
    ("rows.jsonl", "{}\n"), ("chat.yaml", "model_name_or_path: model\ntemplate: llama3\ninfer_backend: vllm\n"),
])  # fmt: skip
def test_other_files_are_no_launch_files(here, name, text):
    assert read_launch(write(here, name, text)) is None


def test_nothing_in_a_launch_file_is_executed(here):
    """A tag that would run code is no YAML here, and a script is text."""
    with pytest.raises(UserError, match="no valid YAML"):
        read_launch(write(here, "x.yaml", "base_model: !!python/object/apply:os.mkdir ['made']\ndatasets: []\n"))
    launch = read(here, "x.sh", """
        made=$(mkdir made)
        python -m verl.trainer.main_ppo data.train_files=prompts.jsonl actor_rollout_ref.model.path=`mkdir made`
    """)  # fmt: skip
    assert launch.trainer == "verl_rl"
    assert not (here / "made").exists()
