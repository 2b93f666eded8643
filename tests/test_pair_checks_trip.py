"""Checks D1 to D6, and T1 over the rows: pairs that trip each, and pairs that do not."""

from __future__ import annotations

import math

import pytest

from tests.audited import (
    PROMPT,
    TURNS,
    at,
    audited,
    case,
    checks_by_id,
    column,
    error,
    mirror,
    ok,
    pair,
    says,
    warn,
)  # fmt: skip

ALIKE = "The answer is 15. " * 20
SHORT = pair("The answer is 15.", "16")
LATE = pair(ALIKE + "15", ALIKE + "16")  # the sides differ behind what 64 tokens hold
ONE_LONG = pair(ALIKE, "16")
LONG_QUESTION = pair("The answer is 15.", "16", "12 plus 3? " * 60)
DPO = mirror("trl_dpo", max_length=64)


@says(D1=ok(), D2=ok(), D3=ok(0.0), D4=ok(), D5=ok(), D6=ok(), T1=ok(), A2=ok(), A7=ok(), A10=ok())
def test_pairs_that_fit_and_differ_trip_nothing(tiny_model, expected):
    found = audited(tiny_model, [SHORT, SHORT, pair("3 plus 12 is 15.", "It is 16.")], DPO)
    assert expected.missed_by(found) == []


@says(D1=error(1 / 3, "1 pairs are the same tokens on both sides after the cut (0 were before)"), D2=ok(),
      A2=error(2 / 6))  # fmt: skip
def test_sides_that_differ_behind_the_cut_are_identical(tiny_model, expected):
    found = audited(tiny_model, [SHORT, SHORT, LATE], DPO)
    assert expected.missed_by(found) == []


@says(D1=error(1 / 3, "(1 were before)"))
def test_sides_that_are_identical_in_the_source_are_listed(tiny_model, expected):
    found = audited(tiny_model, [SHORT, SHORT, pair("15", "15")], DPO)
    assert expected.missed_by(found) == []


@says(D1=ok())
def test_ends_that_differ_are_not_identical_where_the_ends_are_kept(tiny_model, expected):
    found = audited(tiny_model, [SHORT, SHORT, LATE], mirror("trl_dpo", max_length=64, truncation_mode="keep_end"))
    assert expected.missed_by(found) == []


@says(D1=ok(), A9=error(None))
def test_answers_that_differ_are_not_identical_where_the_question_gives_way(tiny_model, expected):
    found = audited(tiny_model, [SHORT, SHORT, LONG_QUESTION], mirror("llama_factory_dpo", cutoff_len=64))
    assert expected.missed_by(found) == []


@says(D2=error(1 / 3, "in 1 the rejected answer stops and the chosen one no longer does"), D1=ok())
def test_a_long_chosen_side_alone_loses_its_stop(tiny_model, expected):
    found = audited(tiny_model, [SHORT, SHORT, ONE_LONG], DPO)
    assert expected.missed_by(found) == []


@says(D2=warn(1 / 40, "cut on one side alone"))
def test_one_side_cut_of_forty_pairs_is_a_warning(tiny_model, expected):
    found = audited(tiny_model, [SHORT] * 39 + [ONE_LONG], DPO)
    assert expected.missed_by(found) == []


@says(D2=ok(), D5=ok(None, "+0.01 before and +0.00 after"))
def test_sides_that_are_cut_alike_are_no_asymmetry(tiny_model, expected):
    found = audited(tiny_model, [pair(ALIKE, "16" + ALIKE[:-2])] * 3, mirror("trl_dpo", max_length=40))
    assert expected.missed_by(found) == []


@says(D2=ok(), A10=ok(), A8=error(1 / 3, "33.3% are dropped"))
def test_a_pair_that_is_dropped_is_not_cut_on_one_side(tiny_model, expected):
    found = audited(tiny_model, [SHORT, SHORT, ONE_LONG], mirror("trl_reward", max_length=64))
    assert expected.missed_by(found) == []


@says(D3=warn(None, "of the shorter answer's tokens are the same on both sides"))
def test_answers_that_begin_alike_share_most_of_their_tokens(tiny_model, expected):
    made = case(tiny_model, [LATE, LATE, LATE], mirror("trl_dpo", max_length=1024))
    prompt, shared, tokens = (column(made, name)[0] for name in ("chosen_prompt_tokens", "common_prefix",
                                                                "chosen_tokens"))  # fmt: skip
    found = checks_by_id(made)
    assert found["D3"].value == pytest.approx((shared - prompt) / (tokens - prompt))
    assert found["D3"].value > 0.9
    assert expected.missed_by(found) == []


