"""Checks R0 to R6: prompts of reinforcement learning that trip each, and prompts that do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curation.auditing.setting import Setting
from tests.audited import (
    audited,
    case,
    checks_by_id,
    column,
    error,
    mirror,
    ok,
    prompt,
    says,
    talk,
    warn,
)  # fmt: skip

SHORT = prompt()
LONG = prompt("12 plus 3? " * 60)
SOLVED = prompt(reference_solution="12 + 3 = 15")
VERL = mirror("verl_rl", max_prompt_length=64, train_batch_size=1)
FILTERED = mirror("verl_rl", max_prompt_length=64, train_batch_size=1, filter_overlong_prompts=True)
GRPO = mirror("trl_grpo", max_completion_length=64)
STRICT = (
    "{% for m in messages %}{% if 'images' in m.content %}{{ raise_exception('no images') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
)


def positions(folder: Path, number: int, **more: object) -> Setting:
    """A setting whose model attends to so many positions."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": number} | more))
    return Setting(folder)


@says(R0=ok(), R1=ok(), R2=ok(), R3=ok(), R4=ok(0.0, "3 of 3"), R5=ok(), R6=ok(), A10=ok(), V1=ok(), V2=ok())
def test_short_prompts_with_accepted_truths_trip_nothing(tiny_model, expected):
    found = audited(tiny_model, [SHORT, SOLVED, SHORT], GRPO)
    assert expected.missed_by(found) == []


@says(R0=error(1, "3 rows are less than one batch"), R1=ok())
def test_fewer_prompts_than_a_batch_stop_the_trainer(tiny_model, expected):
    found = audited(tiny_model, [SHORT] * 3, mirror("verl_rl", max_prompt_length=64, train_batch_size=4))
    assert expected.missed_by(found) == []


@says(R1=error(1 / 3, "1 prompts lose their beginning: the trainer keeps the last 64 tokens"), A10=ok())
def test_a_long_prompt_is_cut_on_the_left(tiny_model, expected):
    found = audited(tiny_model, [SHORT, SHORT, LONG], VERL)
    assert expected.missed_by(found) == []


@says(R1=warn(1 / 40, "1 prompts are longer than 64 tokens and dropped"))
def test_a_long_prompt_is_dropped_by_the_filter(tiny_model, expected):
    found = audited(tiny_model, [SHORT] * 39 + [LONG], FILTERED)
    assert expected.missed_by(found) == []


@says(R1=ok(), R0=ok(), R4=error(1 / 3, "1 on which the template raises"))
def test_a_prompt_on_which_the_template_raises_is_lost_by_the_filter_and_not_too_long(tiny_model, tmp_path, expected):
    (tmp_path / "strict.jinja").write_text(STRICT)
    found = audited(tiny_model, [SHORT, SHORT, prompt("What do the images show?")], FILTERED,
                   template=tmp_path / "strict.jinja")  # fmt: skip
    assert expected.missed_by(found) == []


@says(R0=error(1, "1 prompts raise in verl's agent loop"), R4=error(1 / 3))
def test_a_prompt_on_which_the_template_raises_stops_a_run_without_the_filter(tiny_model, tmp_path, expected):
    (tmp_path / "strict.jinja").write_text(STRICT)
    found = audited(tiny_model, [SHORT, SHORT, prompt("What do the images show?")], VERL,
                   template=tmp_path / "strict.jinja")  # fmt: skip
    assert expected.missed_by(found) == []


@says(R2=error(1 / 2, "50.0% of the reference solutions of 'long' are longer than a completion may be (64)"), R1=ok())
def test_a_solution_that_fits_into_no_completion_is_an_error_of_its_source(tiny_model, expected):
    long = SOLVED | {"reference_solution": "12 + 3 = 15, " * 40, "source": "long"}
    found = audited(tiny_model, [SOLVED, SHORT, SOLVED | {"source": "long"}, long], GRPO)
    assert expected.missed_by(found) == []


@says(R2=warn(1 / 10))
def test_one_such_solution_of_ten_is_a_warning(tiny_model, expected):
    found = audited(tiny_model, [SOLVED] * 9 + [SOLVED | {"reference_solution": "12 + 3 = 15, " * 40}], GRPO)
    assert expected.missed_by(found) == []


@says(R2=ok(), R3=ok())
def test_a_solution_that_just_fits_is_fine(tiny_model, expected):
    made = case(tiny_model, [SOLVED, SHORT], GRPO)
    length = column(made, "solution_tokens")[0]
    found = audited(tiny_model, [SOLVED, SHORT], mirror("trl_grpo", max_completion_length=length))
    assert expected.missed_by(found) == []


@says(R3=error(None, "and 64 of an answer) do not fit into the model's positions (80)"))
def test_prompt_and_completion_together_outgrow_the_positions(tiny_model, tmp_path, expected):
    made = case(tiny_model, [SHORT, prompt("12 plus 3 is? " * 3)], GRPO, setting=positions(tmp_path / "m", 80))
    longest = max(column(made, "tokens"))
    found = checks_by_id(made)
    assert found["R3"].value == pytest.approx((longest + 64) / 80 - 1)
    assert expected.missed_by(found) == []


@says(R3=ok(0.0, "fit into the model's positions (160)"))
def test_a_rope_scaling_stretches_the_positions(tiny_model, tmp_path, expected):
    scaled = positions(tmp_path / "m", 80, rope_scaling={"rope_type": "yarn", "factor": 2.0})
    found = audited(tiny_model, [SHORT, SHORT], GRPO, setting=scaled)
    assert expected.missed_by(found) == []


