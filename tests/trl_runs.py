"""A project with frozen pairs and prompts, and a run of every trainer of TRL that takes them."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import traceback
from pathlib import Path
from typing import Any

import pytest
import yaml

TAKE_ALL = "/* ---\nstage: {stage}\ntokenizer: tiny\ntemplate: chatml\n--- */\nSELECT row_id FROM kept"
COMMON = {"max_steps": 2, "save_steps": 2, "per_device_train_batch_size": 4, "logging_steps": 1, "learning_rate": 1e-3}
RL = {"num_generations": 4, "max_completion_length": 8, "eval_strategy": "no"}
REWARDS = [{"name": "answer"}, {"name": "function", "path": "distinct.py:distinct", "weight": 0.5}]
FUNCTION = """def distinct(samples):
    return [len(set(sample.completion)) / 10 for sample in samples]
"""
TRAINERS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "trl_dpo": ("pairs", {"loss_type": "apo_zero", "beta": 0.05, "eval_strategy": "steps", "eval_steps": 2}, {}),
    "trl_kto": ("pairs", {}, {}),
    "trl_reward": ("pairs", {"center_rewards_coefficient": 0.01}, {}),
    "trl_grpo": ("prompts", {**RL, "loss_type": "dr_grpo"}, {"rewards": REWARDS}),
    "trl_rloo": ("prompts", RL, {"rewards": REWARDS}),
    "trl_distillation": ("prompts", {"max_completion_length": 8}, {"teacher": "teacher"}),
}


def make_project(root: Path, model: Path) -> Path:
    """Sixteen pairs and sixteen prompts, a fifth of them held out, frozen; the runs are not audited yet."""
    from curation import cli
    from curation.quickstart.journey import inside

    for name in ("mixtures", "runs", "sources"):
        (root / "catalogs" / name).mkdir(parents=True)
    (root / "kedge.yaml").write_text(f"tokenizers: {{tiny: {model}}}\n")
    sides = [
        {
            "prompt": [{"role": "user", "content": f"{n} plus 3?"}],
            "chosen": [{"role": "assistant", "content": f"The answer is {n + 3}."}],
            "rejected": [{"role": "assistant", "content": f"It may be {n + 4}, or not."}],
        }
        for n in range(16)
    ]
    asked = [{"prompt": [{"role": "user", "content": f"{n} plus 3?"}], "ground_truth": str(n + 3),
              "verifier": "numeric"} for n in range(16)]  # fmt: skip
    with inside(root):
        for name, stage, rows, shape in (
            ("pairs", "preference", sides, "preference"),
            ("prompts", "rlvr", asked, "verifiable"),
        ):
            (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            (root / "catalogs" / "mixtures" / f"{name}.sql").write_text(TAKE_ALL.format(stage=stage))
            source = {"reader": "jsonl", "path": f"{name}.jsonl", "stage": stage, "shape": shape,
                      "held_out": 0.2}  # fmt: skip
            (root / "catalogs" / "sources" / f"{name}.yaml").write_text(yaml.safe_dump(source))
            assert cli.run(["add", name]) == 0
        for name in ("pairs", "prompts"):
            assert cli.run(["mix", "build", name]) == 0
    (root / "distinct.py").write_text(FUNCTION)
    make_teacher(model, root / "teacher")
    for name, (mixture, options, more) in TRAINERS.items():
        write_run(root, name, model, name, mixture, options, more)
    return root


def make_teacher(model: Path, folder: Path) -> None:
    """Another model of the same kind: the weights with noise, so that there is something to learn from it."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    shutil.copytree(model, folder)
    draw = np.random.default_rng(1)
    tensors = load_file(folder / "model.safetensors")
    noisy = {name: value + 0.1 * draw.standard_normal(value.shape).astype(value.dtype)
             for name, value in sorted(tensors.items())}  # fmt: skip
    save_file(noisy, folder / "model.safetensors", metadata={"format": "pt"})


def write_run(root: Path, name: str, model: Path, trainer: str, mixture: str, options: dict[str, Any],
              more: dict[str, Any]) -> None:  # fmt: skip
    value = {"trainer": {"name": trainer, **COMMON, **options}, "mixture": mixture, "base": str(model),
             "template": "chatml", **more}  # fmt: skip
    (root / "catalogs" / "runs" / f"{name}.yaml").write_text(yaml.safe_dump(value))


def train_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let TRL's training processes be run by this process, which has torch and trl loaded already; one that raises
    leaves its traceback in the log and 1 as its exit code. The border between processes is tested in
    test_train_runs_behind_the_gate."""
    from trainers import Launch
    from trainers._trl import TRLTrainer
    from trainers.process import trl

    def launch(self: TRLTrainer, launch: Launch) -> int:
        before = torch.are_deterministic_algorithms_enabled()
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                return trl.main(str(launch.job))
        except Exception:
            launch.log.write_text(traceback.format_exc())
            return 1
        finally:
            torch.use_deterministic_algorithms(before)

    import torch

    monkeypatch.setattr(TRLTrainer, "launch", launch)
    monkeypatch.setattr(trl, "die_with_command", lambda: None)
