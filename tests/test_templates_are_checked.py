"""Template checks T1 to T12 and the property matrix: templates that installed TRL ships, and one that trips each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curation.auditing.template_checks import check_template
from curation.config import SHIPPED
from curation.rendering import Template, load_template, load_tokenizer
from curation.rendering.properties import LONG, Properties, Renderer, properties
from tests import REAL_DATA
from tests.audited import trl_template

# The properties of Properties in order: Y yes, . no, ! the template raises.
MATRIX = {
    "deepseek_r1_distill": "Y.......Y....", "deepseek_r1_distill_training": "Y..YYY.YYY...",
    "gemma3": "Y...YY.!YYYY.", "gemma3_training": "Y..YYY.!YYYY.", "gptoss": ".YY.YY.Y.YYY.",
    "gptoss_training": ".YYYYY.Y.YYY.", "llama3": "Y...YY.YYYYY.", "llama3_1": "YY..YY.YYYYY.",
    "llama3_2": "YYY.YY.YYYYY.", "llama3_training": "Y..YYY.YYYYY.", "qwen2_5": ".Y..YY.YYYYY.",
    "qwen2_5_training": ".Y.YYY.YYYYY.", "qwen3": ".....YY..YYYY", "qwen3_5_nothink": ".....YY!..YYY",
    "qwen3_5_think": ".....YY!.YYYY", "qwen3_instruct_2507": "....YY.YYYYY.",
    "qwen3_instruct_2507_training": "...YYY.YYYYY.", "qwen3_training": "...YYYYYYYYYY",
}  # fmt: skip
TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


@pytest.mark.parametrize("name", MATRIX)
def test_the_matrix_of_a_published_template_is_seen_in_its_renderings(name: str):
    found = properties(Renderer(trl_template(name), {"bos_token": "<bos>", "eos_token": "<eos>"}, {}))
    values = [getattr(found, field) for field in Properties.__dataclass_fields__]
    assert "".join({True: "Y", False: ".", None: "!"}[value] for value in values[:-1]) == MATRIX[name]


@pytest.fixture
def check(tiny_model: Path):
    """Check a template's text on the tiny tokenizer; the levels by check id."""

    def run(text: str, **kwargs):
        report = check_template(Template("probe", text, "0"), load_tokenizer(None, str(tiny_model)), kwargs)
        return {item.id: item for item in report.checks}

    return run


def test_the_shipped_templates_pass_every_check_that_can_fail_a_run(tiny_model: Path):
    tokenizer = load_tokenizer(None, str(tiny_model))
    for path in sorted((SHIPPED / "templates").glob("*.jinja")):
        for kwargs in ({}, {"enable_thinking": True}, {"enable_thinking": False}):
            report = check_template(load_template(None, path.stem, tokenizer), tokenizer, kwargs)
            failed = {item.id: item.message for item in report.checks if item.level == "error"}
            if kwargs.get("enable_thinking") is False:  # a thought in a row is then a mistake of the row, see T1
                failed.pop("T1", None)
            assert not failed, (path.stem, kwargs)


@pytest.mark.parametrize(("number", "text", "message"), [
    ("T1", TURNS + "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}", "a row without"),
    ("T2", TURNS.replace("{{ m.content }}", "{{ m.content if loop.last or add_generation_prompt else "
                         "m.content.split('</think>')[-1] }}") + PROMPT, "only inference keeps the thought"),
    ("T3", TURNS.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}") + PROMPT, "the last turn is gone"),
    ("T3", TURNS.replace("{{ m.content }}", "{{ m.content if loop.last else m.content.split('</think>')[-1] }}")
     + PROMPT, "the thought of an earlier turn is gone"),
    ("T4", TURNS.replace("{{ m.content }}", "{% if m.role == 'assistant' and enable_thinking is defined and not "
                         "enable_thinking %}<think></think>{% endif %}{{ m.content }}") + PROMPT, "two think blocks"),
    ("T7", "{{ strftime_now('%Y-%m-%d') }}" + TURNS + PROMPT, "changes with the date"),
    ("T8", TURNS + PROMPT + "{% if false %}<|never_added|>{% endif %}", "<|never_added|> is "),
    ("T9", TURNS.replace("<|im_end|>", "<|im_start|>") + PROMPT, "generation stops at"),
    ("T9", "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}", "nothing ends the last answer"),
])  # fmt: skip
def test_a_template_that_breaks_a_run_trips_its_check(check, number: str, text: str, message: str):
    good = check(TURNS + PROMPT)
    assert good[number].level == "ok", good[number].message
    bad = check(text)
    assert bad[number].level == "error" and message in bad[number].message
    assert bad[number].next and bad[number].value >= 1