@says(R3=error(None, "do not fit into vllm_max_model_length (70)"))
def test_the_engines_own_limit_counts_too(tiny_model, tmp_path, expected):
    found = audited(tiny_model, [SHORT, SHORT], mirror("trl_grpo", max_completion_length=64, vllm_max_model_length=70),
                   setting=positions(tmp_path / "m", 1024))  # fmt: skip
    assert expected.missed_by(found) == []


@says(R3=error(64 / 48 - 1, "packed sequences of 64 tokens do not fit into the model's positions (48)"))
def test_packed_sequences_outgrow_the_positions_though_no_row_does(tiny_model, tmp_path, expected):
    found = audited(tiny_model, [talk("15")] * 3, mirror("trl_sft", max_length=64, packing=True),
                   setting=positions(tmp_path / "m", 48))  # fmt: skip
    assert expected.missed_by(found) == []


@says(R4=error(3 / 4, "2 missing, 1 not accepted by its verifier"))
def test_a_truth_that_is_missing_or_that_its_verifier_cannot_read_is_an_error(tiny_model, expected):
    found = audited(tiny_model, [SHORT, prompt(truth=" "), prompt() | {"ground_truth": None}, prompt(truth="fifteen?")],
                   GRPO)  # fmt: skip
    assert expected.missed_by(found) == []


@says(R4=ok(0.0, "5 of 5"))
def test_a_truth_is_checked_under_whatever_name_its_data_give_the_verifier(tiny_model, expected):
    logic = "(1) Ann is a knight\n(2) Bob is a knave"
    rows = [prompt(truth=truth, verifier=name) for truth, name in (
        ("1,234", "openai/gsm8k"), ("\\frac{\\sqrt{3}}{2}", "DigitalLearningGmbH/MATH-lighteval"), ("7", "aime24"),
        (logic, "kk_logic"), ("(B)", "mmlu"))]  # fmt: skip
    assert expected.missed_by(audited(tiny_model, rows, GRPO)) == []


@says(R4=error(3 / 4, "3 not accepted by its verifier; 1 name a verifier that is not kedge's"))
def test_a_truth_that_the_verifier_behind_a_name_cannot_read_is_an_error(tiny_model, expected):
    rows = [prompt(truth=truth, verifier=name) for truth, name in (
        ("many", "openai/gsm8k"), ("both lie", "kk_logic"), ("x" * 2_001, "math_dapo"),
        ("4", "searchR1_nq"))]  # fmt: skip
    assert expected.missed_by(audited(tiny_model, rows, GRPO)) == []


@says(R4=error(1 / 3, "1 also held out"))
def test_a_prompt_that_is_held_out_for_evaluation_is_an_error(tiny_model, expected):
    rows = [SHORT | {"prompt_hash": name} for name in ("a", "b", "c")]
    found = audited(tiny_model, rows, GRPO, held_out=frozenset("b"))
    assert expected.missed_by(found) == []


@says(R4=warn(0.0, "1 name a verifier that is not kedge's"))
def test_a_verifier_of_others_is_told(tiny_model, expected):
    found = audited(tiny_model, [SHORT, SHORT, SHORT | {"verifier": "my_own"}], GRPO)
    assert expected.missed_by(found) == []


@says(R5=warn(0.75, "25.0% of the groups of 2 have a gradient"))
def test_prompts_that_are_always_or_never_solved_carry_no_gradient(tiny_model, expected):
    rows = [prompt(pass_rates=[rate]) for rate in (0.0, 1.0, 0.5, 0.5)]
    found = audited(tiny_model, rows, mirror("trl_grpo", num_generations=2))
    assert expected.missed_by(found) == []


@says(R5=ok(0.5, "50.0% of the groups of 2"))
def test_prompts_that_are_solved_half_of_the_time_carry_one(tiny_model, expected):
    rows = [prompt(pass_rates=[0.5]), prompt(pass_rates=[0.0, 1.0]), prompt(pass_rates=[0.25, None, 0.75]),
            prompt(pass_rates=[]), prompt(pass_rates=[None]), prompt()]  # fmt: skip
    found = audited(tiny_model, rows, mirror("trl_grpo", num_generations=2))
    assert expected.missed_by(found) == []


@says(R6=error(1, "12 completions a generation are no whole groups"))
def test_completions_that_make_no_whole_groups_are_an_error(tiny_model, expected):
    found = audited(tiny_model, [SHORT] * 3, GRPO, setting=Setting(options={"per_device_train_batch_size": 12}))
    assert expected.missed_by(found) == []


@says(R6=ok(0.0, "16 completions of 2 prompts per generation, 2 optimiser updates on them"))
def test_completions_that_make_whole_groups_are_fine(tiny_model, expected):
    options = {"per_device_train_batch_size": 8, "steps_per_generation": 2}
    found = audited(tiny_model, [SHORT] * 3, GRPO, setting=Setting(options=options))
    assert expected.missed_by(found) == []


@says(R6=error(1, "4 prompts leave 1 over in mini batches of 3"))
def test_a_mini_batch_that_does_not_divide_the_batch_is_an_error(tiny_model, expected):
    options = {"train_batch_size": 4, "ppo_mini_batch_size": 3, "ppo_micro_batch_size_per_gpu": 1, "n": 8}
    found = audited(tiny_model, [SHORT] * 4, VERL, setting=Setting(options=options))
    assert expected.missed_by(found) == []
