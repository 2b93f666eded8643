"""`kedge train RUN --chain`: every stage that a run descends from, each behind its gates.

Parents form a graph: a stage starts from one checkpoint and may need others (a reference, a teacher, a reward model).
The mixtures of all are frozen first, with those whose held-out rows a suite asks: a query that is wrong is told before
anything trains, and early stages may be judged by rows that a later one holds out. Then of each stage, in an order in
which every one comes after those that it needs: its audit passes, it is trained, its checkpoints are scored, and drift
judges them. What is done is not done again, so that the same command goes on after a stop, and editing one stage
repeats it and what follows, never what came before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

import yaml

from curation.catalog import Catalog
from curation.console import out, print_json, say, table
from curation.errors import EXIT_FAILED, EXIT_INSTRUMENT, EXIT_OK, EXIT_UNDECIDED, UserError
from curation.runs import Run

Command = Callable[[str], int]
SEVEREST = (EXIT_OK, EXIT_UNDECIDED, EXIT_FAILED, EXIT_INSTRUMENT)


@dataclass(frozen=True)
class Steps:
    """What is done with a stage: each takes a name and returns an exit code. `freeze` takes a mixture, the others a
    run."""

    freeze: Command
    audit: Command
    train: Command
    evaluate: Command
    drift: Command


@dataclass
class Stage:
    """One stage as it went: the exit code of each step that was taken."""

    run: str
    codes: dict[str, int] = field(default_factory=dict)

    @property
    def stopped_at(self) -> str | None:
        """The step that ends the chain: any that did not succeed, but a drift report without a verdict."""
        return next((step for step, code in self.codes.items()
                     if code != EXIT_OK and (step, code) != ("drift", EXIT_UNDECIDED)), None)  # fmt: skip


def stages(catalog: Catalog, name: str) -> list[Run]:
    """The run and every run file that it descends from or needs, ordered. Raises UserError for a circle."""
    found: dict[str, Run] = {}
    needs: dict[str, list[str]] = {}
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found[current] = Run(catalog, current)
            needs[current] = needed(catalog, found[current])
            waiting += needs[current]
    try:
        order = list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        raise UserError(f"the runs form a circle: {' -> '.join(error.args[1])}", "mend a 'parent'",
                        where=found[name].where) from None  # fmt: skip
    return [found[item] for item in order]


def needed(catalog: Catalog, run: Run) -> list[str]:
    """Run files whose checkpoints a run starts from or uses, in name order."""
    known = catalog.project.paths("runs", ".yaml")
    named = [run.file.parent, run.file.extends, *run.named_roles().values()]
    return sorted({item.partition("@")[0] for item in named if item is not None} & set(known))


def asked(catalog: Catalog, run: Run) -> set[str]:
    """Mixtures whose held-out rows the benchmarks of a run's suite are made of. Files that cannot be read name none:
    scoring tells what is wrong with them."""
    found = set()
    with contextlib.suppress(UserError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        for item in _read(catalog, "suites", str(run.file.suite))["benchmarks"]:
            found.add(_read(catalog, "benchmarks", item["name"]).get("mixture"))
    return {name for name in found if isinstance(name, str) and "@" not in name}


def _read(catalog: Catalog, kind: str, name: str) -> Any:
    return yaml.safe_load(catalog.project.path(kind, name, ".yaml").read_bytes())


def walk(catalog: Catalog, name: str, steps: Steps) -> list[Stage]:
    """Freeze every mixture, then take every stage in order, up to the first that does not pass."""
    runs = stages(catalog, name)
    taken = [Stage(run.name) for run in runs]
    frozen: set[str] = set()
    for run, stage in zip(runs, taken, strict=True):
        wanted = sorted({run.file.mixture, *asked(catalog, run)} - frozen)
        frozen |= set(wanted)
        stage.codes["freeze"] = max((steps.freeze(mixture) for mixture in wanted), default=EXIT_OK)
    if any(stage.stopped_at for stage in taken):
        return taken
    for run, stage in zip(runs, taken, strict=True):
        say(f"stage {run.name}")
        work = [("audit", steps.audit), ("train", steps.train)]
        if run.file.suite is None:
            say(f"{run.name} names no suite: nothing judges it")
        else:
            work += [("evaluate", steps.evaluate), ("drift", steps.drift)]
        for step, command in work:
            stage.codes[step] = command(run.name)
            if stage.stopped_at is not None:
                return taken
    return taken


def print_chain(taken: list[Stage], as_json: bool) -> int:
    """The table of stages; returns the exit code: the severest of all."""
    codes = [code for stage in taken for code in stage.codes.values()]
    known = [code for code in codes if code in SEVEREST]
    worst = next((code for code in codes if code not in SEVEREST), max(known, key=SEVEREST.index, default=EXIT_OK))
    if as_json:
        print_json({"stages": [{"run": stage.run, "codes": stage.codes} for stage in taken], "exit_code": worst})
        return worst
    said = {EXIT_OK: "passed", EXIT_FAILED: "FAILED", EXIT_UNDECIDED: "undecided", EXIT_INSTRUMENT: "not measured"}
    names = ("freeze", "audit", "train", "evaluate", "drift")
    rows = [[stage.run, *(said.get(stage.codes[step], f"exit {stage.codes[step]}") if step in stage.codes else ""
                          for step in names)] for stage in taken]  # fmt: skip
    table("chain", ["stage", *names], rows)
    for stage in taken:
        if stage.stopped_at is not None:
            out.print(f"the chain stopped at {stage.run}: {stage.stopped_at}; mend it, and run the same command again",
                      style="red", markup=False)  # fmt: skip
    return worst
