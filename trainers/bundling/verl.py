"""The bundle of a run of verl: rows and tokenizer as verl reads them, its settings without a place of this machine, and
a script of the standard library that gives verl its command and merges what verl saves."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curation import environments
from curation.config import shown
from curation.console import say
from trainers.bundling import rewards as reward_files
from trainers.bundling.writing import render, start_of
from trainers.process import verl_prepare, verl_settings

SHIM = "{here}/source/trainers/rewards/verl_shim.py"
ENGINES = ("vllm", "sglang", "trtllm")  # rollouts that verl names an extra of its distribution after


@dataclass
class Places:
    """Values of settings that are places of this machine, as a bundle writes them: `known` by value or by the folder
    that it lies in; other files are copied into `files/` of `folder`, other folders become arguments of the script
    (`weights`: what each is here)."""

    folder: Path
    known: dict[str, str]
    weights: dict[str, str] = field(default_factory=dict)

    def moved(self, name: str, value: Any) -> Any:
        """A setting's value with `{here}`, `{output}`, `{model}` or `{NAME}` in the place of this machine's paths."""
        if isinstance(value, list):
            return [self.moved(name, item) for item in value]
        if not isinstance(value, str):
            return value
        for place, there in self.known.items():
            if value == place or value.startswith(place + "/"):
                return there + value[len(place) :]
        path = Path(value)
        if path.is_absolute() and path.is_file():
            return f"{{here}}/files/{reward_files.taken(path, self.folder / 'files')}"
        if path.is_absolute() and path.is_dir():
            self.weights[name] = value
            return f"{{{name}}}"
        return value


def write(job: dict[str, Any], entry: str, folder: Path) -> None:
    """Write everything but template, record and audit. Raises UserError for what verl would not take, but for what only
    its environment here lacks, and for a reward that no bundle can hold."""
    made = folder / ".made"
    inside = job | {"output": str(made / "weights")}
    given, lengths = verl_prepare.written(inside, entry, elsewhere=True)
    rows = made / "verl"
    (folder / "data").mkdir()
    for path in [*rows.glob("train*.parquet"), *rows.glob("val*.parquet"), rows / "left_out.jsonl"]:
        path.rename(folder / "data" / path.name)
    (rows / "tokenizer").rename(folder / "tokenizer")
    rewards, weights = reward_files.write(job, folder)
    places = Places(folder, {
        str(rows / "tokenizer"): "{here}/tokenizer", str(rows / "state"): "{output}/state", job["model"]: "{model}",
        str(rows / "rewards.json"): "{output}/rewards.json", str(rows): "{here}/data",
        job["evidence"]: "{output}/rollouts"}, weights)  # fmt: skip
    sized = verl_settings.CPUS in given and verl_settings.CPUS not in job["config"] and given["trainer.nnodes"] == 1
    if sized:
        del given[verl_settings.CPUS]
    if rewards:
        places.known[given[f"{verl_settings.REWARD}.path"]] = SHIM
    settings = {name: places.moved(name, value) for name, value in given.items()}
    shutil.rmtree(made)
    asked = {"run": job["record"]["run"], "rewards": rewards} | reward_files.failures(job)
    launch = {"entry": entry, "backend": verl_prepare.backend(given, entry), "environment": verl_prepare.ENVIRONMENT,
              "max_steps": verl_settings.max_steps(given, entry, lengths["train"]), "sized": sized,
              "trust_remote_code": job["trust_remote_code"]}  # fmt: skip
    for name, value in (("settings", settings), ("launch", launch), ("rewards", asked if rewards else None)):
        if value is not None:
            (folder / f"{name}.json").write_text(json.dumps(value, indent=1, sort_keys=True))
    shutil.copyfile(Path(verl_settings.__file__), folder / "verl_settings.py")
    _texts(job, entry, settings, places.weights, rewards, folder)
    say(f"{lengths['train']:,} rows to train on and {lengths['val']:,} held out, as verl reads them")


def _texts(job: dict[str, Any], entry: str, settings: dict[str, Any], weights: dict[str, str],
           rewards: list[dict[str, Any]], folder: Path) -> None:  # fmt: skip
    """The script, what must be installed, and how to go about it."""
    engine = str(settings.get("actor_rollout_ref.rollout.name", "")) if entry == "rl" else ""
    (folder / "requirements.txt").write_text(requirements(engine if engine in ENGINES else ""))
    if rewards:
        reward_files.write_requirements(reward_files.requirements(rewards),
                                            folder / "requirements-rewards.txt")  # fmt: skip
    modules = sorted(value for name, value in settings.items() if isinstance(value, str) and
                     (value.startswith("pkg://") or name.endswith(".external_lib")))  # fmt: skip
    if modules:
        say(f"must be installed there beside requirements.txt: {', '.join(modules)}")
    named = {"run": job["record"]["run"], "start": start_of(job), "weights": weights, "rewards": rewards}
    render("verl.py.j2", folder / "train.py", **named)
    render("README.verl.md.j2", folder / "README.md", **named, command=_shown(entry, settings), modules=modules,
           nodes=settings["trainer.nnodes"],
           left_out=(folder / "data" / "left_out.jsonl").stat().st_size > 0)  # fmt: skip


def _shown(entry: str, settings: dict[str, Any]) -> str:
    """verl's command for readers, one option a line, with HERE, OUTPUT and so on for places."""
    words = verl_settings.command(Path("python"), entry, _upper(settings))
    first = next(number for number, word in enumerate(words) if word.startswith("++"))
    return " \\\n        ".join([shlex.join(words[:first]), *map(shlex.quote, words[first:])])


def _upper(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _upper(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_upper(item) for item in value]
    return re.sub(r"^\{([\w.]+)\}", lambda found: found[1].upper(), value) if isinstance(value, str) else value


def requirements(engine: str) -> str:
    """verl's environment as kedge pins it; with a rollout engine verl's own extra of that name says which torch."""
    pinned = environments.definitions()["verl"]
    lines = [line for line in pinned.read_text().splitlines() if line and not line.startswith("# verl apart")]
    if engine:
        lines = [line.replace("verl==", f"verl[{engine}]==") for line in lines if not line.startswith("torch==")]
        say(f"requirements.txt takes torch and {engine} as verl's extra '{engine}' pins them, the rest from "
            f"{shown(pinned)}")  # fmt: skip
    return "\n".join(lines) + "\n"