@says(D4=warn(1 / 3, "the prompts of 33.3% of the pairs alone fill 64 tokens"), A8=error(1 / 3))
def test_a_question_that_fills_the_length_leaves_no_room(tiny_model, expected):
    found = audited(tiny_model, [SHORT, SHORT, LONG_QUESTION], DPO)
    assert expected.missed_by(found) == []


@says(D4=warn(1 / 3))
def test_a_question_of_exactly_the_length_leaves_no_room(tiny_model, expected):
    made = case(tiny_model, [SHORT, SHORT, LONG_QUESTION], DPO)
    length = column(made, "chosen_prompt_tokens")[2]
    assert checks_by_id(at(made, length + 1))["D4"].level == "ok"
    found = checks_by_id(at(made, length))
    assert expected.missed_by(found) == []


@says(D5=warn(None, "the mean log length ratio of chosen to rejected is"))
def test_a_cut_of_the_long_answers_takes_their_length_away(tiny_model, expected):
    made = case(tiny_model, [ONE_LONG] * 3, DPO)
    prompt, chosen, rejected = (column(made, name)[0] for name in ("chosen_prompt_tokens", "chosen_tokens",
                                                                  "rejected_tokens"))  # fmt: skip
    before, after = math.log((chosen - prompt) / (rejected - prompt)), math.log((64 - prompt) / (rejected - prompt))
    found = checks_by_id(made)
    assert found["D5"].value == pytest.approx(before - after)
    assert expected.missed_by(found) == []


@says(D6=error(1 / 3, "one side thinks and the other does not"))
def test_a_pair_of_two_modes_teaches_the_mode(tiny_model, expected):
    thinking = "<think>12+3</think>15"
    found = audited(tiny_model, [SHORT, pair(thinking, "<think>12+4</think>16"), pair(thinking, "16")], DPO)
    assert expected.missed_by(found) == []


@says(D6=error(1 / 2))
def test_two_modes_are_told_apart_where_the_template_writes_empty_thoughts(tiny_model, tmp_path, expected):
    template = tmp_path / "both.jinja"
    template.write_text(TURNS.replace("{{ m.content }}", "{% if m.role == 'assistant' and '<think>' not in m.content %}"
                                      "<think>\n\n</think>\n\n{% endif %}{{ m.content }}") + PROMPT)  # fmt: skip
    found = audited(tiny_model, [SHORT, pair("<think>12+3</think>15", "16")], DPO, template=template)
    assert expected.missed_by(found) == []


@says(D6=ok())
def test_sides_that_both_think_are_of_one_mode_though_one_thought_never_closes(tiny_model, expected):
    found = audited(tiny_model, [SHORT, pair("<think>12+3</think>15", "<think>12+4 and so on")], DPO)
    assert expected.missed_by(found) == []


@says(T1=error(1.0, "in 2 pairs the rendered row does not go on from the rendered prompt"))
def test_a_prompt_that_the_row_does_not_go_on_from_is_an_error(tiny_model, tmp_path, expected):
    template = tmp_path / "opens.jinja"
    template.write_text(TURNS + PROMPT.replace("assistant\n", "assistant\n<think>\n"))
    found = audited(tiny_model, [SHORT, SHORT], DPO, template=template)
    assert expected.missed_by(found) == []


@says(R0=error(1, "1 rows lack their chosen or rejected side"), D1=ok(), D2=ok(), D6=ok())
def test_a_row_of_one_side_is_refused_and_judged_by_no_pair_check(tiny_model, expected):
    found = audited(tiny_model, [SHORT, SHORT | {"rejected": None}], DPO)
    assert expected.missed_by(found) == []


@says(R0=ok(), D1=ok(), D2=ok(), D3=ok(), D4=ok(), D5=ok(), D6=ok())
def test_rows_of_one_side_alone_are_fine_for_kto(tiny_model, expected):
    found = audited(tiny_model, [SHORT | {"rejected": None}, SHORT | {"chosen": None}],
                   mirror("trl_kto", max_length=64))  # fmt: skip
    assert expected.missed_by(found) == []
