"""The mirror of TRL SFT against the installed SFTTrainer: ids, labels, dropped rows, bins."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curation import schema
from curation.auditing.mirrors.trl_sft import TRLSFT
from curation.measures.anatomy import anatomy_for
from curation.rendering import template_messages

WORDS = (
    "plus",
    "naïve",
    "東京",
    "🙂🙂",
    "x",
    "  ",
    "\n\n",
    "The answer is",
    "<think>a</think>",
    "é",
    "12",
    "half <think>",
)
NUM_CONVERSATIONS = 120


def conversation(draw: random.Random) -> list[dict[str, Any]]:
    """One to three exchanges with odd texts: multi-byte, thoughts open and closed, empty turns."""

    def text(longest: int) -> str:
        return " ".join(draw.choice(WORDS) for _ in range(draw.randrange(longest)))

    turns = [("system", text(6))] if draw.random() < 0.4 else []
    for _ in range(draw.randrange(1, 4)):
        # now and then a question fills the limit, so that the cut leaves nothing to train
        turns.append(("user", text(90 if draw.random() < 0.2 else 12)))
        turns.append(("assistant", "" if draw.random() < 0.1 else text(30)))
    return [{"role": role, "content": content} for role, content in turns]


def conversations(seed: int, count: int = NUM_CONVERSATIONS) -> list[list[dict[str, Any]]]:
    draw = random.Random(seed)
    return [conversation(draw) for _ in range(count)]


def prepared(model: Path, rows: list[dict[str, Any]], folder: Path, **options: Any) -> Any:
    """The dataset that the installed SFTTrainer trains on. `number` does not survive its packing."""
    import datasets
    from trl import SFTConfig, SFTTrainer

    arguments = SFTConfig(
        output_dir=str(folder), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none", **options
    )
    return SFTTrainer(str(model), args=arguments, train_dataset=datasets.Dataset.from_list(rows)).train_dataset


def chats(talks: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [{"messages": template_messages(talk), "number": number} for number, talk in enumerate(talks)]


def audited(model: Path, rows: pa.Table, stage: str, mirror: TRLSFT) -> tuple[list[Any], pa.Table, pa.Table]:
    """What kedge says of the same rows: rendered rows, anatomy, fates."""
    filled = [name for name in ("text", "messages") if name in rows.column_names]
    measure = anatomy_for(None, str(model), "tokenizer", mirror.rendering_path(stage, filled), {})
    anatomy = measure.measure(rows, stage)
    return measure.rendering.render_many(rows.to_pylist(), stage), anatomy, mirror.fates(anatomy)


def sft_rows(talks: list[list[dict[str, Any]]]) -> pa.Table:
    return pa.table(
        {"messages": pa.array(talks, schema.MESSAGES), "tools": pa.nulls(len(talks), pa.string())},
    )


def assert_equal_rows(dataset: Any, rendered: list[Any], fates: pa.Table) -> None:
    """Kept rows, their ids and their labels are those of the trainer."""
    kept = [number for number, fate in enumerate(fates["fate"].to_pylist()) if fate != "dropped"]
    assert dataset["number"][:] == kept
    for row, number in zip(dataset, kept, strict=True):
        length = fates["kept_tokens"][number].as_py()
        ids, mask = rendered[number].ids[:length], rendered[number].mask[:length]
        assert row["input_ids"] == ids.tolist()
        assert row["labels"] == np.where(mask, ids, -100).tolist()
        assert fates["kept_trained_tokens"][number].as_py() == sum(label != -100 for label in row["labels"])


@pytest.mark.parametrize("assistant_only_loss", [False, True], ids=["whole", "trl_assistant"])
@pytest.mark.parametrize("max_length", [24, 64, None])
def test_ids_labels_and_dropped_rows_equal_the_trainers(tiny_model, tmp_path, assistant_only_loss, max_length):
    talks = conversations(seed=7)
    options = {"max_length": max_length, "assistant_only_loss": assistant_only_loss}
    dataset = prepared(tiny_model, chats(talks), tmp_path, **options)
    rendered, _, fates = audited(tiny_model, sft_rows(talks), "sft", TRLSFT(**options))
    assert_equal_rows(dataset, rendered, fates)
    if assistant_only_loss and max_length == 24:
        assert "dropped" in fates["fate"].to_pylist(), "the conversations must try the dropping of masked rows"


@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_a_row_as_long_as_the_limit_is_whole_and_one_token_more_is_cut(tiny_model, tmp_path, beyond):
    talks = conversations(seed=3, count=6)
    rendered, _, _ = audited(tiny_model, sft_rows(talks), "sft", TRLSFT(max_length=None))
    longest = max(len(item.ids) for item in rendered)
    options = {"max_length": longest - beyond, "assistant_only_loss": True}
    dataset = prepared(tiny_model, chats(talks), tmp_path, **options)
    rendered, _, fates = audited(tiny_model, sft_rows(talks), "sft", TRLSFT(**options))
    assert_equal_rows(dataset, rendered, fates)
    assert ("cut" in fates["fate"].to_pylist()) == (beyond == 1)


@pytest.mark.parametrize("assistant_only_loss", [False, True], ids=["whole", "trl_assistant"])
@pytest.mark.parametrize(("max_length", "count"), [(32, 200), (100, 1_300)])
def test_packed_sequences_equal_the_trainers(tiny_model, tmp_path, assistant_only_loss, max_length, count):
    talks = conversations(seed=11, count=count)
    options = {"max_length": max_length, "assistant_only_loss": assistant_only_loss, "packing": True}
    dataset = prepared(tiny_model, chats(talks), tmp_path, **options)
    rendered, _, fates = audited(tiny_model, sft_rows(talks), "sft", TRLSFT(**options))
    bins: dict[int, list[int]] = {}
    for number, index in enumerate(fates["bin"].to_pylist()):
        bins.setdefault(index, []).append(number)
    assert sorted(bins) == list(range(len(dataset)))
    for index, row in enumerate(dataset):
        # A bin holds its rows longest first; those of equal length in their order.
        members = sorted(bins[index], key=lambda number: (-fates["kept_tokens"][number].as_py(), number))
        lengths = [fates["kept_tokens"][number].as_py() for number in members]
        ids = np.concatenate([rendered[n].ids[:length] for n, length in zip(members, lengths, strict=True)])
        mask = np.concatenate([rendered[n].mask[:length] for n, length in zip(members, lengths, strict=True)])
        assert row["seq_lengths"] == lengths
        assert row["input_ids"] == ids.tolist()
        assert row["labels"] == np.where(mask, ids, -100).tolist()


def test_packing_keeps_rows_and_bins_that_train_nothing(tiny_model, tmp_path):
    talks = [[{"role": "user", "content": "x " * 300}, {"role": "assistant", "content": "12"}]]
    options = {"max_length": 64, "assistant_only_loss": True}
    assert audited(tiny_model, sft_rows(talks), "sft", TRLSFT(**options))[2]["fate"].to_pylist() == ["dropped"]
    dataset = prepared(tiny_model, chats(talks), tmp_path, **options, packing=True)
    fates = audited(tiny_model, sft_rows(talks), "sft", TRLSFT(**options, packing=True))[2]
    assert fates["fate"].to_pylist() == ["cut"]
    assert fates["kept_trained_tokens"].to_pylist() == [0] == [sum(x != -100 for x in dataset[0]["labels"])]


@pytest.mark.parametrize("max_length", [16, None])
def test_text_rows_get_their_end_token_as_the_trainer_adds_it(tiny_model, tmp_path, max_length):
    texts = ["plain", "already ended<|im_end|>", "東京 🙂", "trailing \n", "x " * 40, "<|im_end|> inside"]
    dataset = prepared(
        tiny_model, [{"text": text, "number": n} for n, text in enumerate(texts)], tmp_path, max_length=max_length
    )
    rows = pa.table({"text": pa.array(texts)})
    rendered, _, fates = audited(tiny_model, rows, "midtrain", TRLSFT(max_length=max_length))
    assert_equal_rows(dataset, rendered, fates)
