"""The mirror of TRL SFT against the installed SFTTrainer: ids, labels, dropped rows, bins."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curation import schema
from curation.auditing.mirrors.trl_sft import TRLSFT
from curation.config import SHIPPED
from curation.measures.anatomy import anatomy_for
from curation.rendering import template_messages
from curation.rendering.render import split_completion
from curation.rendering.templates import GENERATION
from tests.talks import TOOLS, conversations


def prepared(model: Path, rows: list[dict[str, Any]], folder: Path, **options: Any) -> Any:
    """The dataset that the installed SFTTrainer trains on. `number` does not survive its packing."""
    import datasets
    from trl import SFTConfig, SFTTrainer

    arguments = SFTConfig(
        output_dir=str(folder), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none", **options
    )
    return SFTTrainer(str(model), args=arguments, train_dataset=datasets.Dataset.from_list(rows)).train_dataset


def chats(talks: list[list[dict[str, Any]]], *, completions: bool = False) -> list[dict[str, Any]]:
    """Conversations as TRL takes them; every third one has tools."""
    found = []
    for number, talk in enumerate(talks):
        turns: dict[str, Any] = {"messages": template_messages(talk)}
        if completions:
            prompt, answer = split_completion(talk)
            turns = {"prompt": template_messages(prompt), "completion": template_messages(answer)}
        found.append(turns | {"tools": TOOLS if number % 3 == 0 else None, "number": number})
    return found


def audited(model: Path, rows: pa.Table, stage: str, mirror: TRLSFT) -> tuple[list[Any], pa.Table, pa.Table]:
    """What kedge says of the same rows: rendered rows, anatomy, fates."""
    filled = [name for name in ("text", "messages") if name in rows.column_names]
    measure = anatomy_for(None, str(model), "tokenizer", mirror.rendering_path(stage, filled), {})
    anatomy = measure.measure(rows, stage)
    return measure.rendering.render_many(rows.to_pylist(), stage), anatomy, mirror.fates(anatomy).table()


def sft_rows(talks: list[list[dict[str, Any]]]) -> pa.Table:
    tools = [TOOLS if number % 3 == 0 else None for number in range(len(talks))]
    return pa.table({"messages": pa.array(talks, schema.MESSAGES), "tools": pa.array(tools, pa.string())})


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


def pieces_of(fates: pa.Table, number: int) -> list[dict[str, int]]:
    """Where the kept tokens of a row lie: its pieces, or its first tokens."""
    pieces = fates["pieces"][number].as_py()
    kept = fates["kept_tokens"][number].as_py()
    return [{"start": 0, "length": kept, "bin": fates["bin"][number].as_py()}] if pieces is None else pieces


def kept_of(rendered: Any, piece: dict[str, int]) -> tuple[list[int], list[int]]:
    """(ids, labels) of one piece of a rendered row."""
    of = slice(piece["start"], piece["start"] + piece["length"])
    return rendered.ids[of].tolist(), np.where(rendered.mask, rendered.ids, -100)[of].tolist()


@pytest.mark.parametrize("assistant_only_loss", [False, True], ids=["whole", "trl_assistant"])
@pytest.mark.parametrize("max_length", [24, 64])
def test_the_end_that_keep_end_keeps_is_the_trainers(tiny_model, tmp_path, assistant_only_loss, max_length):
    talks = conversations(seed=5)
    options = {"max_length": max_length, "assistant_only_loss": assistant_only_loss, "truncation_mode": "keep_end"}
    dataset = prepared(tiny_model, chats(talks), tmp_path, **options)
    rendered, _, fates = audited(tiny_model, sft_rows(talks), "sft", TRLSFT(**options))
    kept = [number for number, fate in enumerate(fates["fate"].to_pylist()) if fate != "dropped"]
    assert dataset["number"][:] == kept
    for row, number in zip(dataset, kept, strict=True):
        (piece,) = pieces_of(fates, number)
        assert (row["input_ids"], row["labels"]) == kept_of(rendered[number], piece)


@pytest.mark.parametrize("max_length", [24, 64, None])
def test_the_last_answer_alone_is_trained_as_the_trainer_does(tiny_model, tmp_path, max_length):
    talks = conversations(seed=13)
    options = {"max_length": max_length, "completion_only_loss": True}
    dataset = prepared(tiny_model, chats(talks, completions=True), tmp_path, **options)
    rendered, _, fates = audited(tiny_model, sft_rows(talks), "sft", TRLSFT(**options))
    assert_equal_rows(dataset, rendered, fates)
    assert any(item.mask.any() and not item.mask.all() for item in rendered)


@pytest.mark.parametrize("assistant_only_loss", [False, True], ids=["whole", "trl_assistant"])
@pytest.mark.parametrize(("max_length", "count"), [(32, 200), (100, 1_300)])
@pytest.mark.parametrize("strategy", ["bfd_split", "wrapped"])
def test_split_rows_lie_where_the_trainer_puts_them(tiny_model, tmp_path, strategy, max_length, count,
                                                    assistant_only_loss):  # fmt: skip
    talks = conversations(seed=17, count=count)
    options = {"max_length": max_length, "packing": True, "packing_strategy": strategy,
               "assistant_only_loss": assistant_only_loss}  # fmt: skip
    dataset = prepared(tiny_model, chats(talks), tmp_path, **options)
    rendered, _, fates = audited(tiny_model, sft_rows(talks), "sft", TRLSFT(**options))
    bins: dict[int, list[tuple[int, int, dict[str, int]]]] = {}
    for number in range(count):
        for piece in pieces_of(fates, number):
            # A packed sequence holds its documents longest first; a wrapped one in the order of the rows.
            rank = -piece["length"] if strategy == "bfd_split" else 0
            bins.setdefault(piece["bin"], []).append((rank, number, piece))
    assert sorted(bins) == list(range(len(dataset)))
    for index, row in enumerate(dataset):
        members = sorted(bins[index], key=lambda item: (*item[:2], item[2]["start"]))
        if strategy == "bfd_split":
            assert row["seq_lengths"] == [piece["length"] for _, _, piece in members]
        parts = [kept_of(rendered[number], piece) for _, number, piece in members]
        assert row["input_ids"] == [token for ids, _ in parts for token in ids]
        assert row["labels"] == [label for _, labels in parts for label in labels]
    trained = sum(label != -100 for row in dataset for label in row["labels"])
    assert sum(fates["kept_trained_tokens"].to_pylist()) == trained
    assert "split" in fates["fate"].to_pylist()


def test_padding_free_cuts_nothing_and_is_refused_with_a_limit(tiny_model, tmp_path):
    talks = conversations(seed=19, count=30)
    dataset = prepared(tiny_model, chats(talks), tmp_path, max_length=None, padding_free=True)
    rendered, _, fates = audited(tiny_model, sft_rows(talks), "sft", TRLSFT(max_length=None, padding_free=True))
    assert_equal_rows(dataset, rendered, fates)
    with pytest.raises(ValueError, match="max_length"):
        prepared(tiny_model, chats(talks), tmp_path, max_length=64, padding_free=True)
    mirror = TRLSFT(max_length=64, padding_free=True)
    _, anatomy, _ = audited(tiny_model, sft_rows(talks), "sft", mirror)
    assert any("padding_free" in reason for reason in mirror.refuses(anatomy))


@pytest.mark.parametrize("name", ["qwen3", "qwen3_training", "qwen2_5", "chatml_think"])
def test_ids_and_labels_equal_the_trainers_under_other_templates(tiny_model, tmp_path, name):
    import trl

    shipped = SHIPPED / "templates" / f"{name}.jinja"
    path = shipped if shipped.is_file() else Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja"
    if not path.is_file():
        pytest.skip(f"TRL ships no {name}.jinja")
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    (model / "chat_template.jinja").write_text(path.read_text())
    talks = [talk for talk in conversations(seed=23, count=60) if talk[0]["role"] != "tool"]
    marked = GENERATION.search(path.read_text()) is not None
    options = {"max_length": 80, "assistant_only_loss": marked}
    dataset = prepared(model, chats(talks), tmp_path / "out", **options)
    rendered, _, fates = audited(model, sft_rows(talks), "sft", TRLSFT(**options))
    assert_equal_rows(dataset, rendered, fates)
