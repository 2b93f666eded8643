"""Prompts: the template's arguments, one beginning-of-sequence token, every end token."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from curation.checkpoints import Checkpoint
from curation.config import SHIPPED
from curation.errors import UserError
from evals.benchmarks import Benchmark, Item, Task
from evals.prompting import Prompting, request_set, stop_ids

CHECKPOINT = Checkpoint(run="r", step=1, path="x", weights="full", weights_hash="a" * 32)
CHATML = (SHIPPED / "templates" / "chatml.jinja").read_text()
QUESTION = [{"role": "user", "content": "Hello"}]


def asked(folder: Path, template: str | None = CHATML, bos: bool = False, **kwargs: Any) -> Prompting:
    from transformers import AutoTokenizer

    hf = AutoTokenizer.from_pretrained(folder)
    if bos:
        from tokenizers.processors import TemplateProcessing

        hf.add_special_tokens({"bos_token": "<|bos|>"})
        hf.backend_tokenizer.post_processor = TemplateProcessing(
            single="<|bos|> $A", special_tokens=[("<|bos|>", hf.bos_token_id)]
        )
    tokenizer: Any = SimpleNamespace(hf=hf, fingerprint="t")
    shape: Any = None if template is None else SimpleNamespace(name="own", text=template, fingerprint="f")
    return Prompting(CHECKPOINT, tokenizer, shape, kwargs, folder, folder, (2,))


def test_a_plain_prompt_begins_with_the_one_token_that_the_tokenizer_would_add(tiny_model):
    plain = asked(tiny_model, bos=True)
    text = plain.text(QUESTION, "plain")
    assert text == "<|bos|>Hello"
    assert plain.ids(text).count(plain.tokenizer.hf.bos_token_id) == 1
    assert asked(tiny_model).text(QUESTION, "plain") == "Hello"


def test_a_template_that_writes_the_beginning_token_does_not_get_a_second_one(tiny_model):
    chat = asked(tiny_model, template="<|bos|>" + CHATML, bos=True)
    assert chat.ids(chat.text(QUESTION, "chat")).count(chat.tokenizer.hf.bos_token_id) == 1


def test_template_arguments_reach_the_template(tiny_model):
    template = "{{ messages[0].content }}{{ '' if enable_thinking | default(true) else '<think></think>' }}"
    assert asked(tiny_model, template).text(QUESTION, "chat") == "Hello"
    assert asked(tiny_model, template, enable_thinking=False).text(QUESTION, "chat") == "Hello<think></think>"


def test_an_answer_ends_at_every_end_token_that_model_template_or_tokenizer_names(tiny_model, tmp_path):
    both = asked(tiny_model)
    hf = both.tokenizer.hf
    end_of_turn = hf.convert_tokens_to_ids("<|im_end|>")
    hf.eos_token = "<|pad|>"  # a base tokenizer whose end of text is not the template's end of turn
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 8]}')
    assert stop_ids(both.tokenizer, both.template, {}, tmp_path) == tuple(sorted({hf.eos_token_id, end_of_turn, 7, 8}))
    assert stop_ids(both.tokenizer, None, {}, tiny_model) == tuple(sorted({hf.eos_token_id, end_of_turn}))


def test_a_chat_prompt_without_a_template_says_what_to_set(tiny_model):
    with pytest.raises(UserError, match="no chat template; set 'template'"):
        asked(tiny_model, template=None).text(QUESTION, "chat")


def test_a_template_that_raises_is_one_clear_error(tiny_model):
    with pytest.raises(UserError, match="raises: roles must alternate"):
        asked(tiny_model, "{{ raise_exception('roles must alternate') }}").text(QUESTION, "chat")


def test_every_item_is_asked_once_per_repeat_with_its_system_prompt(tiny_model):
    benchmark = Benchmark(data="x", question="q", system="Be brief.", repeats=2, temperature=0.5, max_new_tokens=8)
    task = Task("t", benchmark, (Item("a", "1+1", "2", "a"), Item("b", "1+2", "3", "b")), "f")
    made = request_set(task, asked(tiny_model))
    assert [(item.sample_id, item.repeat) for item in made.requests] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert made.requests[0].prompt.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1+1")
    assert made.sampling == {"temperature": 0.5, "top_p": 1.0, "seed": 0}


def test_options_after_a_plain_prompt_begin_with_a_space_and_after_a_chat_prompt_with_none(tiny_model):
    item = Item("a", "1+1", "B", "a", ("3", "2"), 1)
    for prompt, options in (("plain", (" 3", " 2")), ("chat", ("3", "2"))):
        benchmark = Benchmark.model_validate(
            {"data": "x", "question": "q", "kind": "choice", "choices": "o", "prompt": prompt}
        )
        made = request_set(Task("t", benchmark, (item,), "f"), asked(tiny_model))
        assert made.requests[0].options == options
