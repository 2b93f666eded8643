"""What is written before verl starts: rows, tokenizer, settings and the exact command, checked by verl itself."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from curation import environments
from curation.config import shown
from curation.console import say
from curation.errors import InstrumentError, Problem, UserError, did_you_mean
from curation.rendering.thoughts import THINK_MARKS
from trainers.process import verl_data, verl_settings

Job = dict[str, Any]

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
             "merges.txt", "vocab.txt", "*.model", "*.tiktoken", "chat_template.jinja")  # fmt: skip
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "HYDRA_FULL_ERROR": "1", "PYTHONUNBUFFERED": "1",
               "TRANSFORMERS_VERBOSITY": "error", "RAY_COLOR_PREFIX": "0"}  # fmt: skip
FAILURES = ("failed_value", "max_failure_share", "wall_seconds")  # of the client of the reward services
MERGED = {"fsdp": "fsdp", "fsdp2": "fsdp", "megatron": "megatron"}  # verl's engines and the backends of its merger


def prepare(job: Job, entry: str) -> None:
    """Write everything and check it. Raises UserError with all that verl would not take, InstrumentError where verl
    does not see the rows that were written, or renders them otherwise than the audit."""
    python, folder = environments.python("verl"), verl_settings.folder_of(job)
    given, lengths = written(job, entry)
    command = verl_settings.command(python, entry, given)
    (folder / "command.txt").write_text(shlex.join(command) + "\n")
    launch = {"entry": entry, "command": command, "environment": ENVIRONMENT, "cpus": verl_settings.num_cpus(given),
              "nodes": int(given["trainer.nnodes"]), "gpus": int(given["trainer.n_gpus_per_node"]),
              "max_steps": verl_settings.max_steps(given, entry, lengths["train"]),
              "backend": backend(given, entry)}  # fmt: skip
    (folder / "launch.json").write_text(json.dumps(launch, indent=1, sort_keys=True))
    _tell(command, verl_settings.on_other_nodes(python, entry, given), folder)


def written(job: Job, entry: str, *, elsewhere: bool = False) -> tuple[dict[str, Any], dict[str, int]]:
    """Write rows, tokenizer and settings and let verl check them: every setting by its full name, and the number of
    rows written of each split. With `elsewhere` verl runs in another environment: what it lacks here is no problem."""
    python = environments.python("verl")
    _possible(job, entry)
    folder = verl_settings.folder_of(job)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    for path in folder.glob("*.parquet"):
        path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(job, folder / "tokenizer")
    if job["rewards"]:
        write_rewards(job, folder / "rewards.json")
    lengths, out = verl_data.write(job, entry, folder)
    if not lengths["train"]:
        raise UserError("no row is left for verl", f"see {shown(folder / 'left_out.jsonl')}")
    if out:
        say(f"{len(out):,} rows are left out before verl sees them, each with its reason: "
            f"{shown(folder / 'left_out.jsonl')}")  # fmt: skip
    given = verl_settings.settings(job, entry, lengths)
    _sized(given, entry, folder, lengths)
    _check(python, job, case_of(entry, given, lengths) | {"elsewhere": elsewhere})
    (folder / "settings.json").write_text(json.dumps(given, indent=1, sort_keys=True))
    return given, lengths


def backend(given: dict[str, Any], entry: str) -> str:
    """The backend of verl's merger for the checkpoints of a run."""
    return MERGED.get(_strategy(given, entry), "fsdp")


def _possible(job: Job, entry: str) -> None:
    """Raises UserError for what this wrapper cannot do for verl."""
    problems = []
    if job["resume"] is not None and not Path(job["resume"]).is_relative_to(job["output"]):
        problems.append(Problem("verl goes on in a run of its own alone", "name it as parent", key="extends"))
    if entry == "rl" and job["rewards"] and f"{verl_settings.REWARD}.path" in job["config"]:
        problems.append(Problem("the run names rewards and a reward function of verl", "remove one of them",
                                key=f"trainer.{verl_settings.REWARD}.path"))  # fmt: skip
    strategy = _strategy(job["config"], entry)
    if strategy not in MERGED and strategy in ("veomni", "torchtitan", "automodel"):
        problems.append(Problem(f"verl's merger does not know the checkpoints of '{strategy}'",
                                f"use {' or '.join(MERGED)}", key="trainer.strategy"))  # fmt: skip
    hidden = hidden_marks(Path(job["tokenizer"])) if entry == "rl" and job["rewards"] else []
    if hidden:
        marks = " and ".join(hidden)
        problems.append(Problem(f"verl decodes answers without special tokens, and {marks} are such in this "
                                "vocabulary: no reward would see where a thought ends", 'set "special": false of them '
                                "in tokenizer.json (ids stay as they are), and name that tokenizer",
                                key="tokenizer"))  # fmt: skip
    if problems:
        raise UserError(problems)


def hidden_marks(folder: Path) -> list[str]:
    """The marks of a thought that the tokenizer of a folder calls special tokens."""
    path = folder / "tokenizer.json"
    tokens = json.loads(path.read_bytes()).get("added_tokens", []) if path.is_file() else []
    marks = {mark for pair in THINK_MARKS for mark in pair}
    return [token["content"] for token in tokens if token["special"] and token["content"] in marks]


