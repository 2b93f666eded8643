"""Parent and child templates: a stage may add tokens and text, and change nothing that was trained before."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from curation.auditing.adapt_command import adapt_to
from curation.auditing.template_inheritance import compare
from curation.config import SHIPPED
from curation.rendering import Template, Tokenizer, load_tokenizer
from tests import REAL_DATA
from tests.llama_like import llama_like

THINK = (SHIPPED / "templates" / "chatml_think.jinja").read_text()

# What mid-training had: no tools, thoughts of the field reasoning inside the turn.
PARENT = """{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' %}
        {%- generation %}
            {%- if message.reasoning_content %}
                {{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n' }}
            {%- endif %}
            {{- message.content + '<|im_end|>' }}
        {%- endgeneration %}
    {%- else %}
        {{- message.content + '<|im_end|>' }}
    {%- endif %}
    {{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
ANSWER = "message.content + '<|im_end|>' }}\n        {%- endgeneration"
# What SFT adds: tools before the turns, and calls after the answer.
TOOLS = """{%- if tools %}
    {{- '<|tools_start|>' + (tools | tojson) + '<|tools_end|>\\n' }}
{%- endif %}
"""
CHILD = TOOLS + PARENT.replace(
    "message.content + '<|im_end|>' }}\n        {%- endgeneration",
    """message.content }}
            {%- for call in message.tool_calls or [] %}
                {{- '<|call|>' + call.function.name }}
            {%- endfor %}
            {{- '<|im_end|>' }}
        {%- endgeneration""",
)


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory):
    """Adapt a template's text to a base (the Llama-like one by default): its folder."""
    root = tmp_path_factory.mktemp("stages")
    llama_like(root / "base", reserved=16)

    def call(name: str, text: str, base: Path | None = None) -> Path:
        (root / f"{name}.jinja").write_text(text)
        adapt_to(None, str(root / f"{name}.jinja"), str(base or root / "base"), root / name, None)
        return root / name

    return call


@pytest.fixture(scope="module")
def parent(make) -> Path:
    return make("parent", PARENT)


def fitted(folder: Path, text: str | None = None) -> tuple[Template, Tokenizer]:
    tokenizer = load_tokenizer(None, str(folder))
    return Template(folder.name, text or tokenizer.hf.chat_template, "0"), tokenizer


def test_a_stage_that_only_adds_tools_and_their_tokens_extends_its_parent(make, parent: Path):
    child = make("child", CHILD, parent)
    found = compare(fitted(parent), fitted(child), [[{"role": "user", "content": "hi"}], [
        {"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2", "reasoning": "a sum"}]])  # fmt: skip
    assert (found.verdict, found.problems, found.difference, found.changes) == ("extends", [], None, [])
    vocabulary = load_tokenizer(None, str(child)).hf.get_vocab()
    assert found.new_tokens == {text: vocabulary[text] for text in ("<|tools_start|>", "<|tools_end|>", "<|call|>")}
    assert "tools" in found.skipped and "thoughts in the field reasoning of earlier turns" in found.kinds
    assert found.num_compared == len(found.kinds) - 1 + 2  # every kind once, and two given rows


def test_a_template_and_tokenizer_are_the_same_as_themselves(parent: Path):
    found = compare(fitted(parent), fitted(parent))
    assert found.verdict == "same" and not found.new_tokens and found.num_different == 0


def test_a_child_of_another_base_gives_tokens_other_ids_and_breaks(make, parent: Path):
    swapped = TOOLS + PARENT  # fitted to the first base, its new strings take the ids of the parent's
    child = make("other_base", swapped)
    found = compare(fitted(parent), fitted(child))
    assert found.verdict == "breaks"
    moved = [problem for problem in found.problems if "moved to another id" in problem.what]
    assert "<|im_start|>" in moved[0].what and "--tokenizer PARENT" in moved[0].next
    assert found.difference is not None and found.difference.part == "ids"


@pytest.mark.parametrize(("old", "new", "message"), [
    ('"<|im_start|>"', '"<|turn|>"', "tokens dropped or renamed: <|im_start|> (id"),
    ('"special": true', '"special": false', "tokens given other flags"),
])  # fmt: skip
def test_a_token_that_is_renamed_or_flagged_otherwise_breaks(parent: Path, tmp_path: Path, old, new, message):
    child = tmp_path / "child"
    child.mkdir()
    for path in parent.iterdir():
        text = json.dumps(json.loads(path.read_text())) if path.suffix == ".json" else path.read_text()
        (child / path.name).write_text(text.replace(old, new))
    found = compare(fitted(parent), fitted(child))
    assert found.verdict == "breaks" and any(message in problem.what for problem in found.problems)
    assert all(problem.next for problem in found.problems)


def test_a_tokenizer_that_splits_text_by_other_rules_breaks(parent: Path, tmp_path: Path):
    child = tmp_path / "child"
    child.mkdir()
    for path in parent.iterdir():
        (child / path.name).write_bytes(path.read_bytes())
    core = json.loads((child / "tokenizer.json").read_text())
    core["model"]["merges"] = core["model"]["merges"][:-1]
    (child / "tokenizer.json").write_text(json.dumps(core))
    found = compare(fitted(parent), fitted(child))
    assert found.verdict == "breaks" and "splits ordinary text" in found.problems[-1].what


def test_a_child_that_drops_thoughts_from_history_alone_breaks_only_there(parent: Path):
    dropping = PARENT.replace("if message.reasoning_content %", "if message.reasoning_content and loop.last %")
    found = compare(fitted(parent), fitted(parent, dropping))
    assert found.verdict == "breaks" and found.num_different == 2
    assert found.difference is not None
    assert found.difference.kind == "thoughts in the field reasoning of earlier turns"
    assert "THOUGHT-ONE" in found.difference.parent and "THOUGHT-ONE" not in found.difference.child


@pytest.mark.parametrize(("old", "new", "part"), [
    ("{{- '<|im_start|>assistant\\n' }}\n{%- endif", "{{- '<|im_start|>assistant\\n<think>\\n' }}\n{%- endif",
     "generation prompt"),
    ("message.content + '<|im_end|>' }}\n        {%- endgeneration %}",
     "message.content }}\n        {%- endgeneration %}{{- '<|im_end|>' }}", "loss mask"),
    (ANSWER, ANSWER.replace("content", "content | trim"), None),
])  # fmt: skip
def test_the_prompt_and_the_mask_are_compared_as_well_as_the_ids(parent: Path, old: str, new: str, part: str | None):
    assert old in PARENT
    found = compare(fitted(parent), fitted(parent, PARENT.replace(old, new)))
    assert (found.difference.part if found.difference else None) == part
    assert found.verdict == ("breaks" if part else "extends")


def test_given_rows_find_what_no_probe_holds(parent: Path):
    trimming = PARENT.replace(ANSWER, ANSWER.replace("content", "content | trim"))
    rows = [[{"role": "user", "content": "x"}, {"role": "assistant", "content": text}] for text in ("y", " y ")]
    found = compare(fitted(parent), fitted(parent, trimming), rows)
    assert found.verdict == "breaks" and found.num_different == 1
    assert found.difference is not None and found.difference.kind == "row 2"


def test_a_child_without_generation_tags_breaks_a_parent_that_has_them(parent: Path):
    bare = PARENT.replace("{%- generation %}", "").replace("{%- endgeneration %}", "")
    found = compare(fitted(parent), fitted(parent, bare))
    assert found.verdict == "breaks" and "no generation tags" in found.problems[-1].what


def test_a_mode_of_the_parent_is_compared_too(make):
    parent = make("think", THINK)
    child = THINK.replace("{{- '<think>\\n\\n</think>\\n' }}", "{{- '<think></think>\\n' }}")
    assert child != THINK
    found = compare(fitted(parent), fitted(parent, child))
    assert found.verdict == "breaks" and found.difference is not None
    assert found.difference.kwargs == {"enable_thinking": False}


def test_ends_that_change_are_reported(parent: Path, tmp_path: Path):
    for path in parent.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"eos_token": "<|end_of_text|>"}))
    found = compare(fitted(parent), fitted(tmp_path))
    assert found.verdict == "extends" and found.changes[0] == "eos_token: <|im_end|> -> <|end_of_text|>"


def test_the_command_says_whether_the_parent_is_extended(make, parent: Path, tmp_path: Path, kedge, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "child.jinja").write_text(CHILD)
    code, out, err = kedge(
        "template", "adapt", "child.jinja", "--tokenizer", parent, "--to", "grown", "--parent", parent
    )
    assert code == 0, err
    assert f"extends {parent}: " in out and "<|tools_start|>" in out and "the parent renders none of: tools" in out
    code, out, _ = kedge("template", "adapt", "chatml_think", "--tokenizer", parent, "--to", "b", "--parent", parent,
                         "--json")  # fmt: skip
    value = json.loads(out)
    assert code == 1 and value["parent"]["verdict"] == "breaks" and value["parent"]["difference"]["kind"] == "plain"


@pytest.mark.real_data
def test_real_rows_of_a_real_tokenizer_break_where_a_new_token_is_spelled_in_them(tmp_path: Path):
    base = REAL_DATA / "tokenizers" / "qwen2.5"
    child = tmp_path / "child"
    adapt_to(None, "chatml", str(base), child, None)  # adds <think> and </think>
    with gzip.open(REAL_DATA / "sft" / "alpaca_en_demo.json.gz", "rt") as stream:
        rows = [[{"role": "user", "content": row["instruction"]}, {"role": "assistant", "content": row["output"]}]
                for row in json.load(stream)]  # fmt: skip
    own = fitted(base)
    found = compare(own, fitted(child, own[0].text), rows)
    assert found.new_tokens == {"<think>": 151665, "</think>": 151666}
    assert found.num_compared > len(rows) and found.num_different == 2  # probes that spell thoughts, no given row
    assert found.difference is not None and "<think>·" in found.difference.child
    assert compare(own, own, rows).verdict == "same"
