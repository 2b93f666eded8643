"""What annotators see: every text as what it is, within the limits of a chat field, and nothing that a browser runs."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.annotation.rendering import (
    JOINER,
    MAX_MESSAGES,
    as_written,
    candidate,
    chat,
    markdown,
    num_chars,
    plain,
    refusal,
)
from tests.annotated import turn

CALLS = '[{"id": "1", "function": {"name": "weather", "arguments": "{\\"city\\": \\"Bern\\"}"}}]'
TAG = re.compile(r"<[A-Za-z/!?]")


@pytest.mark.parametrize("text", [
    "<think>two and two</think>4", "a <script>alert(1)</script>", "<iframe src=x></iframe>", "<img src=x onerror=y()>",
    "<object data='javascript:x'>", "`<b>` and <b>", "```html\n<div>\n```\n<p>", "```\n<div>", "$<img src=x>$",
    "$$\n```\n$$\n<img src=x>", "~~~\n```\n<x>\n~~~\n<y>", "<!-- hidden -->", "<?php", "</answer>", "<http://x.y>",
])  # fmt: skip
def test_a_tag_is_text_wherever_it_stands(text):
    shown = markdown(text)
    assert not TAG.search(shown)
    assert re.sub(r"\s", "", as_written(shown)).rstrip("`") == re.sub(r"\s", "", text).rstrip("`")


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="<>!/ab$`~\\([])&;#\n \t*-_|1.", max_size=60))
def test_no_text_whatever_leaves_a_tag_or_a_picture(text):
    shown = markdown(text)
    assert not TAG.search(shown) and "![" not in shown
    assert not TAG.search(candidate([turn("assistant", text)]))


def test_pictures_are_links_that_nobody_follows_unasked():
    assert markdown("![x](http://a.b/c.png)") == f"!{JOINER}[x](http://a.b/c.png)"


def test_entities_stay_what_was_written():
    assert markdown("&lt;b&gt; & c") == "&amp;lt;b&amp;gt; & c"
    assert markdown("`&lt;`") == "`&lt;`"


def test_mathematics_is_written_as_pages_know_it():
    assert markdown(r"so \(x^2\) holds") == "so  $x^2$  holds"
    assert markdown("then \\[\na = b\n\\] ends") == "then \n\n$$\na = b\n$$\n\n ends"
    assert markdown("$a<b$ and a < b") == "$a< b$ and a < b"
    assert markdown(r"`\(x\)`") == r"`\(x\)`"
    assert markdown("```\n\\(x\\)\n```") == "```\n\\(x\\)\n```"


def test_line_breaks_stay_and_blocks_stay_blocks():
    assert markdown("one\ntwo\n\nthree") == "one\\\ntwo\n\nthree"
    for block in ("- a\n- b", "1. a\n2. b", "# a\n# b", "|a|b|\n|-|-|", "> a\n> b", "$$\nx\ny\n$$", "    a\n    b"):
        assert markdown(block) == block
    assert markdown("a\r\nb") == "a\\\nb"


def test_a_fence_that_is_never_closed_is_closed():
    assert markdown("```py\nx = 1") == "```py\nx = 1\n```"
    assert markdown("````\n```\nx") == "````\n```\nx\n````"


def test_tool_calls_results_reasoning_and_names_are_text():
    answer = {"role": "assistant", "content": None, "reasoning": "hm <b>", "tool_calls": CALLS}
    shown = candidate([answer])
    assert shown == f'*Reasoning:*\n\nhm <{JOINER}b>\n\n*Tool calls:*\n\n```\nweather({{"city": "Bern"}})\n```'
    result = {"role": "tool", "content": "12 degrees", "name": "weather", "tool_call_id": "1"}
    talk = chat([turn("user", "How warm?"), answer, result], '[{"name": "weather"}]')
    assert [message["role"] for message in talk] == ["tools", "user", "assistant", "tool"]
    assert '{"name": "weather"}' in talk[0]["content"] and talk[3]["content"] == "*weather · 1*\n\n12 degrees"
    assert all(message["content"] and set(message) == {"role", "content"} for message in talk)


def test_tool_calls_that_are_no_calls_are_shown_as_they_are():
    for text in ("not json", '{"a": 1}', "[1]", '[{"function": 3}]', '[{"name": "f", "arguments": {"a": "```"}}]'):
        shown = candidate([{"role": "assistant", "content": None, "tool_calls": text}])
        assert (text if "```" not in text else "````\nf(") in shown


def test_nothing_said_is_shown_as_nothing():
    assert chat([turn("user", ""), {"role": "assistant", "content": None}]) == [
        {"role": "user", "content": "*(empty)*"}, {"role": "assistant", "content": "*(empty)*"}]  # fmt: skip
    assert candidate([turn("assistant", " \n")]) == "*(empty)*" == candidate([])


def test_an_answer_of_several_turns_names_who_speaks():
    turns = [turn("assistant", "a"), turn("user", "b"), turn("assistant", "c")]
    assert candidate(turns) == "**assistant**\n\na\n\n**user**\n\nb\n\n**assistant**\n\nc"
    assert candidate([turn("assistant", "a")]) == "a"


def test_a_long_message_goes_on_in_the_next_and_loses_no_word():
    words = [f"word{n}" for n in range(9000)]
    talk = chat([turn("user", " ".join(words)), turn("assistant", "x" * 40_000)])
    assert all(1 <= len(message["content"]) <= 20_000 and len(message["role"]) <= 20 for message in talk)
    assert [message["role"] for message in talk[:2]] == ["user 1/6", "user 2/6"]
    said = " ".join(message["content"] for message in talk if message["role"].startswith("user"))
    assert said.split() == words
    assert "".join(message["content"] for message in talk if message["role"].startswith("assistant")) == "x" * 40_000


def test_code_that_goes_on_in_the_next_message_stays_code():
    code = "```py\n" + "".join(f"line_{n} = {n}\n" for n in range(3000)) + "```"
    talk = chat([turn("user", code)])
    assert len(talk) > 2
    for message in talk:
        assert message["content"].startswith("```") and message["content"].rstrip().endswith("```")
        assert len(message["content"]) <= 20_000
    lines = [line for message in talk for line in message["content"].split("\n") if line.startswith("line_")]
    assert lines == [f"line_{n} = {n}" for n in range(3000)]


def test_tags_do_not_make_a_message_longer_than_it_may_be():
    talk = chat([turn("user", "<a" * 60_000)], "<b" * 60_000)
    assert all(len(message["content"]) <= 20_000 for message in talk)


def test_what_cannot_be_shown_is_said():
    answer = {"role": "assistant", "content": None, "reasoning": "f", "tool_calls": "gh"}
    item = {"prompt": [turn("user", "abc")], "tools": "de", "candidates": [{"key": "chosen", "messages": [answer]}]}
    assert num_chars(item) == 8
    assert refusal(item, 8) is None and refusal(item) is None
    assert refusal(item, 7) == "it has 8 characters, more than 7"
    assert "501 messages, more than the 500" in refusal(item | {"prompt": [turn("user", "a")] * MAX_MESSAGES}, None)


def test_an_answer_to_edit_is_the_text_itself():
    assert plain([{"role": "assistant", "content": "<b> \\(x\\)\nend", "reasoning": "r"}]) == "<b> \\(x\\)\nend"
    assert as_written(markdown("<think>")) == "<think>"
