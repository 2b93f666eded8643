"""Audits without a lake: a bare dataset, or a launch file of another framework with the data that it names."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.auditing.audit import Audit, audit_key, audit_rows, filled_columns, mirror_for
from curation.auditing.case import Case, read_rows
from curation.auditing.gate import default_mirror
from curation.auditing.labels import told_labels
from curation.auditing.launch_files import Launch
from curation.auditing.mirrors import Mirror
from curation.auditing.setting import Setting
from curation.config import Project
from curation.errors import UserError
from curation.fingerprint import fingerprint, hash_file
from curation.measures._rendered import RenderedMeasure
from curation.measures.anatomy import anatomy_for
from curation.reports.audit import worst_rows

# What a verl file calls the numbers of a batch -> where they stand in it.
VERL_BATCH = {
    "train_batch_size": "data.train_batch_size", "n": "actor_rollout_ref.rollout.n",
    "ppo_mini_batch_size": "actor_rollout_ref.actor.ppo_mini_batch_size",
    "ppo_micro_batch_size_per_gpu": "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu",
    "ppo_epochs": "actor_rollout_ref.actor.ppo_epochs", "num_processes": "trainer.n_gpus_per_node",
}  # fmt: skip


def audit_file(path: Path, tokenizer: str, max_length: int | None, *, project: Project | None = None,
               assistant_only: bool = False) -> tuple[Audit, pa.Table]:  # fmt: skip
    """Audit a bare dataset under the defaults of TRL's trainer of its stage, without any project. The template is the
    tokenizer's own where it has one, else ChatML."""
    with tempfile.TemporaryDirectory() as folder:
        return _judge(bare_case(path, tokenizer, max_length, project, Path(folder), assistant_only=assistant_only))


def audit_launch(launch: Launch, path: Path, tokenizer: str | None, max_length: int | None, *,
                 project: Project | None = None) -> tuple[Audit, pa.Table]:  # fmt: skip
    """Audit what a launch file would do, under its own trainer and options; a tokenizer or a length that is given
    stands in for the file's."""
    with tempfile.TemporaryDirectory() as folder:
        case = launch_case(launch, path, tokenizer, max_length, project, Path(folder))
        audit, fates = _judge(case)
        audit.details |= {"framework": launch.framework, "notes": launch.notes}
        return audit, fates


def _judge(case: Case) -> tuple[Audit, pa.Table]:
    assert case.measure is not None
    data = fingerprint([hash_file(part) for part in case.parts])
    audit, fates = audit_rows(case, audit_key(case.mirror, case.measure, data, case.setting))
    audit.details["worst"] = worst_rows(case.parts, fates, case.measure, case.stage)
    return audit, fates


def launch_case(launch: Launch, path: Path, tokenizer: str | None, max_length: int | None, project: Project | None,
                folder: Path) -> Case:  # fmt: skip
    """A launch file as a case, the rows of its data written into `folder`. Raises UserError where a dataset holds rows
    of another stage, or no tokenizer is named."""
    from curation.ingest import read_bare

    reference = tokenizer or launch.tokenizer or launch.model
    if reference is None:
        raise UserError("the launch file names no tokenizer", "give --tokenizer FOLDER", where=str(path))
    mirror = mirror_for(launch.trainer, launch.options, str(path), checked=True)
    mirror = mirror if max_length is None else mirror.at(max_length)
    parts: list[Path] = []
    for number, data in enumerate(file for given in launch.datasets for file in files_of(given)):
        (folder / str(number)).mkdir()
        stage, found = read_bare(data, folder / str(number))
        if stage != launch.stage and not {stage, launch.stage} <= {"midtrain", "sft"}:
            raise UserError(f"holds {stage} rows, the launch file trains {launch.stage}", "name another dataset",
                            where=str(data))  # fmt: skip
        parts += found
    batch = {name: given for name, key in VERL_BATCH.items() if (given := _at(launch.given, key)) is not None}
    model = Path(launch.model) if launch.model is not None and Path(launch.model).is_dir() else None
    setting = Setting(model, launch.given | batch, int(batch.get("num_processes", 1)))
    measure = _measure(mirror, project, reference, launch.template or "tokenizer", launch.template_kwargs, launch.stage,
                       parts)  # fmt: skip
    return Case(path.name, launch.stage, read_rows(parts), measured_parts(measure, parts, launch.stage), mirror, parts,
                measure, setting, problems=tuple(launch.problems), labels=told_labels(parts))  # fmt: skip


def files_of(path: Path) -> list[Path]:
    """A file itself, or every file of a folder in name order."""
    return [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())


def _at(value: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value


def _measure(mirror: Mirror, project: Project | None, tokenizer: str, template: str, kwargs: dict[str, Any], stage: str,
             parts: list[Path]) -> RenderedMeasure:  # fmt: skip
    path = mirror.rendering_path(stage, filled_columns(parts))
    return anatomy_for(project, tokenizer, template, path, mirror.rendering_kwargs(kwargs), stage)


def bare_case(path: Path, tokenizer: str, max_length: int | None, project: Project | None, folder: Path, *,
              assistant_only: bool = False) -> Case:  # fmt: skip
    """A bare dataset as a case, its row parts written into `folder`."""
    from curation.ingest import read_bare
    from curation.rendering import load_tokenizer

    stage, parts = read_bare(path, folder)
    mirror = default_mirror(stage, parts, assistant_only).at(max_length)
    loaded = load_tokenizer(project, tokenizer)
    own = loaded.hf.chat_template is not None
    measure = _measure(mirror, project, tokenizer, "tokenizer" if own else "chatml", {}, stage, parts)
    return Case(path.name, stage, read_rows(parts), measured_parts(measure, parts, stage), mirror, parts, measure,
                Setting(Path(loaded.reference)), labels=told_labels(parts))  # fmt: skip


def measured_parts(measure: RenderedMeasure, parts: list[Path], stage: str) -> pa.Table:
    """The anatomy of row parts that lie in no lake."""
    known = set(pq.read_schema(parts[0]).names)
    columns = [name for name in measure.reads(stage) if name in known]
    return pa.concat_tables([measure.measure(pq.read_table(part, columns=columns), stage) for part in parts])
