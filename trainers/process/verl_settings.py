"""A job as verl's settings and command line: full option names, Hydra's grammar, sizes under which nothing waits."""

from __future__ import annotations

import math
import os
import re
import shlex
import socket
from pathlib import Path
from typing import Any

Job = dict[str, Any]
Settings = dict[str, Any]

STORAGE = "transfer_queue.backend.SimpleStorage"
REWARD = "reward.custom_reward_function"
CPUS = "ray_kwargs.ray_init.num_cpus"
CPUS_PER_GPU = 3  # verl reserves as many for each GPU: ResourcePoolManager.max_colocate_count
SPARE_CPUS = 8  # an actor without a reservation still needs a free CPU at the moment it is placed
SAVE_STEPS = 20  # verl's examples; its own default never saves
PLAIN = re.compile(r"[A-Za-z/_][\w/.+@-]*")  # text that Hydra takes as it is
MASTER_PORT, RAY_PORT = 29500, 6379


def folder_of(job: Job) -> Path:
    """Where everything of verl lies: rows, tokenizer, command, metrics and verl's own checkpoints."""
    return Path(job["output"]).parent / "verl"


def settings(job: Job, entry: str, lengths: dict[str, int]) -> Settings:
    """Every option that verl is given, by its full name: the run's own and those that kedge sets. `lengths` are the
    numbers of rows written for training and held out."""
    own = dict(job["config"])
    found = (_rl if entry == "rl" else _sft)(job, own, lengths)
    found["trainer.logger"] = list(dict.fromkeys(["console", "file", *_listed(own.pop("trainer.logger", []))]))
    return found | own


def _shared(job: Job) -> Settings:
    folder = folder_of(job)
    return {
        "data.train_files": str(folder / "train.parquet"),
        "data.apply_chat_template_kwargs": {name: value for name, value in job["kwargs"].items() if name != "verl"},
        "trainer.default_local_dir": str(folder / "state"), "trainer.resume_mode": "auto",
        "trainer.project_name": "kedge", "trainer.experiment_name": job["record"]["run"],
        "trainer.nnodes": 1, "trainer.n_gpus_per_node": job.get("num_processes", 1),
    }  # fmt: skip


def _rl(job: Job, own: Settings, lengths: dict[str, int]) -> Settings:
    nodes, tokenizer = own.get("trainer.nnodes", 1), str(folder_of(job) / "tokenizer")
    found = _shared(job) | {
        "data.val_files": str(folder_of(job) / ("val.parquet" if lengths["val"] else "train.parquet")),
        "data.filter_overlong_prompts": True, "data.seed": 0, "data.trust_remote_code": job["trust_remote_code"],
        "trainer.save_freq": SAVE_STEPS, f"{STORAGE}.num_data_storage_units": 2 * nodes if _whole(nodes) else 2,
    }  # fmt: skip
    for name in ("actor_rollout_ref.model", "critic.model"):
        found |= {f"{name}.path": job["model"], f"{name}.tokenizer_path": tokenizer,
                  f"{name}.trust_remote_code": job["trust_remote_code"]}  # fmt: skip
    if not lengths["val"]:  # verl cannot be without validation rows; these are never asked
        found |= {"data.val_max_samples": 1, "trainer.val_before_train": False, "trainer.test_freq": -1}
    if job["rewards"]:
        found |= rewards(job)
    if nodes != 1:
        return found | {"ray_kwargs.ray_init.address": "auto", CPUS: None}
    needed = num_cpus(found | own)
    return found | {CPUS: max(os.cpu_count() or 1, needed + SPARE_CPUS), "ray_kwargs.ray_init.include_dashboard": False}


def _sft(job: Job, own: Settings, lengths: dict[str, int]) -> Settings:
    return _shared(job) | {
        "data.val_files": str(folder_of(job) / "val.parquet") if lengths["val"] else None,
        "model.path": job["model"], "model.tokenizer_path": str(folder_of(job) / "tokenizer"),
        "model.trust_remote_code": job["trust_remote_code"], "trainer.save_freq": "after_each_epoch",
    }  # fmt: skip