def _strategy(given: dict[str, Any], entry: str) -> str:
    name = "actor_rollout_ref.actor.strategy" if entry == "rl" else "engine.strategy"
    return str(given.get(name, "fsdp"))


def _sized(given: dict[str, Any], entry: str, folder: Path, lengths: dict[str, int]) -> None:
    """Complete the settings with what depends on the files: their names, and the room that TransferQueue needs."""
    for split in ("train", "val"):
        if lengths[split]:
            found = verl_data.files(folder, split)
            given[f"data.{split}_files"] = found[0] if len(found) == 1 else found
    size = f"{verl_settings.STORAGE}.total_storage_size"
    if entry == "rl" and size not in given:
        given[size] = max(100_000, verl_settings.room(given, lengths))


def case_of(entry: str, given: dict[str, Any], lengths: dict[str, int]) -> dict[str, Any]:
    """The question to verl_check.py about settings, where `lengths` rows are trained on and held out."""
    return {"entry": entry, "settings": given, "arguments": verl_settings.arguments(given), "data": lengths,
            "cpus": verl_settings.num_cpus(given),
            "room": verl_settings.room(given, lengths) if entry == "rl" else 0}  # fmt: skip


def _check(python: Path, job: Job, case: dict[str, Any]) -> None:
    folder, lengths = verl_settings.folder_of(job), case["data"]
    case |= {"tokenizer": str(folder / "tokenizer"), "audited": str(folder / "audited.parquet"),
             "cache": str(folder / "cache")}  # fmt: skip
    say("verl checks its settings and rows in its own environment")
    answer = ask(python, {"run": case}, folder)["run"]
    if answer["problems"]:
        raise UserError([problem(item) for item in answer["problems"]])
    for split, num_rows in answer["lengths"].items():
        if num_rows != lengths[split]:
            raise InstrumentError(f"{lengths[split]:,} rows were written for {split}, and verl's dataset holds "
                                  f"{num_rows:,}", f"see {shown(folder / 'check.log')}, and report it")  # fmt: skip
    if answer["differing"]:
        raise InstrumentError("verl renders rows otherwise than the audit: " + "; ".join(answer["differing"]),
                              "report it, with the tokenizer and the template")  # fmt: skip


def ask(python: Path, cases: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run verl_check.py on cases in verl's environment; its output goes to `check.log`. Raises InstrumentError where
    it ends without an answer."""
    asked, answered, log = folder / "check.json", folder / "answer.json", folder / "check.log"
    asked.write_text(json.dumps(cases))
    answered.unlink(missing_ok=True)
    script = Path(__file__).with_name("verl_check.py")
    environment = os.environ | ENVIRONMENT | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    with log.open("w") as stream:
        done = subprocess.run([str(python), "-P", str(script), str(asked), str(answered)], env=environment, check=False,
                              stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)  # fmt: skip
    if done.returncode:
        last = (log.read_text(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise InstrumentError(f"the check in verl's environment failed: {last}", f"see {shown(log)}")
    found: dict[str, Any] = json.loads(answered.read_text())
    return found


def problem(item: dict[str, Any]) -> Problem:
    """A problem as verl_check.py tells it."""
    key = f"trainer.{item['key'].removeprefix('data.')}"
    return Problem(item["what"], item["next"] or (did_you_mean(item["name"], item["known"]) if item["known"] else ""),
                   key=key)  # fmt: skip


def write_tokenizer(job: Job, folder: Path) -> None:
    """The tokenizer's own files under the audited template, without a config.json beside them: with one, AutoTokenizer
    rebuilds some tokenizers after the model's type."""
    from curation.rendering.tokenizers import resolve

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    target, revision = resolve(None, job["tokenizer"])
    source = Path(target)
    if not source.is_dir():
        from huggingface_hub import snapshot_download

        source = Path(snapshot_download(target, revision=revision, allow_patterns=list(TOKENIZER)))
    for pattern in TOKENIZER:
        for path in source.glob(pattern):
            shutil.copyfile(path, folder / path.name)
    if job["template"] is not None:
        (folder / "chat_template.jinja").write_text(job["template"])
        settings = folder / "tokenizer_config.json"
        if settings.is_file():
            kept = json.loads(settings.read_text())
            kept.pop("chat_template", None)
            settings.write_text(json.dumps(kept, indent=1, ensure_ascii=False))


def write_rewards(job: Job, path: Path) -> None:
    """What the shim is given of the run: its components and the models that they score with."""
    named = {"run": job["record"]["run"], "project": job["project"], "rewards": job["rewards"], "roles": job["roles"],
             "python": sys.executable} | {name: job[name] for name in FAILURES if name in job}  # fmt: skip
    path.write_text(json.dumps(named, indent=1, sort_keys=True))


def _tell(command: list[str], others: str, folder: Path) -> None:
    say(f"verl's command ({shown(folder / 'command.txt')}): {shlex.join(command)}")
    (folder / "nodes.txt").unlink(missing_ok=True)
    if others:
        (folder / "nodes.txt").write_text(others)
        say(f"start verl's other nodes ({shown(folder / 'nodes.txt')}):\n{others}")
