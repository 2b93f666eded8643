"""The mirrors of verl against verl 0.9.1 itself, in its own environment: ids, loss masks, kept rows, raised errors."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curation import environments
from curation.auditing.mirrors.verl_rl import VerlRL
from curation.auditing.mirrors.verl_sft import VerlSFT
from curation.errors import UserError
from curation.rendering.per_message import DIFFERS
from tests.verl_cases import ODD, RL, SFT, Asked, tokenizer_with

try:
    PYTHON = environments.python("verl")
except UserError as absent:
    pytest.skip(str(absent), allow_module_level=True)

pytestmark = pytest.mark.verl


@pytest.fixture(scope="module")
def asked(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    folder = tmp_path_factory.mktemp("verl")
    return Asked(PYTHON, partial(tokenizer_with, tiny_model, folder), folder)


@pytest.mark.parametrize("name", SFT)
def test_sft_ids_masks_and_errors_equal_verls(asked: Asked, name: str):
    mirrored, answer = asked.mirrored[name], asked.verl[name]
    if "error" in answer:  # the dataset itself cannot be made
        assert all(mirrored.anatomy["render_error"].to_pylist())
        return
    assert len(answer["rows"]) == mirrored.anatomy.num_rows
    stops = mirrored.mirror.truncation == "error"
    for number, row in enumerate(answer["rows"]):
        error = mirrored.anatomy["render_error"][number].as_py()
        too_long = stops and mirrored.anatomy["tokens"][number].as_py() > mirrored.mirror.max_length
        assert ("error" in row) == bool(error or too_long), (number, row, error)
        if "error" in row:
            assert row["error"].startswith("AssertionError: MultiTurnSFTDataset") == (error == DIFFERS)
            assert ("is larger than self.max_length" in row["error"]) == too_long
            continue
        assert row["ids"] == mirrored.ids(number)
        assert row["mask"] == mirrored.mask(number)
        assert mirrored.fates.kept_trained[number] == sum(row["mask"])


@pytest.mark.parametrize("name", RL)
def test_kept_prompts_their_ids_and_errors_equal_verls(asked: Asked, name: str):
    mirrored, answer = asked.mirrored[name], asked.verl[name]
    kept = np.flatnonzero(~mirrored.fates.dropped).tolist()
    assert [row["index"] for row in answer["rows"]] == kept
    for row, number in zip(answer["rows"], kept, strict=True):
        assert ("error" in row) == bool(mirrored.anatomy["render_error"][number].as_py())
        assert row.get("ids", []) == mirrored.ids(number)
    lacking = any("less than one batch" in reason for reason in mirrored.mirror.refuses(mirrored.anatomy))
    assert lacking == (answer["num_batches"] == 0)


def test_the_cases_try_every_fate(asked: Asked):
    def fates(name: str) -> set[str]:
        return set(asked.mirrored[name].fates.table()["fate"].to_pylist())

    assert {"whole", "cut"} <= fates("right no_padding 1")
    assert {"whole", "dropped"} == fates("filter 0")
    assert {"whole", "cut"} == fates("no filter 1")
    raising = [name for name in asked.verl if any("error" in row for row in asked.verl[name].get("rows", []))]
    assert {"qwen3", "needs a user turn", "error no_padding 0", "no filter 1 qwen3_5_think"} <= set(raising)
    assert "error" in asked.verl["roles must alternate"]
    cut = asked.mirrored["right no_padding 1"].fates
    assert ((cut.kept > 0) & (cut.kept_trained == 0) & ~cut.whole).any(), "a row that keeps nothing to train"


@pytest.mark.parametrize("below", [0, 1])
def test_a_row_as_long_as_the_limit_is_whole_and_one_token_more_is_cut_or_raises(asked: Asked, below: int):
    for name in (f"error right {below}", f"right right {below}", f"no filter {below}"):
        mirrored = asked.mirrored[name]
        at = mirrored.anatomy["tokens"].to_pylist().index(mirrored.mirror.context_length + below)
        row = asked.verl[name]["rows"][at]
        assert ("error" in row) == (name.startswith("error") and below == 1)
        assert "error" in row or len(row["ids"]) == mirrored.mirror.context_length


def test_left_without_padding_cuts_on_the_right_and_with_padding_on_the_left(asked: Asked):
    assert asked.verl["left no_padding 1"]["rows"] == asked.verl["right no_padding 1"]["rows"]
    assert asked.verl["left right 1"]["rows"] != asked.verl["right right 1"]["rows"]
    problems = VerlSFT.option_problems({"truncation": "left"})
    assert [problem.key for problem in problems] == ["trainer.truncation"]
    assert not VerlSFT.option_problems({"truncation": "left", "pad_mode": "right"})


def test_truncation_of_prompts_is_a_dead_option(asked: Asked):
    for side in ("right", "left", "middle"):
        assert asked.verl[f"truncation {side}"]["rows"] == asked.verl["no filter 1"]["rows"]
        (problem,) = VerlRL.option_problems({"truncation": side})
        assert problem.key == "trainer.truncation" and "filter_overlong_prompts: true" in problem.next
    assert not VerlRL.option_problems({"truncation": "error"})
    over = asked.mirrored["truncation right"].fates.start > 0
    assert over.any(), "the known case: right is asked, and the beginning goes"


def test_qwen3_raises_on_reasoning_loses_it_when_told_to_ignore_and_its_training_template_keeps_it(asked: Asked):
    at = next(number for number, row in enumerate(ODD) if row["messages"][-1].get("reasoning") == "kept apart")
    assert asked.verl["qwen3"]["rows"][at]["error"].startswith("AssertionError")
    assert asked.mirrored["qwen3"].rendered[at].error == DIFFERS
    assert "ids" in asked.verl["qwen3 ignoring"]["rows"][at]
    assert "kept apart" not in asked.mirrored["qwen3 ignoring"].rendered[at].text
    assert "kept apart" in asked.mirrored["qwen3_training"].rendered[at].text


def test_the_default_none_of_verls_yaml_turns_thinking_on(asked: Asked):
    assert asked.verl["options"]["sft"]["enable_thinking_default"] == "none"
    assert asked.verl["thinking on by default"]["rows"] != asked.verl["thinking not said"]["rows"]


def test_the_text_of_a_row_is_what_its_ids_decode_to(asked: Asked, tiny_model: Path, tmp_path: Path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    for item in asked.mirrored["right right 1"].rendered:
        assert tokenizer.decode(item.ids) == item.text
        assert item.encoded.ends[-1] == len(item.text)


def test_null_instead_of_a_list_of_tools_makes_verl_raise(asked: Asked):
    first, second = asked.verl["null tools"]["rows"]
    assert "NAType" in first["error"]
    assert "ids" in second


def test_refusals_count_what_verl_raises_on(asked: Asked):
    mirrored, rows = asked.mirrored["error no_padding 1"], asked.verl["error no_padding 1"]["rows"]
    long = [row for row in rows if "is larger than" in row.get("error", "")]
    longest = f"{max(mirrored.anatomy['tokens'].to_pylist()):,}"
    reasons = mirrored.mirror.refuses(mirrored.anatomy)
    assert any(f"{len(long)} rows are longer" in reason and longest in reason for reason in reasons)
    mirrored, rows = asked.mirrored["qwen3"], asked.verl["qwen3"]["rows"]
    raising = [row for row in rows if "error" in row]
    assert any(f"{len(raising)} rows raise" in reason for reason in mirrored.mirror.refuses(mirrored.anatomy))


@pytest.mark.parametrize("name", ["narrow no_padding", "narrow right", "right no_padding 1", "right right 1"])
def test_sequences_wider_than_a_micro_batch_stop_verl_and_are_refused(asked: Asked, name: str):
    mirrored = asked.mirrored[name]
    refused = [reason for reason in mirrored.mirror.refuses(mirrored.anatomy) if "micro-batch" in reason]
    assert bool(refused) == name.startswith("narrow")
    assert bool(asked.verl[name]["micro_batch_error"]) == bool(refused)


def test_the_mirrors_know_the_options_of_verls_yaml_and_their_defaults(asked: Asked):
    for mirror, kind in ((VerlSFT, "sft"), (VerlRL, "rl")):
        yaml = asked.verl["options"][kind]
        assert mirror.data_options == set(yaml)
        defaults = mirror().model_dump()
        shared = set(defaults) & set(yaml)
        assert {name: defaults[name] for name in shared} == {name: yaml[name] for name in shared}
        live = {name: value for name, value in yaml.items() if name not in mirror.dead_options}
        assert not mirror.option_problems(live), "what verl says by default is no problem"


@pytest.mark.parametrize("mirror", [VerlSFT, VerlRL])
def test_an_unknown_option_is_an_error_that_names_the_likely_one(mirror: Any):
    (problem,) = mirror.option_problems({"train_batchsize": 8})
    assert "train_batch_size" in problem.next
    (problem,) = mirror.option_problems({"data.train_batch_size": 8})
    assert problem.next == "write train_batch_size"
    assert not mirror.option_problems({"trainer.total_epochs": 1})


def test_a_thinking_switch_that_verl_would_override_is_refused():
    with pytest.raises(UserError, match="enable_thinking_default: false"):
        VerlSFT().rendering_kwargs({"enable_thinking": False})
