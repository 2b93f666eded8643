"""Checks A1 to A11, T3 and R0: rows that trip each, and rows that do not."""

from __future__ import annotations

import pytest

from tests.audited import (
    PROMPT,
    TURNS,
    assistant,
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
    talk,
    user,
    warn,
)  # fmt: skip

SHORT = talk("<think>12+3</think>The answer is 15.")
PLAIN = talk("The answer is 15.")
LONG = talk("<think>" + "12+3 " * 60 + "</think>The answer is 15.")
LONG_ANSWER = talk("<think>12+3</think>" + "The answer is 15. " * 60)
LONG_QUESTION = talk("<think>12+3</think>The answer is 15.", "12 plus 3? " * 60)
SFT = mirror("trl_sft", max_length=64)
ANSWERS = mirror("trl_sft", max_length=64, assistant_only_loss=True)


@says(A1=error(1 / 3, "33.3% of the rows of 'one'"), A2=error(1 / 3), A3=ok(), A4=ok(), A5=error(1 / 3), A6=ok(),
      A8=ok(), A9=ok(), A10=ok(), A11=ok(), T3=ok(), R0=ok())  # fmt: skip
def test_a_long_row_loses_its_stop_and_the_end_of_its_thought(tiny_model, expected):
    found = audited(tiny_model, [SHORT, SHORT, LONG], SFT)
    assert expected.missed_by(found) == []


@says(A1=ok(), A2=ok(), A3=ok(), A4=ok(), A5=ok(), A6=ok(), A7=ok(), A8=ok(), A9=ok(), A10=ok(), A11=ok(), T3=ok(),
      R0=ok(), R3=ok(), V1=ok(), V2=ok())  # fmt: skip
def test_rows_that_fit_trip_nothing(tiny_model, expected):
    found = audited(tiny_model, [SHORT, SHORT, LONG], mirror("trl_sft", max_length=1024))
    assert expected.missed_by(found) == []


@says(A1=warn(1 / 40), A2=error(1 / 40), A5=error(1 / 40))
def test_one_long_row_of_forty_is_a_warning_and_a_lost_stop(tiny_model, expected):
    found = audited(tiny_model, [SHORT] * 39 + [LONG], SFT)
    assert expected.missed_by(found) == []


@says(A1=error(1 / 4))
def test_the_short_side_of_a_dropped_pair_is_not_too_long(tiny_model, expected):
    rows = [pair("The answer is 15.", "16"), pair("The answer is 15. " * 60, "16")]
    found = audited(tiny_model, rows, mirror("trl_reward", max_length=64))
    assert expected.missed_by(found) == []


@says(A1=ok(), R0=error(1, "no assistant token"))
def test_a_short_row_that_is_dropped_is_not_too_long(tiny_model, expected):
    found = audited(tiny_model, [SHORT, {"messages": [user("12 plus 3?")]}], ANSWERS)
    assert expected.missed_by(found) == []


@says(A1=error(1 / 3), R0=error(1, "longer than max_length 64"))
def test_a_row_on_which_the_trainer_stops_is_too_long_though_it_is_not_cut(tiny_model, expected):
    found = audited(tiny_model, [SHORT, SHORT, LONG], mirror("verl_sft", max_length=64, train_batch_size=1))
    assert expected.missed_by(found) == []


@says(A2=ok(), A3=error(1.0, "the last trained token is no stop"))
def test_a_stop_outside_of_the_generation_tags_is_not_trained(tiny_model, tmp_path, expected):
    template = tmp_path / "apart.jinja"
    template.write_text("{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
                        "{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}"
                        "<|im_end|>\n{% endfor %}")  # fmt: skip
    found = audited(tiny_model, [SHORT, PLAIN, SHORT], ANSWERS, template=template)
    assert expected.missed_by(found) == []


@says(A4=error(1 / 3, "with a stop token that is trained"))
def test_a_stop_that_is_appended_after_the_cut_is_false(tiny_model, expected):
    found = audited(tiny_model, [SHORT, SHORT, LONG], mirror("llama_factory_sft", cutoff_len=64, template="gemma2"))
    assert expected.missed_by(found) == []


@says(A4=ok(), A2=error(1 / 3))
def test_a_stop_that_is_cut_off_is_lost_and_not_false(tiny_model, expected):
    found = audited(tiny_model, [SHORT, SHORT, LONG], mirror("llama_factory_sft", cutoff_len=64, template="qwen"))
    assert expected.missed_by(found) == []


