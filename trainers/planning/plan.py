"""`kedge plan`: steps, tokens, memory, hours and cost of a run or a chain, and what is unusual about its settings."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from curation.auditing import gate
from curation.auditing import setting as audited
from curation.auditing.alternatives import Preset, fits
from curation.auditing.audit import measured
from curation.auditing.judged import by_source
from curation.auditing.memory import estimate
from curation.auditing.model_shape import Shape
from curation.auditing.what_if import memory_setting
from curation.catalog import Catalog
from curation.config import find_project
from curation.console import out, print_json, table
from curation.errors import UserError
from curation.mixtures import find_frozen
from curation.runs import Run
from trainers.planning.catalogs import HardwareFile, load, warnings
from trainers.planning.steps import Settings, settings_of
from trainers.planning.work import Size, Work, device_hours, preference_work, rl_work, training_flops


@dataclass(frozen=True)
class Rows:
    """What a trainer keeps of a frozen mixture in one epoch: `examples` that a batch counts (rows or packed bins,
    pairs, sides, prompts), `sequences` of a mean `length` in tokens, the `longest`, `tokens`, and who says so."""

    examples: int
    sequences: int
    tokens: int
    longest: int
    origin: str

    @property
    def length(self) -> float:
        return self.tokens / max(1, self.sequences)


@dataclass(frozen=True)
class Place:
    """A run on one kind of device: bytes on the fullest, whether they are there, hours of one device, hours from start
    to end, dollars; None where the model's shape is unknown."""

    device: str
    memory_bytes: int | None
    fits: bool | None
    device_hours: float | None
    hours: float | None
    dollars: float | None
    measured: bool = False


@dataclass(frozen=True)
class Plan:
    """The plan of one run. `passes` are epochs over the mixture, `tokens` those that are trained on or, of RL, prompts
    and completions of all samples. `rehearsed` is this machine, by what a rehearsal of the run as it is took."""

    run: str
    stage: str
    trainer: str
    num_processes: int
    steps: int
    passes: float
    examples: int
    tokens: int
    generated_tokens: int
    warnings: list[str]
    notes: list[str]
    places: list[Place]
    rehearsed: Place | None = None


def plan_run(catalog: Catalog, run: Run) -> Plan:
    """Plan a run whose mixture is frozen; the parent need not be trained. Raises UserError."""
    known = load(catalog.project)
    settings = settings_of(run)
    rows, stage, notes = kept_rows(catalog, run)
    steps, passes = settings.steps(rows.examples), settings.passes(rows.examples)
    setting = audited.Setting(run.model_folder(), _resolved(run), run.file.num_processes)
    shape, why = _shape(setting)
    notes += [why] if why else []
    share = known.hardware.generation["completion_share"].value
    completion = share * settings.completion_limit if settings.completion_limit else 0.0
    if completion:
        notes.append(f"completions of {completion:,.0f} tokens in the mean ({share:.0%} of the limit, assumed)")
    work = None if shape is None else work_of(Size.of(shape), settings, stage, rows, passes, completion)
    samples = rows.examples * passes * (settings.group_size or 0)
    begun = settings if settings.max_steps is None else replace(settings, epochs=math.ceil(passes))
    tokens = samples * (rows.length + completion) if settings.group_size else rows.tokens * passes
    places = [place_on(name, known.hardware, run, stage, settings, steps, shape, work,
                       int(rows.longest + (settings.completion_limit or 0)), setting)
              for name in known.hardware.devices]  # fmt: skip
    return Plan(run.name, stage, run.trainer_name, run.file.num_processes, steps, passes, rows.examples, int(tokens),
                int(samples * completion), warnings(known.practices, stage, run.trainer_name, begun),
                [rows.origin, *notes], places, rehearsed(catalog, run, steps))  # fmt: skip


def rehearsed(catalog: Catalog, run: Run, steps: int) -> Place | None:
    """This machine, where the run as it is now was rehearsed on it (`kedge train RUN --rehearse`)."""
    try:
        digest = run.fingerprint(find_frozen(catalog, run.file.mixture).content)
        found = json.loads((catalog.folder("runs", run.name, digest[:16]) / "rehearsal.json").read_text())
    except (UserError, FileNotFoundError):  # its parent is not trained, or nobody rehearsed it
        return None
    hours, devices = steps * found["seconds_per_step"] / 3600, found["num_processes"]
    return Place(f"here: {found['device']}", found["peak_memory_bytes"], True, hours * devices, hours, None, True)


