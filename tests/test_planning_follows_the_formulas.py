"""Hours by formula against published figures; steps against those that TRL and verl count; unusual settings."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation import environments
from curation.auditing.model_shape import Shape
from curation.config import Project
from curation.errors import KedgeError, UserError
from trainers.planning.catalogs import load, warnings
from trainers.planning.steps import (
    TRL_BETA,
    TRL_DEFAULTS,
    VERL_DEFAULTS,
    VERL_SFT_DEFAULTS,
    Settings,
    trl_settings,
    verl_settings,
)
from trainers.planning.work import (
    Size,
    Work,
    device_hours,
    preference_work,
    rl_work,
    tokens_per_second,
    training_flops,
    utilisation_of,
)

try:
    VERL_PYTHON = environments.python("verl")
except KedgeError:
    VERL_PYTHON = None

KNOWN = load(Project(Path("/nonexistent")))
HARDWARE = KNOWN.hardware
H100 = HARDWARE.device("H100-80GB")

# post_training_70b_case_study: 64 H100, rows, pairs, epochs, groups and prompts are the case's. It gives no tokens, no
# architecture, no epochs of the reward model, no samples of PPO, no rows of the safety stage: assumed here are Llama's
# 70B shape, rows of 30,000 tokens (reasoning traces that fill a 32k context), sides of pairs of 10,500, completions of
# 3,000 behind prompts of 500, a 13B reward model over two epochs, a group of 12 (the case: 8 to 16), PPO with a critic
# of its own size and 16 samples a prompt, 150,000 pairs for safety; activations recomputed, the shipped utilisations.
ROW, SIDE, PROMPT, COMPLETION = 30_000, 10_500, 500, 3_000
LARGE = Size(70e9, 80 * 8192, 2 * 2 * 80 * 1024)
REWARD_MODEL = Size(13e9, 40 * 5120, 2 * 2 * 40 * 5120)
PUBLISHED = {"sft": (3_000, 4_600), "rm": (2_300, 3_000), "dpo": (4_600, 7_700), "ppo": (7_680, 10_752),
             "grpo": (7_700, 10_800), "safety": (1_500, 3_000)}  # fmt: skip
PATHS = {"ppo": (("sft", "rm", "ppo", "grpo", "safety"), (22_000, 32_000)),
         "dpo": (("sft", "dpo", "grpo", "safety"), (17_000, 26_000))}  # fmt: skip


def hours(work: Work, size: Size, kind: str) -> float:
    return device_hours(work, size, H100, HARDWARE.utilisation[kind].value, HARDWARE.decoding)


def case_hours(stage: str, epochs: float = 2.5) -> float:
    """GPU hours of one stage of the case."""
    if stage == "sft":
        return hours(Work(training_flops(LARGE, 100_000 * epochs * ROW, ROW, recomputed=True)), LARGE, "sft")
    if stage == "rm":
        work = preference_work(REWARD_MODEL, 2 * 2 * 500_000 * SIDE, SIDE, reference=None, recomputed=True)
        return hours(work, REWARD_MODEL, "reward_model")
    if stage in ("dpo", "safety"):
        pairs = 500_000 if stage == "dpo" else 150_000
        return hours(preference_work(LARGE, 2 * pairs * SIDE, SIDE, reference=LARGE, recomputed=True), LARGE,
                     "preference")  # fmt: skip
    samples = 200_000 * 12 if stage == "grpo" else 100_000 * 16
    work = rl_work(LARGE, samples, PROMPT, COMPLETION, scoring_passes=2, critic=stage == "ppo", recomputed=True)
    return hours(work, LARGE, "rlvr")


@pytest.mark.parametrize("stage", PUBLISHED)
def test_every_stage_of_the_70b_case_lies_in_its_published_range(stage: str):
    low, high = PUBLISHED[stage]
    assert low <= case_hours(stage) <= high


def test_two_and_three_epochs_span_the_published_days_of_sft():
    assert case_hours("sft", 2) == pytest.approx(2 * 64 * 24, rel=0.03)
    assert case_hours("sft", 3) == pytest.approx(3 * 64 * 24, rel=0.03)


@pytest.mark.parametrize("path", PATHS)
def test_the_paths_of_the_70b_case_and_their_iterations_lie_in_their_ranges(path: str):
    stages, (low, high) = PATHS[path]
    total = sum(case_hours(stage) for stage in stages)
    assert low <= total <= high
    assert 3 * low <= 3 * total <= 5 * total <= 5 * high


def test_the_cold_start_run_takes_1500_steps_and_70_minutes():
    settings = Settings(method="lora", epochs=2, batch=16)
    steps = settings.steps(12_000)
    assert steps == 1_500
    assert steps * 2.79 / 60 == pytest.approx(70, abs=0.5)


def test_the_utilisation_of_adapters_lies_between_what_the_cold_start_run_says_without_and_with_recomputation():
    size, shares = Size(3e9, 32 * 2560), []
    for recomputed in (False, True):
        work = Work(training_flops(size, 16 * 2048, 2048, lora=True, recomputed=recomputed))
        shares.append(utilisation_of(work, 2.79, H100))
    assert shares[0] == pytest.approx(0.15, abs=0.01)
    assert shares[1] == pytest.approx(0.23, abs=0.01)
    assert shares[0] < HARDWARE.utilisation["lora"].value < shares[1]


def test_training_takes_six_operations_a_parameter_and_token_and_eight_when_recomputed():
    size = Size(1e9)
    assert training_flops(size, 10, 512) == 6e10
    assert training_flops(size, 10, 512, recomputed=True) == 8e10
    assert training_flops(size, 10, 512, lora=True) == 4e10
    assert preference_work(size, 10, 512, reference=size) == Work(6e10, 2e10)
    assert rl_work(size, 5, 1, 1, scoring_passes=2).scoring == 4e10
    assert rl_work(size, 5, 1, 1, scoring_passes=2, critic=True) == Work(12e10, 6e10, 5, 1.5)


def test_attention_adds_two_operations_a_unit_of_width_and_token_of_context():
    shape = Shape(layers=2, hidden=8, heads=2, kv_heads=1, head_dim=4, intermediate=16, vocabulary=32)
    size = Size.of(shape)
    assert size.parameters == 2 * (8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 16) + 32 * 8
    assert size.forward(3, 100) == 3 * (2 * size.parameters + 2 * 2 * 8 * 100)
    assert size.cache_bytes == 2 * 2 * 2 * 4


@given(st.floats(1e9, 1e11), st.floats(100, 30_000))
def test_generation_is_slower_for_larger_models_and_longer_contexts_and_never_beyond_the_bandwidth(
    parameters: float, context: float
):
    made = [tokens_per_second(Size(parameters * factor, 1e5, 1e5), context * longer, H100, HARDWARE.decoding)
            for factor, longer in ((1, 1), (2, 1), (1, 2))]  # fmt: skip
    assert made[0] >= made[1] * 0.999
    assert made[0] >= made[2] * 0.999
    assert made[0] <= 256 * H100.bandwidth_bytes / (2 * parameters)


def test_sums_of_work_weigh_contexts_by_their_tokens():
    both = Work(1, 2, 100, 1_000) + Work(3, 4, 300, 2_000)
    assert both == Work(4, 6, 400, 1_750)


SIZES = [("SFT", 20, {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2, "num_train_epochs": 2.5}),
         ("SFT", 7, {"per_device_train_batch_size": 2, "num_train_epochs": 1.0}),
         ("SFT", 7, {"per_device_train_batch_size": 2, "max_steps": 9}),
         ("GRPO", 10, {"per_device_train_batch_size": 4, "num_generations": 2, "gradient_accumulation_steps": 2}),
         ("GRPO", 9, {"per_device_train_batch_size": 4, "num_generations": 4, "num_iterations": 2,
                      "num_train_epochs": 2.0}),
         ("GRPO", 11, {"per_device_train_batch_size": 2, "num_generations": 2, "steps_per_generation": 4,
                       "gradient_accumulation_steps": 2})]  # fmt: skip


@pytest.mark.parametrize(("kind", "num_rows", "options"), SIZES)
def test_steps_are_those_that_trl_plans(kind: str, num_rows: int, options: dict[str, Any], tiny_model: Path,
                                        tmp_path: Path):  # fmt: skip
    import datasets
    import transformers
    import trl

    class Told(Exception):
        pass

    class Ask(transformers.TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            raise Told(state.max_steps)

    of = TRL_DEFAULTS | {"max_steps": -1, "num_train_epochs": 1.0, "per_device_train_batch_size": 8,
                         "max_completion_length": 8} | options  # fmt: skip
    planned = trl_settings(f"trl_{kind.lower()}", of, 1).steps(num_rows)
    args = getattr(trl, f"{kind}Config")(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none",
                                         gradient_checkpointing=False, disable_tqdm=True,
                                         **{"num_train_epochs": 1.0} | options)  # fmt: skip
    talk = [{"role": "user", "content": "1 plus 1?"}]
    rows = [{"prompt": talk} if kind == "GRPO" else {"messages": [*talk, {"role": "assistant", "content": "2."}]}
            for _ in range(num_rows)]  # fmt: skip
    more: dict[str, Any] = {"reward_funcs": [lambda completions, **_: [0.0] * len(completions)]}
    trainer = getattr(trl, f"{kind}Trainer")(
        model=str(tiny_model), args=args, train_dataset=datasets.Dataset.from_list(rows), callbacks=[Ask()],
        processing_class=transformers.AutoTokenizer.from_pretrained(tiny_model),
        **more if kind == "GRPO" else {})  # fmt: skip
    with pytest.raises(Told) as told:
        trainer.train()
    assert told.value.args[0] == planned


def test_defaults_that_a_plan_takes_for_granted_are_trls():
    from dataclasses import fields

    import trl

    known = {item.name: item.default for item in fields(trl.GRPOConfig)}
    ours = {"gradient_checkpointing"}  # kedge turns it off (trainers/process/trl.py)
    assert {name: known[name] for name in TRL_DEFAULTS if name not in ours} == {
        name: value for name, value in TRL_DEFAULTS.items() if name not in ours}  # fmt: skip
    assert {item.name: item.default for item in fields(trl.RLOOConfig)}["beta"] == TRL_BETA["trl_rloo"]


@pytest.mark.verl
@pytest.mark.skipif(VERL_PYTHON is None, reason="the verl environment is not there")
def test_defaults_that_a_plan_takes_for_granted_are_verls(tmp_path: Path):
    wanted = {"ppo_trainer": VERL_DEFAULTS, "sft_trainer_engine": VERL_SFT_DEFAULTS}
    code = ("import sys, json\nfrom hydra import compose, initialize_config_module\nfrom omegaconf import OmegaConf\n"
            "wanted = json.load(open(sys.argv[1]))\n"
            "with initialize_config_module(config_module='verl.trainer.config', version_base=None):\n"
            "    found = {name: {key: OmegaConf.select(compose(name), key) for key in keys}"
            " for name, keys in wanted.items()}\njson.dump(found, open(sys.argv[2], 'w'))\n")  # fmt: skip
    (tmp_path / "keys.json").write_text(json.dumps({name: list(keys) for name, keys in wanted.items()}))
    subprocess.run([str(VERL_PYTHON), "-c", code, "keys.json", "found.json"], check=True, cwd=tmp_path)
    assert json.loads((tmp_path / "found.json").read_text()) == wanted


def test_verl_counts_whole_batches_of_prompts_and_passes_of_scoring():
    of = verl_settings("verl_rl", {"data.train_batch_size": 128, "trainer.total_epochs": 2,
                                   "actor_rollout_ref.rollout.n": 8, "algorithm.adv_estimator": "grpo",
                                   "actor_rollout_ref.actor.use_kl_loss": True})  # fmt: skip
    assert (of.steps(1_000), of.group_size, of.beta, of.scoring_passes, of.critic) == (14, 8, 0.001, 2, False)
    assert of.passes(1_000) == 2
    assert verl_settings("verl_rl", {"trainer.total_training_steps": 5}).steps(10_000) == 5
    assert verl_settings("verl_sft", {"data.train_batch_size": 32}).steps(100) == 12


def test_batches_that_trl_refuses_are_refused():
    options = TRL_DEFAULTS | {"max_steps": -1, "num_train_epochs": 1, "per_device_train_batch_size": 3,
                              "num_generations": 2, "max_completion_length": 8}  # fmt: skip
    with pytest.raises(UserError, match="no whole groups"):
        trl_settings("trl_grpo", options, 1)


UNUSUAL = [
    ("sft", "trl_sft", {"learning_rate": 2e-4}, "the learning rate 0.0002"),
    ("sft", "trl_sft", {"learning_rate": 1e-5, "epochs": 8}, "the number of epochs 8"),
    ("preference", "trl_dpo", {"loss": "sigmoid", "beta": 5.0}, "beta 5"),
    ("preference", "trl_dpo", {"loss": "sigmoid_norm", "beta": 0.1}, "beta 0.1"),
    ("preference", "trl_dpo", {"loss": "sigmoid", "beta": 0.1, "epochs": 3}, "the number of epochs 3"),
    ("preference", "trl_dpo", {"loss": "sigmoid", "learning_rate": 2e-5}, "the learning rate 2e-05"),
    ("rlvr", "trl_grpo", {"group_size": 2}, "the group size 2"),
    ("rlvr", "verl_rl", {"temperature": 0.2}, "the rollout temperature 0.2"),
    ("rlvr", "verl_rl", {"learning_rate": 1e-4}, "the learning rate 0.0001"),
]


@pytest.mark.parametrize(("stage", "trainer", "options", "told"), UNUSUAL)
def test_a_setting_outside_of_what_is_published_is_told_alone(stage: str, trainer: str, options: dict[str, Any],
                                                              told: str):  # fmt: skip
    found = warnings(KNOWN.practices, stage, trainer, Settings(**{"method": "full", "epochs": 1, "batch": 8} | options))
    assert len(found) == 1
    assert found[0].startswith(told)
    assert "published" in found[0]


@pytest.mark.parametrize(("stage", "trainer", "options"), [
    ("sft", "trl_sft", {"learning_rate": 5e-6, "epochs": 2}),  # Tulu 3
    ("sft", "trl_sft", {"learning_rate": 2e-4, "method": "lora"}),
    ("preference", "trl_dpo", {"learning_rate": 1e-6, "loss": "apo_zero", "beta": 0.05}),  # SmolLM3
    ("preference", "trl_dpo", {"learning_rate": 8e-8, "loss": "sigmoid_norm", "beta": 5}),  # Olmo 3
    ("rlvr", "verl_rl", {"learning_rate": 1e-6, "group_size": 8, "temperature": 1.0, "beta": 0.0}),  # Olmo 3
])  # fmt: skip
def test_published_recipes_are_not_unusual(stage: str, trainer: str, options: dict[str, Any]):
    settings = Settings(**{"method": "full", "epochs": 1, "batch": 128} | options)
    assert warnings(KNOWN.practices, stage, trainer, settings) == []