def rewards(job: Job) -> Settings:
    """verl's reward function: the shim, which asks the components of the run in kedge's own process."""
    from trainers.rewards import verl_shim

    return {f"{REWARD}.path": str(Path(verl_shim.__file__).resolve()), f"{REWARD}.name": "compute_score",
            f"{REWARD}.reward_kwargs.config": str(folder_of(job) / "rewards.json"),
            f"{REWARD}.reward_kwargs.evidence": job["evidence"]}  # fmt: skip


def num_cpus(given: Settings) -> int:
    """Logical CPUs that verl and TransferQueue reserve in Ray before the first step. With fewer they wait for ever,
    without a word: 3 for each GPU of every pool, one for each storage unit, one for the controller, one to place an
    actor in."""

    def number(name: str, default: int) -> int:
        value = given.get(name, default)
        return int(value) if _whole(value) else default

    gpus = number("trainer.nnodes", 1) * number("trainer.n_gpus_per_node", 1)
    if given.get("reward.reward_model.enable_resource_pool"):
        gpus += number("reward.reward_model.nnodes", 0) * number("reward.reward_model.n_gpus_per_node", 8)
    return CPUS_PER_GPU * gpus + number(f"{STORAGE}.num_data_storage_units", 8) + 2


def max_steps(given: Settings, entry: str, num_rows: int) -> int:
    """Steps of the whole run, as verl counts them."""
    if (total := given.get("trainer.total_training_steps")) is not None:
        return int(total)
    batch = given.get("data.train_batch_size", 1024 if entry == "rl" else 256)
    return num_rows // int(batch) * int(given.get("trainer.total_epochs", 30 if entry == "rl" else 4))


def room(given: Settings, lengths: dict[str, int]) -> int:
    """Samples that TransferQueue must hold at once: those of a step and of the step after, and a whole validation."""
    batch, responses, tried = (given.get(name, default) for name, default in (
        ("data.train_batch_size", 1024), ("actor_rollout_ref.rollout.n", 1),
        ("actor_rollout_ref.rollout.val_kwargs.n", 1)))  # fmt: skip
    if not all(map(_whole, (batch, responses, tried))):
        return 0  # refused for their types
    return int(2 * batch * responses + lengths["val"] * tried)


def arguments(given: Settings) -> list[str]:
    """Hydra's overrides. `++` sets a key whether the YAML has it or not; unknown names were refused before."""
    return [f"++{name}={text(value)}" for name, value in given.items()]


def text(value: Any) -> str:
    """A value in the grammar of Hydra's overrides. Raises ValueError for one that it has no form for."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is no setting")
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(text, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{text(item)}" for name, item in value.items()) + "}"
    if isinstance(value, str):
        if PLAIN.fullmatch(value) and value.lower() not in ("null", "true", "false", "nan", "inf"):
            return value
        escaped = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), value)
        return f"'{escaped}'"
    raise ValueError(f"{type(value).__name__} is no setting")


def command(python: Path, entry: str, given: Settings, rank: int = 0) -> list[str]:
    """verl's command line of one node."""
    tail = ["hydra.run.dir=hydra", "hydra.output_subdir=null", *arguments(given)]
    if entry == "rl":
        return [str(python), "-m", "verl.trainer.main_ppo", *tail]
    nodes, processes = given["trainer.nnodes"], given["trainer.n_gpus_per_node"]
    where = ["--standalone"] if nodes == 1 else [f"--nnodes={nodes}", f"--node_rank={rank}", "--master_addr="
                                                 f"{socket.gethostname()}", f"--master_port={MASTER_PORT}"]  # fmt: skip
    return [str(python), "-m", "torch.distributed.run", *where, f"--nproc_per_node={processes}", "-m",
            "verl.trainer.sft_trainer", *tail]  # fmt: skip


def on_other_nodes(python: Path, entry: str, given: Settings) -> str:
    """What to start on every node before the run, as verl documents it; empty for one node."""
    nodes = int(given["trainer.nnodes"])
    if nodes == 1:
        return ""
    if entry == "sft":
        return "".join(f"# node {rank}\n{shlex.join(command(python, entry, given, rank))}\n"
                       for rank in range(1, nodes))  # fmt: skip
    ray, head = python.with_name("ray"), f"{socket.gethostname()}:{RAY_PORT}"
    here = f"# here, before the run\n{ray} start --head --port={RAY_PORT}\n"
    return here + f"# on each of the other {nodes - 1} nodes\n{ray} start --address={head}\n"


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