@pytest.mark.parametrize(("thought", "kept", "lost"), [
    ("<think>12+3</think>", 1, 1.0), ("<think>12+3</think>", 2, 0.0),
    ("<|begin_of_thought|>12+3<|end_of_thought|>", 1, 1.0),
], ids=["nothing after the mark", "one token after it", "in the middle of the mark"])  # fmt: skip
def test_a_thought_is_closed_where_its_whole_mark_and_something_after_it_stay(tiny_model, thought, kept, lost):
    made = case(tiny_model, [talk(thought + "The answer is 15.")], SFT)
    closed = checks_by_id(at(made, column(made, "think_close")[0] + kept))["A5"]
    assert closed.value == lost


def test_a_thought_that_nothing_follows_in_the_source_is_not_lost_by_the_cut(tiny_model):
    assert audited(tiny_model, [talk("<think>12+3</think>")], SFT)["A5"].level == "ok"


@says(A6=error(4 / 5, "1 opened and never closed, 1 closed and never opened, 1 nested, 1 empty where"))
def test_every_kind_of_malformed_thought_is_counted(tiny_model, expected):
    found = audited(tiny_model, [talk("<think>12+3"), talk("12+3</think>15"), talk("<think>12<think>+3</think>15"),
                                talk("<think>\n</think>15", "12 plus 3? /think"), SHORT], SFT)  # fmt: skip
    assert expected.missed_by(found) == []


@says(A6=ok())
def test_an_empty_thought_is_fine_where_none_is_asked_for(tiny_model, expected):
    found = audited(tiny_model, [talk("<think>\n</think>15", "12 plus 3? /no_think"), SHORT, PLAIN], SFT)
    assert expected.missed_by(found) == []


@says(A7=error(None))
def test_the_share_of_lost_trained_tokens_is_that_of_the_tokens(tiny_model, expected):
    made = case(tiny_model, [SHORT, SHORT, LONG], SFT)
    tokens = column(made, "tokens")
    found = checks_by_id(made)
    assert found["A7"].value == pytest.approx(1 - sum(min(64, length) for length in tokens) / sum(tokens))
    assert "1 of 3 answers are not whole" in found["A7"].message
    assert expected.missed_by(found) == []


@says(A7=ok(), A4=error(1.0), P4=warn(None))
def test_tokens_that_are_trained_twice_are_no_gain(tiny_model, expected):
    found = audited(tiny_model, [{"text": "12 plus 3 " * 100}] * 3,
                   mirror("axolotl_pretrain", sequence_len=64, sample_packing=True))  # fmt: skip
    assert expected.missed_by(found) == []


@says(A8=error(1 / 3, "1 rows stay with nothing to train, 0.0% are dropped"))
def test_packing_keeps_a_row_whose_question_fills_the_length(tiny_model, expected):
    found = audited(tiny_model, [SHORT, SHORT, LONG_QUESTION], mirror("trl_sft", **ANSWERS.model_dump() | {
        "packing": True}))  # fmt: skip
    assert expected.missed_by(found) == []


@says(A8=warn(1 / 40, "0 rows stay with nothing to train, 2.5% are dropped"), A7=warn(1 / 40))
def test_without_packing_such_a_row_is_dropped(tiny_model, expected):
    found = audited(tiny_model, [SHORT] * 39 + [LONG_QUESTION], ANSWERS)
    assert expected.missed_by(found) == []


@says(A8=ok(0.0, "1 train one token alone"))
def test_a_row_that_trains_one_token_is_told(tiny_model, expected):
    made = case(tiny_model, [talk("15", "1?"), LONG_ANSWER], ANSWERS)
    found = checks_by_id(at(made, column(made, "prompt_tokens")[1] + 1))
    assert expected.missed_by(found) == []


@says(A9=error(1 / 3, "1 rows train an answer without the beginning of its prompt"))
def test_a_cut_on_the_left_takes_the_prompt_first(tiny_model, expected):
    found = audited(tiny_model, [SHORT, SHORT, LONG_QUESTION], mirror("trl_sft", **ANSWERS.model_dump() | {
        "truncation_mode": "keep_end"}))  # fmt: skip
    assert expected.missed_by(found) == []


@says(A9=error(1 / 3))
def test_a_source_that_gives_way_to_its_answer_loses_the_end_of_the_prompt(tiny_model, expected):
    found = audited(tiny_model, [SHORT, SHORT, LONG_QUESTION], mirror("llama_factory_sft", cutoff_len=64))
    assert expected.missed_by(found) == []


@says(A10=error(None, "'traces' loses"), A11=ok(0.0, "all rows are of one mode"))
def test_dropping_the_long_rows_of_a_source_moves_the_mixture(tiny_model, expected):
    rows = [SHORT | {"source": "chat"}] * 2 + [SHORT | {"source": "traces"}, LONG | {"source": "traces"}]
    made = case(tiny_model, rows, mirror("axolotl_sft", sequence_len=64))
    short, *_, long = column(made, "trained_tokens")
    before = (short + long) / (3 * short + long)
    found = checks_by_id(made)
    assert found["A10"].value == pytest.approx(max(before - 1 / 3, (1 - 1 / 3 / before) / 4))
    assert expected.missed_by(found) == []


