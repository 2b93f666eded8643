"""Templates fitted to base tokenizers: special strings on reserved tokens, ordinary text as before, rows to train."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.auditing.adapt_command import adapt_to, publish
from curation.config import SHIPPED
from curation.errors import UserError
from curation.rendering import Template, load_tokenizer
from curation.rendering.adapting import adapt, special_strings, unused_tokens
from curation.rendering.properties import user
from tests import REAL_DATA
from tests.llama_like import llama_like, llama_model

CHATML = (SHIPPED / "templates" / "chatml.jinja").read_text()
NEEDED = ["<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>", "<think>", "</think>"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama_like(tmp_path_factory.mktemp("base") / "llama")


@pytest.fixture(scope="module")
def adapted(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapted") / "chatml"
    assert adapt_to(None, "chatml", str(base), folder, None).written
    return folder


def test_special_strings_take_reserved_ids_in_order_and_nothing_else_moves(base: Path, adapted: Path):
    from transformers import AutoTokenizer

    before, after = (AutoTokenizer.from_pretrained(folder) for folder in (base, adapted))
    first = before.convert_tokens_to_ids("<|reserved_special_token_0|>")
    order = special_strings(Template("c", CHATML, "0"), load_tokenizer(None, str(base)))
    assert sorted(order) == sorted(NEEDED)
    assert [after.convert_tokens_to_ids(text) for text in order] == list(range(first, first + 6))
    old, new = before.get_vocab(), after.get_vocab()
    renamed = {f"<|reserved_special_token_{i}|>" for i in range(7)}  # six strings and a pad
    assert {text: number for text, number in old.items() if text not in renamed} == {
        text: number for text, number in new.items() if text not in {*NEEDED, "<|pad|>"}}  # fmt: skip
    assert len(after) == len(before) and sorted(new.values()) == sorted(old.values())
    assert after.chat_template == CHATML and after.decode([new["<think>"]], skip_special_tokens=True) == "<think>"
    assert all(after.encode(text, add_special_tokens=False) == [new[text]] for text in NEEDED)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert not any(text in (adapted / name).read_text() for text in renamed)


PIECES = [
    "<",
    "|",
    ">",
    "<|",
    "|>",
    "im_start",
    "think",
    "</",
    "\n\n",
    "  ",
    "What is",
    "東京",
    "<tool",
    "\u00a0",
    "🙂",
]
ORDINARY = st.lists(st.one_of(st.text(max_size=20), st.sampled_from(PIECES)), max_size=12).map("".join)


@settings(max_examples=300, deadline=None)
@given(text=ORDINARY)
def test_ordinary_text_is_encoded_exactly_as_before(base: Path, adapted: Path, text: str):
    before, after = (load_tokenizer(None, str(folder)).hf for folder in (base, adapted))
    specials = {*NEEDED, "<|pad|>", *map(str, before.added_tokens_decoder.values())}
    if not any(special in text for special in specials):
        assert before.encode(text) == after.encode(text)
        assert before.encode(text, add_special_tokens=False) == after.encode(text, add_special_tokens=False)


def test_ends_and_pad_are_written_where_trainers_and_servers_read_them(base: Path, adapted: Path):
    from transformers import AutoTokenizer, GenerationConfig

    before, after = (AutoTokenizer.from_pretrained(folder) for folder in (base, adapted))
    assert (after.eos_token, after.pad_token, after.bos_token) == ("<|im_end|>", "<|pad|>", "<|begin_of_text|>")
    assert after.pad_token_id == before.convert_tokens_to_ids("<|reserved_special_token_6|>")
    generation = GenerationConfig.from_pretrained(adapted)
    assert generation.eos_token_id == [after.eos_token_id, before.eos_token_id]
    assert generation.pad_token_id == after.pad_token_id and generation.temperature == 0.6


def test_a_template_that_leaves_out_the_beginning_that_the_base_writes_is_told_so(base: Path):
    tokenizer = load_tokenizer(None, str(base))
    assert adapt(Template("c", CHATML, "0"), tokenizer).begins == "<|begin_of_text|>"
    assert adapt(Template("c", "{{ bos_token }}" + CHATML, "0"), tokenizer).begins is None


def test_a_base_without_reserved_tokens_grows_to_a_multiple_of_64_or_uses_padded_rows(tmp_path: Path):
    base = llama_like(tmp_path / "base", reserved=0)
    tokenizer = load_tokenizer(None, str(base))
    size = len(tokenizer.hf)
    grown = adapt(Template("c", CHATML, "0"), tokenizer)
    assert [token.place for token in grown.tokens] == ["new"] * 6
    assert [token.id for token in grown.tokens] == list(range(size, size + 6))
    assert grown.rows_needed % 64 == 0 and size + 6 <= grown.rows_needed < size + 6 + 64
    assert grown.pad == ("<|end_of_text|>", tokenizer.hf.eos_token_id)  # the former end, as Qwen has it
    padded = adapt(Template("c", CHATML, "0"), tokenizer, size + 4)
    assert [token.place for token in padded.tokens] == ["padded"] * 4 + ["new"] * 2
    assert adapt(Template("c", CHATML, "0"), tokenizer, size + 6).rows_needed == size + 6


def test_names_of_unused_tokens_are_known_and_what_text_could_use_is_not_taken(tmp_path: Path):
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["[UNK]", "hello", "[UNUSED3]", "[unused4]", "<extra_id_0>", "<unused12>", "[", "]", "un", "##used"]
    splits = {"punctuation": pre_tokenizers.BertPreTokenizer(), "spaces": pre_tokenizers.WhitespaceSplit()}
    for name, split in splits.items():
        core = Tokenizer(models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
        core.pre_tokenizer = split
        core.add_tokens([AddedToken("<unused12>", normalized=False)])
        PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]").save_pretrained(tmp_path / name)
    taken = {name: list(unused_tokens(load_tokenizer(None, str(tmp_path / name))).values()) for name in splits}
    assert taken["punctuation"] == ["[UNUSED3]", "[unused4]", "<extra_id_0>", "<unused12>"]
    assert taken["spaces"] == ["<unused12>"]  # the others are words that white space sets apart
    found = adapt_to(None, "chatml", str(tmp_path / "punctuation"), tmp_path / "to", None)
    assert [token.place for token in found.adaptation.tokens] == ["renamed"] * 4 + ["new"] * 3
    written = load_tokenizer(None, str(tmp_path / "to")).hf
    assert [written.encode(token.text, add_special_tokens=False) for token in found.adaptation.tokens] == [
        [token.id] for token in found.adaptation.tokens]  # fmt: skip


def test_a_unigram_base_with_sentinels_is_adapted_too(tmp_path: Path):
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = [
        ("<unk>", 0.0),
        ("</s>", 0.0),
        *((f"<extra_id_{i}>", 0.0) for i in range(8)),
        ("▁he", -1.0),
        ("llo", -2.0),
    ]
    core = Tokenizer(models.Unigram(pieces, unk_id=0))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.add_special_tokens([AddedToken(f"<extra_id_{i}>", special=True, lstrip=True) for i in range(8)])
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", unk_token="<unk>").save_pretrained(tmp_path / "b")
    found = adapt_to(None, "chatml", str(tmp_path / "b"), tmp_path / "to", None)
    assert [token.was for token in found.adaptation.tokens] == [f"<extra_id_{i}>" for i in range(7)]
    opening = next(token.id for token in found.adaptation.tokens if token.text == "<think>")
    assert load_tokenizer(None, str(tmp_path / "to")).hf.encode("<think>hello") == [opening, 10, 11]


CHAT = [user("What is 1 plus 2?"), {"role": "assistant", "content": "3"}]


def changed_rows(model, before: list[np.ndarray]) -> list[set[int]]:
    """Of the input and the output embeddings, the rows that training changed."""
    merged = model.merge_and_unload()
    after = [matrix.weight.detach().numpy() for matrix in (merged.model.embed_tokens, merged.lm_head)]
    return [set(np.flatnonzero(np.abs(old - new).max(axis=1) > 1e-6)) for old, new in zip(before, after, strict=True)]


def loaded(base: Path) -> tuple:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    return model, [matrix.weight.detach().clone().numpy() for matrix in (model.model.embed_tokens, model.lm_head)]


def sft_steps(model, adapted: Path, run: Path, options: dict) -> object:
    """Two real steps of TRL's trainer under LoRA; the trained model."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    config = SFTConfig(output_dir=str(run), max_steps=2, learning_rate=0.1, per_device_train_batch_size=2, bf16=False,
                       assistant_only_loss=True, report_to="none", use_cpu=True, save_strategy="no")  # fmt: skip
    lora = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], **options)
    trainer = SFTTrainer(model, config, train_dataset=Dataset.from_list([{"messages": CHAT}] * 4), peft_config=lora,
                         processing_class=AutoTokenizer.from_pretrained(adapted))  # fmt: skip
    trainer.train()
    return trainer.model


