"""A project with sums to ask and to learn, and verl's options under which they are trained without an accelerator."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from curation import cli
from curation.config import SHIPPED
from curation.quickstart.journey import inside

HERE = Path(__file__).parent
NUM_ROWS, NUM_LONG = 24, 4
LIMIT = 64
LONG = {"check": "R1", "value": 0.3, "reason": "the long sums may go"}
MIXTURE = "/* ---\nstage: {stage}\ntokenizer: tiny\ntemplate: chatml\n--- */\nFROM kept\n"
ENVIRONMENT = {
    "PYTHONPATH": str(HERE), "VERL_USE_EXTERNAL_MODULES": "verl_cpu,verl_cpu_rollout", "VERL_PLATFORM": "cpu",
    "VERL_ENGINE_DEVICE": "cuda", "OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0", "CUDA_VISIBLE_DEVICES": "0",
}  # fmt: skip
ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
SFT: dict[str, Any] = {
    "name": "verl_sft", "train_batch_size": 4, "micro_batch_size_per_gpu": 2, "use_dynamic_bsz": False,
    "max_length": 256, "num_workers": 0, "model.use_remove_padding": False,
    "model.override_config.attn_implementation": "sdpa", "engine.strategy": "fsdp2", "optim.lr": 1e-3,
    "trainer.device": "cpu", "trainer.total_epochs": 1,
}  # fmt: skip
RL: dict[str, Any] = {
    "name": "verl_rl", "train_batch_size": 4, "max_prompt_length": LIMIT, "max_response_length": 8,
    "filter_overlong_prompts": True, "dataloader_num_workers": 0, "actor_rollout_ref.model.use_remove_padding": False,
    "actor_rollout_ref.model.override_config.attn_implementation": "sdpa",
    "actor_rollout_ref.model.external_lib": "verl_cpu_rollout", f"{ACTOR}.strategy": "fsdp2",
    f"{ACTOR}.use_torch_compile": False, f"{ACTOR}.ppo_mini_batch_size": 4, f"{ACTOR}.ppo_micro_batch_size_per_gpu": 2,
    f"{ACTOR}.optim.lr": 1e-4, f"{ROLLOUT}.name": "hfcpu", f"{ROLLOUT}.n": 2,
    f"{ROLLOUT}.tensor_model_parallel_size": 1, f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu": 2,
    f"{ROLLOUT}.agent.num_workers": 1, f"{ROLLOUT}.free_cache_engine": False, f"{ROLLOUT}.load_format": "auto",
    "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": 2, "reward.num_workers": 1, "trainer.device": "cpu",
    "trainer.total_epochs": 1, "trainer.val_before_train": False, "ray_kwargs.ray_init.num_gpus": 1,
    "ray_kwargs.ray_init.object_store_memory": 300_000_000,
}  # fmt: skip
REWARDS = [{"name": "answer"}, {"name": "function", "path": str(HERE / "vowels.py") + ":share", "weight": 0.5}]
CRITIC: dict[str, Any] = {
    "critic.strategy": "fsdp2", "critic.model.use_remove_padding": False, "critic.ppo_micro_batch_size_per_gpu": 2,
    "critic.model.override_config.attn_implementation": "sdpa",
}  # fmt: skip


@contextlib.contextmanager
def without_accelerator() -> Iterator[None]:
    """Let verl's processes find the platform and the rollout of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment().items():
            patch.setenv(name, value)
        yield


def environment() -> dict[str, str]:
    """What verl's processes and their check need to find the platform and rollout of these tests."""
    paths = [ENVIRONMENT["PYTHONPATH"], *filter(None, [os.environ.get("PYTHONPATH")])]
    return ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(paths)}


def make_project(root: Path, model: Path) -> Path:
    """Sums of which four are long, as prompts with answers (a share of them held out) and as conversations."""
    for name in ("mixtures", "runs"):
        (root / "catalogs" / name).mkdir(parents=True)
    (root / "kedge.yaml").write_text(f"tokenizers: {{tiny: {model}}}\n")
    with (root / "asked.jsonl").open("w") as asked, (root / "told.jsonl").open("w") as told:
        for number in range(NUM_ROWS):
            question = {"role": "user", "content": f"What is {'1+' * (80 if number < NUM_LONG else 1)}{number}?"}
            asked.write(json.dumps({"prompt": [question], "ground_truth": str(number), "verifier": "math"}) + "\n")
            answer = {"role": "assistant", "content": f"The answer is {number + 1}."}
            told.write(json.dumps({"messages": [question, answer]}) + "\n")
    for name, stage in (("asked", "rlvr"), ("told", "sft")):
        (root / "catalogs" / "mixtures" / f"{name}.sql").write_text(MIXTURE.format(stage=stage))
    with inside(root):
        for name, stage in (("asked", "rlvr"), ("told", "sft")):
            assert cli.run(["add", f"{name}.jsonl", "--stage", stage, "--held-out", "0.2"]) == 0
        for name in ("asked", "told"):
            assert cli.run(["mix", "build", name]) == 0
    return root


def write_run(root: Path, name: str, model: Path, options: dict[str, Any], **more: Any) -> None:
    sft = options["name"] == "verl_sft"
    scored = {} if sft else {"rewards": REWARDS, "waivers": [LONG]}
    template = str(SHIPPED / "templates" / "chatml.jinja")
    content = {"trainer": options, "mixture": "told" if sft else "asked", "base": str(model), "template": template}
    content |= scored | more
    (root / "catalogs" / "runs" / f"{name}.yaml").write_text(yaml.safe_dump(content))
