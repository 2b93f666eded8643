"""Mirrors that were read and not run: what they say of themselves, dead options, and real rendered rows."""

from __future__ import annotations

import pyarrow as pa
import pytest

from curation.auditing.mirrors import Mirror
from curation.auditing.mirrors.axolotl_dpo import AxolotlDPO
from curation.auditing.mirrors.axolotl_pretrain import AxolotlPretrain
from curation.auditing.mirrors.axolotl_sft import AxolotlSFT
from curation.auditing.mirrors.llama_factory_dpo import LlamaFactoryDPO
from curation.auditing.mirrors.llama_factory_sft import (
    LlamaFactorySFT,
)  # fmt: skip
from tests.made_anatomy import ALL, anatomy, pairs, positions


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_every_mirror_says_that_it_was_read_and_takes_other_lengths(cls: type[Mirror]):
    assert cls.read_not_run.startswith(
        ("read in LLaMA-Factory 0.9.6.dev0 @ff6d4d1;", "read in axolotl 0.18.0 @067b021;")
    )
    mirror = cls()
    assert mirror.at(64).context_length == 64
    table = pairs([]) if cls.stages == ("preference",) else anatomy([])
    assert len(mirror.fates(table).fate) == 0
    assert mirror.refuses(table) == []


@pytest.mark.parametrize(("cls", "name"), [
    (LlamaFactorySFT, "max_source_length"), (LlamaFactorySFT, "reserved_label_len"), (LlamaFactoryDPO, "packing"),
    (AxolotlSFT, "max_packed_sequence_len"), (AxolotlDPO, "rpo_alpha"), (AxolotlPretrain, "max_packed_sequence_len"),
])  # fmt: skip
def test_options_of_the_past_are_told(cls, name):
    problems = cls.option_problems({name: 1})
    assert [problem.key for problem in problems] == [f"trainer.{name}"]
    assert "dead" in problems[0].what


def test_options_that_llama_factory_refuses_together_are_told():
    found = LlamaFactorySFT.option_problems({"mask_history": True, "train_on_prompt": True})
    assert "refuses mask_history together with train_on_prompt" in found[0].what
    assert LlamaFactorySFT.option_problems({"stage": "pt", "neat_packing": True})[0].key == "trainer.neat_packing"
    assert AxolotlSFT.option_problems({"roles_to_train": ["user"]})[0].key == "trainer.roles_to_train"
    assert AxolotlSFT.option_problems({"roles_to_train": ["assistant"], "train_on_eos": "turn"}) == []


def test_rendered_conversations_are_cut_where_their_turns_lie(tiny_model):
    """The same figures over rows that are really rendered, with the shipped ChatML template."""
    from curation import schema
    from curation.measures.anatomy import anatomy_for

    said = (("user", "What is 1 plus 2?" * 9), ("assistant", "3"), ("user", "And 2 plus 2?"), ("assistant", "4"))
    talk = [{"role": role, "content": text} for role, text in said]
    rows = pa.table({"messages": pa.array([talk, talk[:2]], schema.MESSAGES), "tools": pa.nulls(2, pa.string())})
    mirror = LlamaFactorySFT(cutoff_len=40)
    measure = anatomy_for(None, str(tiny_model), "tokenizer", mirror.rendering_path("sft", ["messages"]), {})
    table = measure.measure(rows, "sft")
    fates = mirror.fates(table)
    ids = measure.rendering.render_many(rows.to_pylist(), "sft")[0].ids
    kept = measure.rendering.tokenizer.hf.decode(ids[positions(fates, 0)])
    assert fates.kept.tolist() == [40, 40]
    assert kept.startswith("<|im_start|>user\nWhat is 1") and kept.rstrip().endswith("3<|im_end|>")
    assert "<|im_start|>assistant" not in kept, "the header of the answer is cut off with the end of the question"
    assert not fates.covers_start().any()