@pytest.mark.parametrize("tied", [True, False])
def test_rows_are_measured_and_trained_by_real_steps_of_trl_under_lora(tmp_path: Path, tied: bool):
    base = llama_model(llama_like(tmp_path / "model"), tied=tied)
    found = adapt_to(None, "chatml", str(base), tmp_path / "adapted", None)
    assert found.tied is tied and found.passed and list(found.measured) == ["embed_tokens", "lm_head"][: 2 - tied]
    assert {row.verdict for rows in found.measured.values() for row in rows.values()} == {"untrained"}
    assert len(found.rows_to_train) == 6 and found.adaptation.pad[1] not in found.rows_to_train
    model, before = loaded(base)
    options = found.lora[f"TRL, {'' if tied else 'un'}tied embeddings"]
    inputs, outputs = changed_rows(sft_steps(model, tmp_path / "adapted", tmp_path / "run", options), before)
    end, seen = found.adaptation.eos[1], {found.adaptation.tokens[0].id, found.adaptation.eos[1]}
    assert end in outputs and seen <= inputs
    assert tied or inputs <= set(found.rows_to_train)
    assert not tied or inputs == outputs


@pytest.mark.parametrize("tied", [True, False])
def test_peft_alone_trains_exactly_the_named_rows(tmp_path: Path, tied: bool):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoTokenizer

    base = llama_model(llama_like(tmp_path / "model"), tied=tied)
    found = adapt_to(None, "chatml", str(base), tmp_path / "adapted", None)
    model, before = loaded(base)
    options = found.lora[f"peft alone, {'' if tied else 'un'}tied embeddings"]
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], **options))
    ids = AutoTokenizer.from_pretrained(tmp_path / "adapted").apply_chat_template(CHAT, return_tensors="pt")[
        "input_ids"
    ]
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=100.0)
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    inputs, outputs = changed_rows(model, before)
    assert outputs == set(found.rows_to_train) and inputs <= outputs and found.adaptation.eos[1] in inputs


