"""Positions by the lengths of the tokens are the tokenizer's own offsets, whatever the text; masks follow from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.rendering import Rendering, load_template, load_tokenizer
from curation.rendering.encoding import Encoder, _with_offsets, encoder_of
from tests import REAL_DATA

TEXTS = st.lists(st.sampled_from(
    ["a", " b", "naïve", "東京", "🙂", "e\u0301", "\u00a0", "\n\n", "<|im_start|>", "<think>", "12", "👩‍👩‍👧", "ﬁ",
     "\u0000", "\ud7ff", "\u2028"]
), max_size=12).map("".join) | st.text(max_size=40)  # fmt: skip


def assert_same(encoder: Encoder, texts: list[str]) -> None:
    slow = encoder.backend.encode_batch(texts, add_special_tokens=False)
    for text, found, encoding in zip(texts, encoder.encode(texts), slow, strict=True):
        expected = _with_offsets(encoding)
        assert found.ids.tolist() == expected.ids.tolist()
        covered = np.flatnonzero(expected.ends > expected.starts)
        assert found.ends[covered].tolist() == expected.ends[covered].tolist(), text
        assert found.starts[covered].tolist() == expected.starts[covered].tolist(), text


@given(st.lists(TEXTS, min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_any_text_on_a_trained_tokenizer(tiny_model: Path, texts: list[str]):
    encoder = encoder_of(load_tokenizer(None, str(tiny_model)), False)
    assert encoder.lengths is not None, "the fast path must be tried"
    assert_same(encoder, texts)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["qwen2.5", "gpt2"])
def test_any_text_on_real_tokenizers(name: str):
    encoder = encoder_of(load_tokenizer(None, str(REAL_DATA / "tokenizers" / name)), False)

    @given(st.lists(TEXTS, min_size=1, max_size=4))
    @settings(max_examples=200, deadline=None)
    def check(texts: list[str]) -> None:
        assert_same(encoder, texts)

    check()


@pytest.mark.real_data
def test_many_ascii_texts_go_past_the_normalizer_with_the_same_ids():
    backend = load_tokenizer(None, str(REAL_DATA / "tokenizers" / "qwen2.5")).hf.backend_tokenizer
    texts = [f"Row {n}: <|im_start|>a  b\n\n{'x' * (n % 7)}" + ("é" if n % 5 == 0 else "") for n in range(600)]
    encoder = Encoder(backend, special=False)
    assert encoder.form == "NFC"
    assert_same(encoder, texts)
    assert [item.ids.tolist() for item in encoder.encode(texts)] == [
        item.ids for item in backend.encode_batch(texts, add_special_tokens=False)]  # fmt: skip


def test_a_tokenizer_that_is_no_byte_level_bpe_keeps_its_own_offsets():
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    backend = Tokenizer(WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    backend.pre_tokenizer = Whitespace()
    encoder = Encoder(backend, special=False)
    assert encoder.lengths is None
    (found,) = encoder.encode(["a  東 b"])
    assert (found.ids.tolist(), found.starts.tolist(), found.ends.tolist()) == ([0, 2, 1], [0, 3, 5], [1, 4, 6])


def test_the_assistants_turns_are_found_without_generation_tags(tiny_model: Path, tmp_path: Path):
    plain = tmp_path / "plain.jinja"
    plain.write_text("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
                     "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")  # fmt: skip
    tokenizer = load_tokenizer(None, str(tiny_model))
    row = {"messages": [{"role": role, "content": text} for role, text in (
        ("user", "x?"), ("assistant", "one"), ("user", "y?"), ("assistant", "two"))], "tools": None}  # fmt: skip
    rendering = Rendering(tokenizer, load_template(None, str(plain), tokenizer), "turns", {})
    rendered = rendering.render(row, "sft")
    trained = "".join(rendered.text[start:end] if mask else "\0" for start, end, mask in zip(
        rendered.encoded.starts, rendered.encoded.ends, rendered.mask, strict=True))  # fmt: skip
    parts = [part for part in trained.split("\0") if part]
    assert parts[0].startswith("one<") and parts[1].startswith("two<")
    assert not rendered.mask[0] and rendered.mask[-1]