def work_of(size: Size, settings: Settings, stage: str, rows: Rows, passes: float, completion: float) -> Work:
    """Operations and generated tokens of a whole run."""
    how: dict[str, Any] = {"recomputed": settings.recomputed, "lora": settings.method == "lora"}
    if settings.group_size is not None:
        samples = rows.examples * passes * settings.group_size
        return rl_work(size, samples, rows.length, completion, scoring_passes=settings.scoring_passes,
                       critic=settings.critic, updates=settings.iterations, **how)  # fmt: skip
    if stage == "preference" or settings.reference:
        return preference_work(size, rows.tokens * passes, rows.length,
                               reference=size if settings.reference else None, **how)  # fmt: skip
    return Work(training_flops(size, rows.tokens * passes, rows.length, **how))


def place_on(name: str, hardware: HardwareFile, run: Run, stage: str, settings: Settings, steps: int,
             shape: Shape | None, work: Work | None, length: int, setting: audited.Setting) -> Place:  # fmt: skip
    """Memory, hours and dollars of a run on one kind of device."""
    device, seen = hardware.device(name), hardware.measured.get(run.name)
    memory: int | None = None
    fit: bool | None = None
    if shape is not None:
        held = estimate(shape, replace(memory_setting(stage, setting, max(1, length)),
                                       num_devices=run.file.num_processes))  # fmt: skip
        memory, fit = held.total, fits(held, Preset(run.file.num_processes, int(device.memory_bytes)))
    hours: float | None = None
    if seen is not None and seen.device == name:
        hours = steps * seen.seconds_per_step * seen.num_devices / 3600
    elif work is not None and shape is not None:
        key = "lora" if settings.method == "lora" else "reward_model" if run.trainer_name == "trl_reward" else stage
        hours = device_hours(work, Size.of(shape), device, hardware.utilisation[key].value, hardware.decoding)
    if hours is None:
        return Place(name, memory, fit, None, None, None)
    here = seen is not None and seen.device == name
    count = seen.num_devices if here and seen is not None else run.file.num_processes
    return Place(name, memory, fit, hours, hours / count, hours * device.dollars_per_hour, here)


def kept_rows(catalog: Catalog, run: Run) -> tuple[Rows, str, list[str]]:
    """What the trainer keeps of the run's mixture: as its audit says or, without one, by the same arithmetic; the stage
    and notes."""
    subject = gate.run_subject(catalog, _startable(catalog, run))
    folder = subject.folder(catalog)
    stage = subject.mixture.stage
    if catalog.manifest(folder) is not None:
        audit = gate.read(folder)
        everything, bins, origin = audit.sources[-1], audit.num_bins, "rows as the audit keeps them"
    else:
        case = subject.case(catalog, measured(catalog, subject.anatomy, subject.mixture))
        judged = case.judged(case.mirror.fates(case.anatomy))
        everything, bins = by_source(judged)[-1], judged.fates.num_bins()
        origin = f"not audited yet (kedge audit {run.name}): rows as its mirror keeps them"
    kept = everything["rows"] - everything["rows_dropped"]
    pairs = stage == "preference" and run.trainer_name != "trl_kto"
    limit = subject.mirror.context_length
    longest = min(everything["longest"], limit or everything["longest"])
    if bins is not None and limit is not None:
        longest = limit
    return Rows(bins if bins is not None else kept // 2 if pairs else kept, kept, everything["kept_tokens"], longest,
                origin), stage, []  # fmt: skip


def _startable(catalog: Catalog, run: Run) -> Run:
    """The run, with the tokenizer of its chain's first model where it names none and its parent is not trained yet."""
    if run.file.tokenizer is not None:
        return run
    try:
        run.start()
    except UserError:
        made = Run(catalog, str(run.path))
        made.file = run.file.model_copy(update={"tokenizer": str(run.model_folder())})
        return made
    return run