KIND = "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are kind.<|im_end|>\n{% endif %}"
SPACED = TURNS.replace("{{ m.content }}", "{{ m.content }}{% if not loop.last %} {% endif %}")


@pytest.mark.parametrize(("number", "text", "message"), [
    ("T6", KIND + TURNS + PROMPT, "gets one from the template"), ("T11", SPACED + PROMPT, "differ from the whole"),
])  # fmt: skip
def test_what_needs_care_is_a_warning(check, number: str, text: str, message: str):
    found = check(text)
    assert found[number].level == "warn" and message in found[number].message


@pytest.mark.real_data
def test_an_answer_that_merges_with_the_prompt_is_a_warning():
    tokenizer = load_tokenizer(None, str(REAL_DATA / "tokenizers" / "qwen2.5"))
    apart = TURNS.replace("\n", "<|im_start|>") + PROMPT.replace("\n", "<|im_start|>")
    for text, level in ((TURNS + PROMPT, "warn"), (apart, "ok")):
        found = {item.id: item for item in check_template(Template("p", text, "0"), tokenizer, {}).checks}
        assert found["T12"].level == level, found["T12"].message


def test_two_beginning_tokens_are_an_error(tiny_model: Path, tmp_path: Path):
    import shutil

    shutil.copytree(tiny_model, tmp_path / "m")
    path = tmp_path / "m" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"bos_token": "<|im_start|>"}))
    tokenizer = load_tokenizer(None, str(tmp_path / "m"))
    answers = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    for begin, level in (("{{ bos_token }}", "ok"), ("{{ bos_token + bos_token }}", "error")):
        found = {item.id: item for item in check_template(Template("p", begin + answers, "0"), tokenizer, {}).checks}
        assert found["T5"].level == level, found["T5"].message


@pytest.mark.real_data
def test_the_history_of_qwen3_loses_its_thoughts_and_its_training_variant_keeps_them():
    tokenizer = load_tokenizer(None, str(REAL_DATA / "tokenizers" / "qwen2.5"))
    levels = {}
    for name in ("qwen3", "qwen3_training"):
        report = check_template(Template(name, trl_template(name), "0"), tokenizer, {})
        levels[name] = {item.id: item for item in report.checks}
    assert "an earlier turn is gone" in levels["qwen3"]["T3"].message
    assert levels["qwen3_training"]["T3"].level == "ok"


def test_the_dual_mode_template_keeps_empty_thoughts_out_of_the_loss(tiny_model: Path):
    from curation.rendering import Rendering

    tokenizer = load_tokenizer(None, str(tiny_model))
    template = load_template(None, "chatml_think", tokenizer)
    for thinking in (True, False):
        rendering = Rendering(tokenizer, template, "trl_assistant", {"enable_thinking": thinking})
        text, spans = rendering.chat([{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}])
        assert [text[first:last] for first, last in spans] == ["4<|im_end|>"]
        assert ("<think>\n\n</think>\n4" in text) is not thinking
        assert "Today is 1 January 2026" in text
    text, spans = Rendering(tokenizer, template, "trl_assistant", {}).chat([dict(turn) for turn in LONG])
    assert "THOUGHT-ONE" in text[spans[0][0] : spans[0][1]] and "THOUGHT-TWO" in text[spans[1][0] : spans[1][1]]


def test_the_command_works_without_a_project_and_says_what_is_missing(tmp_path: Path, kedge, monkeypatch, tiny_model):
    monkeypatch.chdir(tmp_path)
    code, out, _ = kedge("template", "check", "chatml", "--tokenizer", tiny_model)
    assert code == 0 and "chatml: PASSED" in out and "T10 train = eval = serve" in out
    code, out, _ = kedge("template", "check", tiny_model, "--json")
    value = json.loads(out)
    assert code == 0 and value["passed"] and len(value["checks"]) == 12 and value["properties"]["generation"]
    (tmp_path / "bad.jinja").write_text(TURNS)
    code, out, _ = kedge("template", "check", "bad.jinja", "--tokenizer", tiny_model, "--kwargs", '{"x": 1}')
    assert code == 0
    for arguments, expected in (
        (("chatml",), "is checked on a tokenizer"), (("chatm", "--tokenizer", tiny_model), "did you mean 'chatml'"),
        (("chatml", "--tokenizer", tiny_model, "--kwargs", "{"), "is no JSON"),
        (("chatml", "--tokenizer", "nowhere"), "there is no tokenizer 'nowhere'"),
    ):  # fmt: skip
        code, _, err = kedge("template", "check", *arguments)
        assert code == 2 and expected in err and "Traceback" not in err, arguments
