"""`kedge train RUN --bundle DIR`: a folder that trains the run on a machine without kedge's lake.

It holds the frozen rows in the trainer's own shape, template and tokenizer, the trainer's configuration, a plain script
(TRL) or verl's command behind one, the packages it needs, what the rewards need, and the audit. Checkpoints that it
makes carry a record, by which `kedge checkpoint add` enters them with their lineage. Weights are not in it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from curation.catalog import Catalog, write_parquet
from curation.config import SHIPPED, find_project
from curation.console import out, say
from curation.errors import UserError
from trainers._trl import TRLTrainer
from trainers.bundling import record as bundle_record
from trainers.bundling import rewards as reward_files
from trainers.training import Training, job_of, prepared

PACKAGES = ("trl", "transformers", "torch", "datasets", "accelerate", "pyarrow")


def bundle(name: str, target: Path) -> None:
    """Write the bundle of a run after a passing audit. Raises UserError where `target` holds anything already, or the
    run needs what no bundle can hold."""
    training = prepared(Catalog(find_project()), name)
    if training.run.file.extends is not None:
        raise UserError("goes on with the optimiser of a checkpoint here, and weights are not in a bundle",
                        "train it here, or name the checkpoint as parent", where=training.run.where,
                        key="extends")  # fmt: skip
    if target.exists() and any(target.iterdir()):
        raise UserError("holds something already", "name a new folder", where=str(target), key="--bundle")
    draft = target.absolute().with_name(f".{target.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    say(f"bundling {name}")
    try:
        job = job_of(training) | {"where": training.run.where}
        if isinstance(training.trainer, TRLTrainer):
            _trl(training, job, draft)
        else:
            training.trainer.bundle(job, draft)
        if job["template"] is not None:
            (draft / "template.jinja").write_text(job["template"])
        bundle_record.write(job["record"], draft)
        shutil.copytree(training.fates.parent, draft / "audit")
        if target.exists():
            target.rmdir()
        draft.rename(target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    out.print(f"{target}: copy it, and follow its README.md", markup=False)
    out.print(f"back here: kedge checkpoint add {target}/out/checkpoint-* --run {name}", markup=False)


def _trl(training: Training, job: dict[str, Any], folder: Path) -> None:
    from transformers import AutoTokenizer

    from trainers.process.models import lora_arguments
    from trainers.process.trl import KINDS, options

    AutoTokenizer.from_pretrained(job["tokenizer"]).save_pretrained(folder / "tokenizer")
    kind = KINDS[job["trainer"]]
    (folder / "data").mkdir()
    for name in ("parts", "held_out"):
        if job[name]:
            rows = kind.rows(job, job[name]).with_format("arrow")[:]
            write_parquet(folder / "data" / f"{'train' if name == 'parts' else name}.parquet", rows)
    lora = None if job["lora"] is None else lora_arguments(job)
    rewards, scoring_weights = reward_files.write(job, folder)
    asked = {"trainer": job["trainer"], "stage": job["stage"], "record": job["record"], "rewards": rewards, "config":
             {name: job["config"].get(name) for name in ("max_completion_length",)}}  # fmt: skip
    given = {"config": options(job), "dtype": job["dtype"], "lora": lora,
             "job": asked | reward_files.failures(job)}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(given, indent=1, sort_keys=True))
    scoring = job["trainer"] == "trl_reward"
    roles = {role: f"{item.id} ({item.weights_hash[:12]})" for role, item in training.run.roles().items()
             if role in ("reference", "teacher")}  # fmt: skip
    named = {"run": training.run.name, "start": start_of(job), "weights": roles | scoring_weights}
    render("trl.py.j2", folder / "train.py", **named, trainer=job["trainer"], config_class=f"{kind.name}Config",
           trainer_class=f"{kind.name}Trainer", lora=lora, rewards=bool(rewards),
           model_class="AutoModelForSequenceClassification" if scoring else "AutoModelForCausalLM",
           model_arguments=", num_labels=1" if scoring else "",
           has_template=job["template"] is not None)  # fmt: skip
    wanted = [*PACKAGES, *(["peft"] if lora else [])]
    more = reward_files.requirements(rewards) if rewards else []
    reward_files.write_requirements([*wanted, *(name for name in more if name not in wanted)],
                                        folder / "requirements.txt")  # fmt: skip
    render("README.md.j2", folder / "README.md", **named, rewards=rewards)


def start_of(job: dict[str, Any]) -> str:
    """Which weights training starts from, as a bundle names them."""
    record = job["record"]
    return f"{record['parent']} ({record['base_hash'][:12]}; {record['base_path']})"


def render(template: str, path: Path, **values: Any) -> None:
    """Write a file of a bundle from its template in catalogs/bundles/."""
    found = Environment(loader=FileSystemLoader(SHIPPED / "bundles"), undefined=StrictUndefined, autoescape=False)
    path.write_text(found.get_template(template).render(**values).rstrip() + "\n")
