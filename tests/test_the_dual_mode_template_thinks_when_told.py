"""The dual-mode template on an adapted tokenizer: flags, thoughts, histories, tool calls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curation.auditing.adapt_command import adapt_to
from curation.rendering import Rendering, load_template, load_tokenizer
from curation.rendering.properties import LONG, LONG_PLAIN, PLAIN, user
from tests.llama_like import llama_like

TOOLS = json.dumps([{"type": "function", "function": {"name": "add", "parameters": {}}}])
SYSTEM = {"role": "system", "content": "Be kind."}


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dual")
    assert adapt_to(None, "chatml", str(llama_like(folder / "llama")), folder / "chatml", None).written
    return folder / "chatml"


def dual(adapted_tokenizer: Path, **kwargs: object) -> Rendering:
    tokenizer = load_tokenizer(None, str(adapted_tokenizer))
    return Rendering(tokenizer, load_template(None, "chatml_think", tokenizer), "trl_assistant", kwargs)


@pytest.mark.parametrize("tools", [None, TOOLS])
@pytest.mark.parametrize("system", [[], [SYSTEM]])
def test_the_dual_mode_system_block_is_closed_once_and_holds_date_mode_and_tools(adapted: Path, tools, system):
    text, _ = dual(adapted, date_string="3 May 2031").chat([*system, *PLAIN], tools)
    head = text[: text.index("<|im_start|>user")]
    assert head.startswith("<|im_start|>system\nToday is 3 May 2031. Reasoning mode: think.")
    assert head.count("<|im_end|>") == head.count("<|im_start|>") == 1 and head.endswith("<|im_end|>\n")
    assert ("Be kind." in head) is bool(system) and ('"name": "add"' in head) is (tools is not None)


@pytest.mark.parametrize(("system", "kwargs", "mode"), [
    ("Answer. /no_think", {}, "no_think"), ("/think Answer.", {"enable_thinking": False}, "think"),
    ("See example.org/thinking", {"enable_thinking": False}, "no_think"),
    ("Answer.", {"enable_thinking": True}, "think"), ("/no_think", {"enable_thinking": True}, "no_think"),
])  # fmt: skip
def test_a_flag_in_the_system_text_has_precedence_and_stays_there(adapted: Path, system: str, kwargs: dict, mode: str):
    turns = [{"role": "system", "content": system}, *PLAIN]
    text, spans = dual(adapted, **kwargs).chat(turns)
    assert f"Reasoning mode: {mode}.\n\n{system}<|im_end|>" in text
    prompt, _ = dual(adapted, **kwargs).chat(turns[:-1], prompt=True)
    assert text.startswith(prompt) and prompt.endswith("<think>\n\n</think>\n") is (mode == "no_think")
    assert [text[first:last] for first, last in spans or []] == ["ANSWER-ONE<|im_end|>"]


def test_a_thought_is_written_once_however_the_row_holds_it(adapted: Path):
    fields = [{"role": "assistant", "content": "4", "reasoning_content": "2 and 2"},
              {"role": "assistant", "content": "<think>\n2 and 2\n</think>\n\n4"},
              {"role": "assistant", "content": "<think>2 and 2</think>4"}]  # fmt: skip
    for mode in ({}, {"enable_thinking": False}):
        texts = {dual(adapted, **mode).chat([user("2+2?"), turn])[0] for turn in fields}
        assert len(texts) == 1 and texts.pop().count("<think>") == 1
    empty = {"role": "assistant", "content": "<think>\n\n</think>\n\n4"}
    text, spans = dual(adapted, enable_thinking=False).chat([user("2+2?"), empty])
    assert text.count("<think>") == 1 and [text[a:b] for a, b in spans or []] == ["4<|im_end|>"]


@pytest.mark.parametrize("thinking", [True, False])
def test_a_shorter_conversation_is_a_prefix_of_a_longer_one_in_both_modes(adapted: Path, thinking: bool):
    turns = LONG if thinking else LONG_PLAIN
    rendering = dual(adapted, enable_thinking=thinking)
    assert rendering.chat(turns)[0].startswith(rendering.chat(turns[:2])[0])
    for preserve in (True, False):
        rendering = dual(adapted, enable_thinking=thinking, preserve_thinking=preserve)
        assert rendering.chat(turns)[0].startswith(rendering.chat(turns[:-1], prompt=True)[0])


def test_a_history_without_thoughts_is_not_trained(adapted: Path):
    text, spans = dual(adapted, preserve_thinking=False).chat([dict(turn) for turn in LONG])
    assert "THOUGHT-ONE" not in text and "ANSWER-ONE" in text
    assert [text[first:last] for first, last in spans or []] == [
        "<think>\nTHOUGHT-TWO\n</think>\nANSWER-TWO<|im_end|>"]  # fmt: skip


def test_tool_calls_of_the_dual_mode_template_are_trained_and_their_loop_keeps_its_thoughts(adapted: Path):
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    turns = [user("1+1?"), {"role": "assistant", "content": "", "reasoning_content": "A sum.", "tool_calls": [call]},
             {"role": "tool", "content": "2"},
             {"role": "assistant", "content": "2", "reasoning_content": "Done."}]  # fmt: skip
    text, spans = dual(adapted, preserve_thinking=False).chat(turns, TOOLS)
    called = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call><|im_end|>'
    assert [text[first:last] for first, last in spans or []] == [
        f"<think>\nA sum.\n</think>\n{called}", "<think>\nDone.\n</think>\n2<|im_end|>"]  # fmt: skip
