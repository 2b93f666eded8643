"""The table of metric names against what real, short runs of TRL log on a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainers.monitors.following import pair_lengths
from trainers.monitors.names import LOGGED, RL, names_of
from trainers.monitors.readings import Readings
from trainers.monitors.rules import MONITORS, judge, options_of, rules_for

STEPS = 2
TALK = [{"role": "user", "content": "What is 1 plus 2?"}]
ANSWER = [{"role": "assistant", "content": "The answer is 3."}]
WRONG = [{"role": "assistant", "content": "The answer is 30."}]
PAIR = {"prompt": TALK, "chosen": ANSWER, "rejected": WRONG}
ROWS: dict[str, list[dict[str, Any]]] = {
    "SFT": [{"messages": TALK + ANSWER}] * 4, "DPO": [PAIR] * 4, "Reward": [PAIR] * 4,
    "KTO": [{"prompt": TALK, "completion": side, "label": side is ANSWER} for side in (ANSWER, WRONG) * 2],
    "GRPO": [{"prompt": TALK}] * 4, "RLOO": [{"prompt": TALK}] * 4,
}  # fmt: skip
MORE: dict[str, dict[str, Any]] = {
    "GRPO": {"num_generations": 2, "max_completion_length": 4, "beta": 0.01},
    "RLOO": {"num_generations": 2, "max_completion_length": 4},
}
SOMETIMES_HERE = {"trl_grpo": {"kl"}}


def count_threes(completions: list[Any], **kwargs: Any) -> list[float]:
    return [float(item[0]["content"].count("3")) for item in completions]


def logged(kind: str, model: Path, folder: Path) -> Readings:
    """What `transformers.Trainer` tells its callbacks in a few steps and the evaluation after them."""
    import datasets
    import transformers
    import trl

    run = Readings(names_of(f"trl_{kind.lower()}"))

    class Log(transformers.TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            run.add({"step": state.global_step, "max_steps": state.max_steps} | {
                name: value for name, value in logs.items() if isinstance(value, int | float)})  # fmt: skip

    args = getattr(trl, f"{kind}Config")(
        output_dir=str(folder), max_steps=STEPS, logging_steps=1, eval_strategy="steps", eval_steps=STEPS, use_cpu=True,
        bf16=False, gradient_checkpointing=False, per_device_train_batch_size=2, per_device_eval_batch_size=2,
        report_to="none", save_strategy="no", disable_tqdm=True, **MORE.get(kind, {}))  # fmt: skip
    loaded: Any = str(model)
    more: dict[str, Any] = {"reward_funcs": [count_threes]} if kind in MORE else {}
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    if kind == "Reward":
        loaded = transformers.AutoModelForSequenceClassification.from_pretrained(model, num_labels=1)
        loaded.config.pad_token_id = tokenizer.pad_token_id
    rows = datasets.Dataset.from_list(ROWS[kind])
    few = rows.select([0, 1])
    trainer = getattr(trl, f"{kind}Trainer")(model=loaded, args=args, train_dataset=rows, eval_dataset=few,
                                             processing_class=tokenizer, callbacks=[Log()], **more)  # fmt: skip
    trainer.train()
    return run


@pytest.mark.parametrize("kind", ["SFT", "DPO", "KTO", "Reward", "GRPO", "RLOO"])
def test_every_name_of_the_table_is_logged_by_trl(kind: str, tiny_model: Path, tmp_path: Path):
    run = logged(kind, tiny_model, tmp_path)
    trainer = f"trl_{kind.lower()}"
    for quantity in set(LOGGED[trainer]) | SOMETIMES_HERE.get(trainer, set()):
        series = run.get(quantity)
        assert run.matching(quantity), f"{quantity}: none of {LOGGED[trainer].get(quantity)} in {sorted(run.values)}"
        assert len(series.steps) == (1 if quantity.startswith("held_out") else STEPS), quantity
    stage = {"SFT": "sft", "GRPO": "rlvr", "RLOO": "rlvr"}.get(kind, "preference")
    assert [item.name for item in judge(run, rules_for(stage)) if item.name == "non_finite"] == []
    assert run.max_steps == STEPS


def test_what_a_monitor_needs_is_in_the_table_of_names():
    known = {quantity for trainer in LOGGED for quantity in names_of(trainer)}
    for name, monitor in MONITORS.items():
        assert set(monitor.needs) <= known, name
        assert options_of(name)() is not None
    assert names_of("somebody_elses")["entropy"][0] == "entropy"
    assert set(LOGGED) >= RL


def test_the_lengths_of_pairs_are_those_of_the_sides_that_are_both_kept(tmp_path: Path):
    import pyarrow as pa

    from curation.catalog import write_parquet

    table = pa.table({"position": [0, 0, 1, 1, 2, 2], "side": pa.array([0, 1, 0, 1, 0, 1], pa.int8()),
                      "kept_trained_tokens": [10, 20, 5, 0, 7, 8]})  # fmt: skip
    write_parquet(tmp_path / "fates.parquet", table)
    lengths = pair_lengths(str(tmp_path / "fates.parquet"))
    assert lengths.tolist() == [[10, 7], [20, 8]]
    assert pair_lengths(str(tmp_path / "absent.parquet")) is None
