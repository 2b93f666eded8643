"""The gate before a run: an audit under the run's own key, its waivers, and whether training may start."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.auditing.audit import Audit, audit_key, audit_rows, filled_columns, measured, mirror_for
from curation.auditing.case import Case, read_rows
from curation.auditing.checks import Check
from curation.auditing.labels import Measured, labels_of, measured_labels
from curation.auditing.mirrors import Mirror
from curation.auditing.setting import Setting
from curation.catalog import Catalog
from curation.errors import GateFailed, Problem, UserError
from curation.fingerprint import fingerprint
from curation.measures._rendered import RenderedMeasure
from curation.measures.anatomy import anatomy_for
from curation.mixtures import FrozenMixture, find_frozen
from curation.outputs import Manifest
from curation.reports.audit import worst_rows, write
from curation.run_files import Waiver
from curation.runs import Run

TOLERANCE = 1e-9


@dataclass(frozen=True)
class Subject:
    """What is audited: a frozen mixture, its anatomy under a tokenizer and template, a mirror, the strata that its
    rows have as signals, and the key."""

    name: str
    mixture: FrozenMixture
    mirror: Mirror
    anatomy: RenderedMeasure
    waivers: tuple[Waiver, ...] = ()
    setting: Setting = field(default_factory=Setting)
    measured: tuple[Measured, ...] = ()

    @property
    def key(self) -> str:
        data = self.mixture.fingerprint
        if self.measured:
            data = fingerprint([data, {item.kind: item.identity for item in self.measured}])
        return audit_key(self.mirror, self.anatomy, data, self.setting)

    def case(self, catalog: Catalog, table: pa.Table) -> Case:
        """What is judged, with the anatomy of its rows."""
        held_out: set[str] = set()
        for part in self.mixture.held_out if self.mixture.stage == "rlvr" else []:
            held_out |= set(pq.read_table(part, columns=["prompt_hash"])["prompt_hash"].to_pylist())
        return Case(self.name, self.mixture.stage, read_rows(self.mixture.train), table, self.mirror,
                    self.mixture.train, self.anatomy, self.setting, frozenset(held_out),
                    labels=labels_of(catalog, self.mixture.train, self.measured))  # fmt: skip

    def folder(self, catalog: Catalog) -> Path:
        """Where its audit lies; waivers have their part in it, since they change what the report says."""
        digest = fingerprint([self.key, [item.model_dump() for item in self.waivers]])
        return catalog.folder("audits", self.name, digest[:16])


def run_subject(catalog: Catalog, run: Run) -> Subject:
    """What the audit of a run looks at."""
    mixture = find_frozen(catalog, run.file.mixture)
    mirror = mirror_for(run.trainer_name, run.options, run.where)
    path = mirror.rendering_path(mixture.stage, filled_columns(mixture.train))
    anatomy = anatomy_for(catalog.project, run.tokenizer_reference(), run.template_reference(), path,
                          mirror.rendering_kwargs(run.file.template_kwargs), mixture.stage)  # fmt: skip
    setting = Setting(run.model_folder(), run.options, run.file.num_processes)
    return Subject(run.name, mixture, mirror, anatomy, tuple(run.file.waivers), setting,
                   measured_labels(catalog, mixture))  # fmt: skip


def mixture_subject(catalog: Catalog, name: str, tokenizer: str | None, max_length: int | None) -> Subject:
    """What the audit of a mixture at a length looks at: TRL's trainer of its stage under the tokenizer, template and
    rendering of its header."""
    mixture = find_frozen(catalog, name)
    header = mixture.manifest.parameters
    reference = tokenizer or header.get("tokenizer")
    if reference is None:
        raise UserError(f"the mixture '{name}' names no tokenizer", "give --tokenizer")
    mirror = default_mirror(mixture.stage, mixture.train, header.get("rendering") == "trl_assistant").at(max_length)
    path = mirror.rendering_path(mixture.stage, filled_columns(mixture.train))
    anatomy = anatomy_for(catalog.project, str(reference), str(header.get("template", "tokenizer")), path,
                          header.get("template_kwargs", {}), mixture.stage)  # fmt: skip
    folder = Path(anatomy.tokenizer)
    return Subject(mixture.name, mixture, mirror, anatomy, (), Setting(folder if folder.is_dir() else None),
                   measured_labels(catalog, mixture))  # fmt: skip


def default_mirror(stage: str, parts: list[Path], assistant_only: bool = False) -> Mirror:
    """TRL's trainer of the rows of a stage, under its own defaults: KTO where the first of them lack a side."""
    if stage in ("midtrain", "sft"):
        return mirror_for("trl_sft", {"assistant_only_loss": assistant_only})
    if stage == "preference":
        first = pq.ParquetFile(parts[0]).read_row_group(0, columns=["chosen", "rejected"])
        unpaired = any(first[side].null_count for side in first.column_names)
        return mirror_for("trl_kto" if unpaired else "trl_dpo", {})
    return mirror_for("trl_grpo", {})