def _resolved(run: Run) -> dict[str, Any]:
    """The options that memory depends on; verl has other names, so its runs count as full training under ZeRO-3."""
    if not run.trainer_name.startswith("trl_"):
        return {}
    from trainers._trl import sharding

    named = run.options.get("deepspeed")
    return run.options | ({"deepspeed": sharding(named)} if isinstance(named, str) else {})


def _shape(setting: audited.Setting) -> tuple[Shape | None, str]:
    path = None if setting.model is None else Path(setting.model) / "config.json"
    if path is None or not path.is_file():
        return None, "the model has no config.json here: no memory and no hours"
    try:
        return Shape.of(json.loads(path.read_text())), ""
    except UserError as error:
        return None, f"no memory and no hours: {error.problems[0]}"


def plan(name: str, chain: bool = False, iterations: int = 1) -> dict[str, Any]:
    """Plans of a run or, with `chain`, of every run that it descends from or needs, in order; their sums per device,
    times the iterations."""
    from trainers.chain import stages

    catalog = Catalog(find_project())
    runs = stages(catalog, name) if chain else [Run(catalog, name)]
    plans, problems = [], []
    for run in runs:
        try:
            plans.append(plan_run(catalog, run))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    return {"plans": [asdict(item) for item in plans], "iterations": iterations,
            "sums": [asdict(item) for item in sums(plans, iterations)]}  # fmt: skip


def sums(plans: list[Plan], iterations: int = 1) -> list[Place]:
    """Per device the sum of plans times `iterations`, and the most memory of any; without hours where one has none."""
    found = []
    for of in zip(*(item.places for item in plans), strict=True):
        hours = [item.device_hours for item in of]
        known = None not in hours
        total = {name: iterations * sum(getattr(item, name) or 0.0 for item in of) if known else None
                 for name in ("device_hours", "hours", "dollars")}  # fmt: skip
        memory = [item.memory_bytes for item in of if item.memory_bytes is not None]
        fit = [item.fits for item in of]
        found.append(Place(of[0].device, max(memory, default=None), None if None in fit else all(fit), **total,
                           measured=all(item.measured for item in of)))  # fmt: skip
    return found


def print_plan(result: dict[str, Any], as_json: bool) -> None:
    """A table of devices per run, notes and warnings, and the sums of a chain."""
    if as_json:
        print_json(result)
        return
    for item in result["plans"]:
        out.print(f"{item['run']} ({item['stage']}, {item['trainer']}, {_devices(item['num_processes'])}): "
                  f"{item['steps']:,} steps, {item['passes']:.3g} epochs of {item['examples']:,} examples, "
                  f"{item['tokens']:,} tokens" + (f", of them {item['generated_tokens']:,} generated"
                                                  if item["generated_tokens"] else ""), markup=False)  # fmt: skip
        _print_places("", [*([item["rehearsed"]] if item["rehearsed"] else []), *item["places"]])
        for note in item["notes"]:
            out.print(note, style="dim", markup=False)
        for warning in item["warnings"]:
            out.print(f"unusual: {warning}", style="yellow", markup=False)
    if len(result["plans"]) > 1 or result["iterations"] > 1:
        times = f", {result['iterations']} times" if result["iterations"] > 1 else ""
        _print_places(f"all {len(result['plans'])} stages{times}", result["sums"])


def _print_places(title: str, places: list[dict[str, Any]]) -> None:
    rows = [[item["device"] + (" (measured)" if item["measured"] else ""),
             None if item["memory_bytes"] is None else f"{item['memory_bytes'] / 2**30:.3g}",
             {True: "yes", False: "no", None: "-"}[item["fits"]], _short(item["hours"]), _short(item["device_hours"]),
             None if item["dollars"] is None else f"{item['dollars']:,.2f}"] for item in places]  # fmt: skip
    table(title, ["device", "GiB a device", "fits", "hours", "GPU hours", "dollars"], rows)


def _devices(count: int) -> str:
    return "1 device" if count == 1 else f"{count:,} devices"


def _short(hours: float | None) -> str | None:
    if hours is None:
        return None
    if hours < 0.001:
        return "< 0.001"
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"