def test_the_installed_trl_cannot_train_single_rows_of_the_output_layer(tmp_path: Path):
    """Why another option is printed for TRL: where this fails after an update, `peft alone` serves it too."""
    base = llama_model(llama_like(tmp_path / "model"), tied=True)
    found = adapt_to(None, "chatml", str(base), tmp_path / "adapted", None)
    with pytest.raises(AttributeError, match="bias"):
        sft_steps(loaded(base)[0], tmp_path / "adapted", tmp_path / "run", found.lora["peft alone, tied embeddings"])


def test_tokens_that_the_base_has_but_never_trained_are_to_be_trained(tmp_path: Path):
    base = llama_like(tmp_path / "model")
    names = {"<|reserved_special_token_0|>": "<|im_start|>", "<|reserved_special_token_1|>": "<|im_end|>"}
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (base / name).read_text()
        for old, new in names.items():
            text = text.replace(old, new)
        (base / name).write_text(text)
    llama_model(base, tied=True)
    found = adapt_to(None, "chatml", str(base), tmp_path / "adapted", None)
    kept = [token for token in found.adaptation.tokens if token.place == "kept"]
    assert [token.text for token in kept] == ["<|im_start|>", "<|im_end|>"]
    assert {token.id for token in kept} <= set(found.rows_to_train)


def test_random_weights_cannot_be_told_apart_and_say_so(tiny_model: Path, tmp_path: Path):
    found = adapt_to(None, "chatml", str(tiny_model), tmp_path / "to", None)
    assert {row.verdict for row in found.measured["embed_tokens"].values()} == {"unclear"}
    assert found.rows_to_train == [token.id for token in found.adaptation.tokens if token.place == "new"]