@says(A10=ok())
def test_sources_that_lose_alike_keep_their_shares(tiny_model, expected):
    rows = [row | {"source": source} for source in ("chat", "traces") for row in (SHORT, LONG)]
    found = audited(tiny_model, rows, mirror("axolotl_sft", sequence_len=64))
    assert expected.missed_by(found) == []


@says(A10=error(None, "by mode"), A11=warn(1.0, "0.0% of the rows with a thought stay whole and 100.0% of those"))
def test_a_length_drops_the_thinking_rows_alone(tiny_model, expected):
    found = audited(tiny_model, [PLAIN, PLAIN, LONG, LONG], mirror("axolotl_sft", sequence_len=64))
    assert expected.missed_by(found) == []


@says(A11=ok(0.0, "both modes stay whole alike"))
def test_a_length_that_cuts_both_modes_alike_selects_none(tiny_model, expected):
    found = audited(tiny_model, [PLAIN, talk("The answer is 15. " * 60), SHORT, LONG], SFT)
    assert expected.missed_by(found) == []


@pytest.mark.parametrize("more", ["", "Think in <think> and </think>."], ids=["empty thoughts", "marks in the prompt"])
def test_a_plain_row_is_plain_whatever_the_template_or_the_system_prompt_writes(tiny_model, tmp_path, more):
    template = tmp_path / "both.jinja"
    template.write_text(TURNS.replace("{{ m.content }}", "{% if m.role == 'assistant' and '<think>' not in m.content %}"
                                      "<think>\n\n</think>\n\n{% endif %}{{ m.content }}") + PROMPT)  # fmt: skip
    rows = [{"messages": [{"role": "system", "content": more}, *row["messages"]]} for row in (PLAIN, PLAIN, LONG, LONG)]
    found = audited(tiny_model, rows, mirror("axolotl_sft", sequence_len=90), template=template)
    assert found["A11"].value == 1.0
    assert "by mode" in found["A10"].message and found["A10"].level == "error"


def test_texts_with_and_without_a_thought_are_two_modes(tiny_model):
    texts = [{"text": row["messages"][1]["content"]} for row in (PLAIN, PLAIN, LONG, LONG)]
    assert audited(tiny_model, texts, SFT)["A11"].value == 1.0


@says(T3=error(1 / 2, "loses or does not train 1 thoughts of 1 rows"))
def test_a_template_that_strips_earlier_thoughts_loses_them(tiny_model, tmp_path, expected):
    template = tmp_path / "strips.jinja"
    template.write_text(TURNS.replace("{{ m.content }}", "{{ m.content if loop.last else "
                                      "m.content.split('</think>')[-1] }}"))  # fmt: skip
    twice = {"messages": [*SHORT["messages"], user("2 plus 2?"), assistant("<think>2+2</think>4")]}
    found = audited(tiny_model, [SHORT, twice, PLAIN], SFT, template=template)
    assert expected.missed_by(found) == []


@says(T3=ok(0.0, "every thought is in the trained text"))
def test_a_thought_whose_words_the_question_has_too_is_trained(tiny_model, expected):
    found = audited(tiny_model, [talk("<think>12 plus 3?</think>15"), talk("<think>plus</think>15"), SHORT], ANSWERS)
    assert expected.missed_by(found) == []


@says(T3=error(1.0))
def test_a_thought_before_the_generation_tags_is_not_trained(tiny_model, tmp_path, expected):
    template = tmp_path / "before.jinja"
    template.write_text("{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
                        "{{ m.content.split('</think>')[0] }}</think>{% generation %}{{ m.content.split('</think>')[1] "
                        "}}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}\n"
                        "{% endfor %}")  # fmt: skip
    found = audited(tiny_model, [talk("<think>12 plus 3?</think>15"), SHORT], ANSWERS, template=template)
    assert expected.missed_by(found) == []


@says(R0=error(1, "the template raises on 1 rows"))
def test_a_row_on_which_the_template_raises_stops_the_trainer(tiny_model, tmp_path, expected):
    template = tmp_path / "strict.jinja"
    template.write_text("{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turn') }}"
                        "{% endif %}{{ m.content }}{% endfor %}")  # fmt: skip
    strange = {"messages": [{"role": "system", "content": "Be brief."}, *SHORT["messages"]]}
    found = audited(tiny_model, [SHORT, strange, SHORT], SFT, template=template)
    assert expected.missed_by(found) == []
