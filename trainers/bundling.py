"""`kedge train RUN --bundle DIR`: a folder that trains the run on a machine without kedge's lake.

It holds the frozen rows in the trainer's own shape, template and tokenizer, the trainer's configuration, a plain script
(TRL) or command (verl), the packages it needs at the versions that are installed here, and the audit. Checkpoints that
it makes carry a record, by which `kedge checkpoint add` enters them with their lineage. Weights are not in it.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from curation.auditing.setting import installed_version
from curation.catalog import Catalog, write_parquet
from curation.config import SHIPPED, find_project
from curation.console import out, say
from curation.errors import UserError
from trainers.training import Training, job_of, prepared

PACKAGES = ("trl", "transformers", "torch", "datasets", "accelerate", "pyarrow")
SOURCE = ("curation", "trainers")  # what rewards need of kedge


def bundle(name: str, target: Path) -> None:
    """Write the bundle of a run after a passing audit. Raises UserError where `target` holds anything already."""
    training = prepared(Catalog(find_project()), name)
    if target.exists() and any(target.iterdir()):
        raise UserError("holds something already", "name a new folder", where=str(target), key="--bundle")
    draft = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    say(f"bundling {name}")
    job = job_of(training)
    if training.run.trainer_name.startswith("trl_"):
        _trl(training, job, draft)
    else:
        training.trainer.bundle(job, draft)
    _common(training, job, draft)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rmdir()
    draft.rename(target)
    out.print(f"{target}: copy it, make an environment from requirements.txt, and follow its README.md", markup=False)
    out.print(f"back here: kedge checkpoint add {target}/out/checkpoint-* --run {name}", markup=False)


def _common(training: Training, job: dict[str, Any], folder: Path) -> None:
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(job["tokenizer"]).save_pretrained(folder / "tokenizer")
    if job["template"] is not None:
        (folder / "template.jinja").write_text(job["template"])
    (folder / "record.json").write_text(json.dumps(job["record"], indent=1, sort_keys=True))
    shutil.copytree(training.fates.parent, folder / "audit")


def _trl(training: Training, job: dict[str, Any], folder: Path) -> None:
    from trainers.process.models import lora_arguments
    from trainers.process.trl import KINDS, options

    kind = KINDS[job["trainer"]]
    (folder / "data").mkdir()
    for name in ("parts", "held_out"):
        if job[name]:
            rows = kind.rows(job, job[name]).with_format("arrow")[:]
            write_parquet(folder / "data" / f"{'train' if name == 'parts' else name}.parquet", rows)
    lora = None if job["lora"] is None else lora_arguments(job)
    given = {"config": options(job), "dtype": job["dtype"], "lora": lora, "job": {
        name: job[name] for name in ("rewards", "record", "trainer", "stage")}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(given, indent=1, sort_keys=True))
    if job["rewards"]:
        for package in SOURCE:
            shutil.copytree(SHIPPED.parent / package, folder / "source" / package,
                            ignore=shutil.ignore_patterns("__pycache__", "*.nbi", "*.nbc"))  # fmt: skip
    scoring = job["trainer"] == "trl_reward"
    roles = {role: f"{item.id} ({item.weights_hash[:12]})" for role, item in training.run.roles().items()}
    start = training.run.start()
    text = _environment().get_template("trl.py.j2").render(
        run=training.run.name, trainer=job["trainer"], config_class=f"{kind.name}Config",
        trainer_class=f"{kind.name}Trainer", start=f"{start.id} ({start.weights_hash[:12]})",
        model_class="AutoModelForSequenceClassification" if scoring else "AutoModelForCausalLM",
        model_arguments=", num_labels=1" if scoring else "", has_template=job["template"] is not None,
        teacher=roles.get("teacher"), reference=roles.get("reference"), lora=lora,
        rewards=bool(job["rewards"]))  # fmt: skip
    (folder / "train.py").write_text(text + "\n")
    wanted = [*PACKAGES, *(["peft"] if lora else []), *(_own_requirements() if job["rewards"] else [])]
    lines = [f"{item}=={installed_version(item)}" if installed_version(item) else item for item in wanted]
    (folder / "requirements.txt").write_text("\n".join(lines) + "\n")
    readme = _environment().get_template("README.md.j2")
    (folder / "README.md").write_text(readme.render(run=training.run.name, start=start.id, roles=roles) + "\n")


def _own_requirements() -> list[str]:
    """What kedge itself needs, beside what is listed anyway."""
    from packaging.requirements import Requirement

    named = [Requirement(line) for line in importlib.metadata.requires("kedge") or []]
    return sorted({item.name for item in named if item.marker is None} - set(PACKAGES))


def _environment() -> Environment:
    return Environment(loader=FileSystemLoader(SHIPPED / "bundles"), undefined=StrictUndefined, autoescape=False)