def test_the_command_prints_what_to_train_and_is_done_once(base: Path, tmp_path: Path, kedge, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ("template", "adapt", "chatml_think", "--tokenizer", base, "--to", "new/folder")
    code, out, err = kedge(*arguments)
    assert code == 0, err
    assert "new/folder: written" in out and "chatml_think: PASSED" in out
    printed = yaml.safe_load(out.split("# TRL, untied embeddings\n")[1].split("#")[0])
    stamps = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "new/folder").iterdir()}
    assert sorted(stamps) == [
        "chat_template.jinja",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    code, out, _ = kedge(*arguments, "--json")
    value = json.loads(out)
    assert code == 0 and value["written"] is False and value["passed"] and len(value["rows_to_train"]) == 6
    assert printed == {"lora": value["lora"]["TRL, untied embeddings"]}
    assert stamps == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "new/folder").iterdir()}
    code, _, err = kedge("template", "adapt", "chatml", "--tokenizer", base, "--to", "new/folder")
    assert code == 2 and "holds something else already" in err
    code, out, _ = kedge("template", "adapt", "new/folder", "--tokenizer", "new/folder", "--to", "again", "--parent",
                         "new/folder")  # fmt: skip
    assert code == 0 and "renamed" not in out and "same new/folder" in out


@pytest.mark.parametrize(("text", "code", "message"), [
    ("{% for m in messages %}", 2, "is no Jinja template"),
    ("{{ raise_exception('no') }}", 2, "raises on every conversation, on a plain one with: no"),
    ("{% for m in messages %}<|a|>{{ m.content }}{% endfor %}", 1, "FAILED"),
])  # fmt: skip
def test_a_template_that_cannot_be_used_is_said_to_be_so(base, tmp_path, kedge, monkeypatch, text, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.jinja").write_text(text)
    found, out, err = kedge("template", "adapt", "mine.jinja", "--tokenizer", base, "--to", "made")
    assert found == code and message in out + err and "Traceback" not in err
    assert (tmp_path / "made").exists() is (code == 1)
    assert not list(tmp_path.glob(".made.*"))


def test_a_command_killed_between_write_and_rename_leaves_nothing_and_the_next_one_finishes(base: Path, tmp_path: Path):
    code = (
        "import os, signal, sys; from pathlib import Path; from curation import cli\n"
        "Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "cli.run(sys.argv[1:])"
    )
    arguments = ["template", "adapt", "chatml", "--tokenizer", str(base), "--to", str(tmp_path / "made")]
    killed = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, check=False, cwd=tmp_path)
    assert killed.returncode == -9, killed.stderr
    assert not (tmp_path / "made").exists()
    assert len(list(tmp_path.glob(".made.*.tmp"))) == 1
    assert adapt_to(None, "chatml", str(base), tmp_path / "made", None).written
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_writer_that_fails_publishes_nothing(tmp_path: Path):
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise UserError("no")

    with pytest.raises(UserError):
        publish(tmp_path / "made", fail)
    assert not list(tmp_path.iterdir())


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "places"), [("qwen2.5", {"kept": 4, "new": 2}), ("gpt2", {"new": 6})])
def test_real_tokenizers_are_adapted_and_encode_real_text_as_before(tmp_path: Path, name: str, places: dict[str, int]):
    import gzip

    folder = REAL_DATA / "tokenizers" / name
    found = adapt_to(None, "chatml_think", str(folder), tmp_path / "made", None)
    counted = [token.place for token in found.adaptation.tokens]
    assert {place: counted.count(place) for place in counted} == places and found.passed
    before, after = (load_tokenizer(None, str(path)).hf for path in (folder, tmp_path / "made"))
    with gzip.open(REAL_DATA / "midtrain" / "c4_demo.jsonl.gz", "rt") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    assert before(texts)["input_ids"] == after(texts)["input_ids"]
    if name == "gpt2":
        assert found.adaptation.rows_needed == 50304 and found.adaptation.pad[0] == "<|endoftext|>"
