"""Checks T1 to T12: templates that trip each, and one that does not; and every check of the specification has both."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from tests.audited import PROMPT, SEEN, TURNS, Expected, error, ok, says, template_says, warn, with_bos

# The highest level of every check. P3 only informs: its value says how much is padding.
SPECIFIED = {
    "A1": "error", "A2": "error", "A3": "error", "A4": "error", "A5": "error", "A6": "error", "A7": "error",
    "A8": "error", "A9": "error", "A10": "error", "A11": "warn",
    "T1": "error", "T2": "error", "T3": "error", "T4": "error", "T5": "error", "T6": "warn", "T7": "error",
    "T8": "error", "T9": "error", "T10": "error", "T11": "warn", "T12": "warn",
    "D1": "error", "D2": "error", "D3": "warn", "D4": "warn", "D5": "warn", "D6": "error",
    "R0": "error", "R1": "error", "R2": "error", "R3": "error", "R4": "error", "R5": "warn", "R6": "error",
    "P1": "warn", "P2": "error", "P3": "ok", "P4": "warn", "V1": "warn", "V2": "error",
}  # fmt: skip
for subject in ("row", "pair", "prompt", "packing_and_launch"):
    importlib.import_module(f"tests.test_{subject}_checks_trip")  # fills SEEN
LEVELS = ("ok", "warn", "error")
CONTENT = "{{ m.content }}"
LAST_ONLY = "{{ m.content if loop.last else m.content.split('</think>')[-1] }}"


@says(T1=ok(), T2=ok(), T3=ok(), T4=ok(), T5=ok(), T6=ok(), T7=ok(), T8=ok(), T9=ok(), T10=ok(), T11=ok(), T12=ok())
def test_plain_chatml_trips_nothing(tiny_model, expected):
    found = template_says(tiny_model, TURNS + PROMPT)
    assert expected.missed_by(found) == []


@says(T1=error(2, "a row without: after"))
def test_a_prompt_that_opens_a_thought_is_no_beginning_of_a_plain_row(tiny_model, expected):
    found = template_says(tiny_model, TURNS + PROMPT.replace("assistant\n", "assistant\n<think>\n"))
    assert expected.missed_by(found) == []


@says(T2=error(1, "only inference keeps the thought"))
def test_a_history_that_only_inference_sends(tiny_model, expected):
    stripped = LAST_ONLY.replace("loop.last", "loop.last or add_generation_prompt")
    found = template_says(tiny_model, TURNS.replace(CONTENT, stripped) + PROMPT)
    assert expected.missed_by(found) == []


@says(T2=ok(), T3=error(1, "the thought of an earlier turn is gone"))
def test_a_history_without_thoughts_trains_answers_without_them(tiny_model, expected):
    found = template_says(tiny_model, TURNS.replace(CONTENT, LAST_ONLY) + PROMPT)
    assert expected.missed_by(found) == []


@says(T4=error(1, "enable_thinking=false gives a turn two think blocks"))
def test_an_empty_thought_before_a_thought(tiny_model, expected):
    empty = "{% if m.role == 'assistant' and enable_thinking is defined and not enable_thinking %}<think></think>"
    found = template_says(tiny_model, TURNS.replace(CONTENT, empty + "{% endif %}" + CONTENT) + PROMPT)
    assert expected.missed_by(found) == []


@says(T5=error(1, "a rendered row begins with 2 of them"))
def test_a_template_that_begins_a_row_twice(tiny_model, tmp_path, expected):
    model = with_bos(tiny_model, tmp_path / "model", added=False)
    found = template_says(model, "{{ bos_token + bos_token }}" + TURNS + PROMPT)
    assert expected.missed_by(found) == []


@says(T5=ok(0.0, "begins with 1"))
def test_a_template_that_begins_a_row_once(tiny_model, tmp_path, expected):
    found = template_says(with_bos(tiny_model, tmp_path / "model", added=False), "{{ bos_token }}" + TURNS + PROMPT)
    assert expected.missed_by(found) == []


@says(T6=warn(1, "gets one from the template"))
def test_a_system_prompt_that_nobody_wrote(tiny_model, expected):
    kind = "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are kind.<|im_end|>\n{% endif %}"
    found = template_says(tiny_model, kind + TURNS + PROMPT)
    assert expected.missed_by(found) == []


@says(T7=error(1, "the text changes with the date"))
def test_a_row_that_reads_otherwise_tomorrow(tiny_model, expected):
    found = template_says(tiny_model, "{{ strftime_now('%d %B %Y') }}" + TURNS + PROMPT)
    assert expected.missed_by(found) == []


@says(T8=error(1, "<|never_added|> is "))
def test_a_mark_that_the_tokenizer_takes_apart(tiny_model, expected):
    found = template_says(tiny_model, TURNS + PROMPT + "{% if false %}<|never_added|>{% endif %}")
    assert expected.missed_by(found) == []


@says(T9=error(1, "generation stops at '<|im_end|>'"))
def test_an_answer_whose_end_stops_no_generation(tiny_model, expected):
    found = template_says(tiny_model, TURNS.replace("<|im_end|>", "<|pad|>") + PROMPT)
    assert expected.missed_by(found) == []


@says(T9=warn(1, "no generation_config.json"))
def test_a_model_that_does_not_say_where_generation_stops(tiny_model, tmp_path, expected):
    found = template_says(tiny_model, TURNS + PROMPT, tmp_path)
    assert expected.missed_by(found) == []


@says(T10=error(2, "the turn that '<|im_start|>system' opens is never closed"), T1=ok(), T2=ok(), T3=ok(), T9=ok(),
      T6=warn(1))  # fmt: skip
def test_a_system_block_that_runs_into_the_next_turn(tiny_model, expected):
    block = "<|im_start|>system\nBe kind.\n{% if tools %}Tools: {{ tools | tojson }}<|im_end|>\n{% endif %}"
    turns = TURNS.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")
    found = template_says(tiny_model, block + turns + PROMPT)
    assert expected.missed_by(found) == []


@says(T10=error(1, "the template raises"))
def test_a_template_that_cannot_ask_for_a_second_answer(tiny_model, expected):
    once = "{% if add_generation_prompt and messages | length > 1 %}{{ raise_exception('one turn only') }}{% endif %}"
    found = template_says(tiny_model, once + TURNS + PROMPT)
    assert expected.missed_by(found) == []


@says(T11=warn(2, "rendered one by one they differ from the whole"))
def test_turns_that_are_joined_by_a_space(tiny_model, expected):
    found = template_says(tiny_model, TURNS.replace(CONTENT, CONTENT + "{% if not loop.last %} {% endif %}") + PROMPT)
    assert expected.missed_by(found) == []


@says(T12=warn(1, "an answer that begins with '4' merges with the end of the prompt"))
def test_a_prompt_that_ends_with_a_space(tiny_model, expected):
    found = template_says(tiny_model, TURNS.replace("\n{{ m.content }}", ": {{ m.content }}")
                         + PROMPT.replace("assistant\n", "assistant: "))  # fmt: skip
    assert expected.missed_by(found) == []


@pytest.mark.parametrize("said", [error(0.0), warn(0.0), ok(1.0), ok(0.0, "no such words")])
def test_an_expectation_that_a_check_does_not_meet_is_told(tiny_model, said):
    found = template_says(tiny_model, TURNS + PROMPT)
    assert Expected({"T1": said}).missed_by(found) == [(found["T1"], said)]
    assert Expected({"T13": ok()}).missed_by(found) == [(None, ok())]


@pytest.mark.parametrize("id", SPECIFIED)
def test_every_check_of_the_specification_is_seen_to_trip_and_to_pass(id: str):
    said = [seen.said for seen in SEEN if seen.id == id]
    tripping = [item for item in said if item.level != "ok" or (SPECIFIED[id] == "ok" and item.value != 0)]
    assert any(item.level == "ok" for item in said), f"no test in which {id} passes"
    assert tripping, f"no test that trips {id}"
    assert max((item.level for item in tripping), key=LEVELS.index) == SPECIFIED[id]


def test_nothing_is_said_by_a_check_that_the_specification_does_not_know(tiny_model: Path, kedge, tmp_path: Path):
    assert {seen.id for seen in SEEN} == set(SPECIFIED)
    rows = {
        "sft": {"messages": [{"role": "user", "content": "12?"}, {"role": "assistant", "content": "12"}]},
        "preference": {"prompt": "12?", "chosen": "12", "rejected": "13"},
        "rlvr": {
            "data_source": "gsm8k",
            "prompt": [{"role": "user", "content": "12?"}],
            "reward_model": {"style": "rule", "ground_truth": "12"},
        },
        "midtrain": {"text": "12 plus 3"},
    }
    for name, row in rows.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text(f"{json.dumps(row)}\n" * 3)
        _, out, err = kedge("audit", path, "--tokenizer", tiny_model, "--max-length", "64", "--json")
        assert out, err
        assert {check["id"] for check in json.loads(out)["checks"]} <= set(SPECIFIED)