def audit_subject(catalog: Catalog, subject: Subject) -> Audit:
    """Audit and publish; what is published under the same key and waivers is read back."""
    folder = subject.folder(catalog)
    if catalog.manifest(folder) is None:
        table = measured(catalog, subject.anatomy, subject.mixture)
        audit, fates = audit_rows(subject.case(catalog, table), subject.key)
        waive(audit.checks, subject.waivers)
        describe(audit, subject, fates)
        with catalog.publishing(folder) as draft:
            part = write(audit, fates, draft.folder)
            draft.manifest = Manifest(
                kind="audits", name=subject.name, fingerprint=audit.key, parts=[part], stage=subject.mixture.stage,
                inputs={"mixture": subject.mixture.fingerprint, "mirror": subject.mirror.identity(),
                        "anatomy": subject.anatomy.identity()},
                parameters={"waivers": [item.model_dump() for item in subject.waivers]},
                counts={"passed": audit.passed, "num_rows": audit.num_rows},
            )  # fmt: skip
    return read(folder)


def describe(audit: Audit, subject: Subject, fates: pa.Table) -> None:
    """Add what a reader of the report wants to see: the mixture, and the rows that lose most."""
    worst = worst_rows(subject.mixture.train, fates, subject.anatomy, subject.mixture.stage)
    audit.details |= {"mixture": f"{subject.mixture.name}@{subject.mixture.fingerprint[:12]}",
                      "template": subject.anatomy.template, "rendering": subject.anatomy.path,
                      "worst": worst}  # fmt: skip


def waive(checks: list[Check], waivers: tuple[Waiver, ...]) -> None:
    """Mark failed checks that a waiver covers: it names the check and a value not below the one seen."""
    for check in checks:
        for waiver in waivers:
            if waiver.check == check.id and check.level == "error" and check.value <= waiver.value + TOLERANCE:
                check.waived = waiver.reason


def read(folder: Path) -> Audit:
    """A published audit."""
    value: dict[str, Any] = json.loads((folder / "audit.json").read_text())
    checks = [Check(**item) for item in value["checks"]]
    return Audit(value["subject"], value["key"], value["mirror"], value["options"], value["max_length"],
                 value["num_rows"], value["num_bins"], checks, value["sources"], value["details"], folder)  # fmt: skip


def audit_run(catalog: Catalog, run: Run) -> Audit:
    """The audit of a run, made where it is missing."""
    return audit_subject(catalog, run_subject(catalog, run))


def require_passing(catalog: Catalog, run: Run) -> Audit:
    """The audit under which a run may start. Raises GateFailed where there is none under the run's key, or where it
    failed and is not waived."""
    subject = run_subject(catalog, run)
    folder = subject.folder(catalog)
    if catalog.manifest(folder) is None:
        raise GateFailed(f"there is no audit of '{run.name}' as it is now", f"run: kedge audit {run.name}",
                         where=run.where)  # fmt: skip
    audit = read(folder)
    step = "mend it, or waive the check in the run file with a reason"
    problems = [Problem(f"{check.message} ({check.id} at {check.value:.4g})", check.next or step, run.where, check.id)
                for check in audit.checks if check.level == "error" and not check.waived]  # fmt: skip
    if problems:
        raise GateFailed([*problems, Problem(f"the audit of '{run.name}' failed", f"see {folder / 'report.html'}")])
    return audit
