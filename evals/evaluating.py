"""`kedge eval`: which checkpoints are not scored yet, and their scores, one checkpoint at a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from curation import registry
from curation.catalog import Catalog
from curation.checkpoints import Checkpoint, weights_of
from curation.config import shown
from curation.console import out, progress, say, table
from curation.errors import UserError
from evals import Harness, Job, RequestSet, Response
from evals.accounting import accuracy, score_table
from evals.benchmarks import Task, load_benchmark, load_task
from evals.pairs import PART, PairTask, load_pairs, load_probe_pairs, mean_margin
from evals.probing import (
    ProbeSet,
    answers_fingerprint,
    answers_folder,
    load_probes,
    probe_requests,
    write_answers,
)
from evals.prompting import Prompting, judged_with, prompting, request_set
from evals.scores import count_states, read_beside, read_scores, scores_folder, write_scores
from evals.scoring import is_reward_model, is_scored, pair_conditions, score_pairs
from evals.suites import Suite, load_suite, suite_name


@dataclass
class EvalReport:
    """`results` has one entry per checkpoint and benchmark: checkpoint, step, benchmark, score (0..1), n, and the
    number of samples per state; `margin` is the mean margin of a benchmark of pairs, else None. `evaluated` names the
    checkpoints that were scored now; `reports` has the folder of every reward model's report by checkpoint."""

    run: str
    suite: str
    results: list[dict[str, Any]] = field(default_factory=list)
    evaluated: list[str] = field(default_factory=list)
    reports: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What one checkpoint still has to answer."""

    asked: Prompting
    tasks: list[tuple[Task, dict[str, Any]]]
    probes: list[tuple[str, ProbeSet, dict[str, Any]]]


@dataclass(frozen=True)
class Judging:
    """What a suite asks: benchmarks that a model writes answers to, probe prompts, benchmarks of pairs, and the harness
    that runs the first two and whose device, dtype and batch size hold for the third."""

    suite: Suite
    harness: Harness
    tasks: list[Task]
    probes: list[tuple[str, ProbeSet]]
    pairs: list[PairTask]
    reward_probes: list[PairTask]

    @property
    def scoring(self) -> dict[str, Any]:
        return {"device": "cpu", "dtype": "float32", "batch_size": 32} | {
            name: value for name, value in self.harness.conditions().items() if name in ("device", "dtype",
                                                                                         "batch_size")}  # fmt: skip


def judging(catalog: Catalog, name: str) -> Judging:
    """Everything of a suite, loaded. Raises UserError for a wrong suite, benchmark or set of probes."""
    suite = load_suite(catalog, name)
    harness = cast(Harness, registry.make("harnesses", suite.harness["name"], _options(suite), where=name))
    of_pairs = {item.name for item in suite.benchmarks if load_benchmark(catalog, item.name).kind == "pairs"}
    tasks = [load_task(catalog, item.name) for item in suite.benchmarks if item.name not in of_pairs]
    pairs = [load_pairs(catalog, item.name) for item in suite.benchmarks if item.name in of_pairs]
    probes = [(item, load_probes(catalog, item)) for item in suite.probes]
    return Judging(suite, harness, tasks, probes, pairs, load_probe_pairs(catalog) if pairs else [])


def evaluate(catalog: Catalog, reference: str, suite: str | None = None, to: Path | None = None) -> EvalReport:
    """Score whatever a run's start and checkpoints (or one checkpoint) lack under the run's template and the suite's
    benchmarks. Each checkpoint is published by itself, so that a killed evaluation goes on with the next one. A reward
    model is asked the suite's benchmarks of pairs and the probe pairs, and a report is written of it (the last one's
    also to the folder `to`).

    Raises UserError for a wrong reference, suite, benchmark or base, InstrumentError where scores may not be read.
    """
    name, run, named = judged_with(catalog, reference)
    judged = [item for item in named if not item.pruned] or named  # what lost its weights has the scores that it has
    chosen = suite_name(catalog, name, suite)
    given = judging(catalog, chosen)
    report = EvalReport(name, chosen)
    with catalog.writing("scores", name):
        for checkpoint in judged:
            asked = prompting(catalog, checkpoint, run, list(reversed(judged)))
            reward = is_reward_model(catalog, checkpoint)
            if reward and not given.pairs:
                raise UserError(f"{checkpoint.id} is a reward model, and the suite '{chosen}' has no benchmark of kind "
                                "pairs", "add one, or give --suite NAME")  # fmt: skip
            plan = Plan(asked, [], []) if reward else _plan(catalog, asked, given)
            if plan.tasks or plan.probes:
                _evaluate_one(catalog, plan, given.harness)
            pairs = _score_pairs(catalog, asked, given, reward)
            if plan.tasks or plan.probes or pairs:
                report.evaluated.append(checkpoint.id)
            report.results += [] if reward else [_result(catalog, asked, task.name, conditions_of(task, asked,
                                                         given.harness)) for task in given.tasks]  # fmt: skip
            report.results += [_result(catalog, asked, task.name, pair_conditions(task, asked, given.scoring, reward))
                               for task in given.pairs]  # fmt: skip
            if reward:
                report.reports[checkpoint.id] = str(_report(catalog, asked, given, to))
    return report


def _score_pairs(catalog: Catalog, asked: Prompting, given: Judging, reward: bool) -> bool:
    """Score the pairs that are not scored yet; whether there were any."""
    tasks = [(task, pair_conditions(task, asked, given.scoring, reward))
             for task in given.pairs + (given.reward_probes if reward else [])]  # fmt: skip
    tasks = [item for item in tasks if not is_scored(catalog, asked.checkpoint, *item)]
    if tasks:
        require_weights(catalog, asked.checkpoint)
        num_answers = 2 * sum(len(task.items) for task, _ in tasks)
        say(f"scoring pairs by {asked.checkpoint.id}: {', '.join(task.name for task, _ in tasks)} ({num_answers:,} "
            "answers)")  # fmt: skip
        with progress(asked.checkpoint.id, num_answers) as advance:
            score_pairs(catalog, asked, tasks, advance)
    return bool(tasks)


def _report(catalog: Catalog, asked: Prompting, given: Judging, to: Path | None) -> Path:
    from evals.reward_report import publish, reward_report

    conditions = {task.name: pair_conditions(task, asked, given.scoring, True)
                  for task in given.pairs + given.reward_probes}  # fmt: skip
    return publish(catalog, reward_report(catalog, asked.checkpoint, conditions, given.suite.ensembles), to)


def _options(suite: Suite) -> dict[str, Any]:
    return {key: value for key, value in suite.harness.items() if key != "name"}


def score_conditions(asked: Prompting, harness: Harness, *, plain: bool) -> dict[str, Any]:
    """The conditions that do not depend on a benchmark."""
    return {
        "template": None if plain or asked.template is None else asked.template.fingerprint,
        "template_kwargs": {} if plain else asked.kwargs,
        "tokenizer": asked.tokenizer.fingerprint,
        "harness": harness.plugin_name(),
        "harness_version": f"{harness.version} ({harness.software()})",
    }


def conditions_of(task: Task, asked: Prompting, harness: Harness) -> dict[str, Any]:
    """The conditions under which a checkpoint answers a benchmark: equal conditions make scores comparable."""
    benchmark = task.benchmark
    return score_conditions(asked, harness, plain=benchmark.prompt == "plain") | {
        "benchmark_fingerprint": task.fingerprint,
        "sampling": benchmark.sampling() | harness.conditions(),
        "max_new_tokens": benchmark.max_new_tokens,
        "repeats": benchmark.repeats,
    }


def _plan(catalog: Catalog, asked: Prompting, given: Judging) -> Plan:
    harness = given.harness
    open_tasks = []
    for task in given.tasks:
        conditions = conditions_of(task, asked, harness)
        if catalog.manifest(scores_folder(catalog, asked.checkpoint, task.name, conditions)) is None:
            open_tasks.append((task, conditions))
    open_probes = []
    for name, probe_set in given.probes:
        conditions = score_conditions(asked, harness, plain=probe_set.form == "plain") | harness.conditions()
        identity = answers_fingerprint(name, probe_set, asked.checkpoint, conditions)
        if catalog.manifest(answers_folder(catalog, identity)) is None:
            open_probes.append((name, probe_set, conditions))
    return Plan(asked, open_tasks, open_probes)


def _evaluate_one(catalog: Catalog, plan: Plan, harness: Harness) -> None:
    checkpoint = plan.asked.checkpoint
    require_weights(catalog, checkpoint)
    sets = [request_set(task, plan.asked) for task, _ in plan.tasks]
    probe_sets = [probe_requests(name, probes, plan.asked) for name, probes, _ in plan.probes]
    total = sum(len(item.requests) for item in sets + probe_sets)
    say(f"evaluating {checkpoint.id}: {', '.join(item.name for item in sets + probe_sets)} ({total} samples)")
    with progress(checkpoint.id, total) as advance:
        responses = _answer(catalog, plan.asked, sets + probe_sets, harness, advance)
    for (task, conditions), asked in zip(plan.tasks, sets, strict=True):
        scores = score_table(
            task,
            asked.requests,
            responses.get(task.name, []),
            plan.asked.tokenizer.hf,
            catalog.project.file.workers or os.cpu_count() or 1,
        )
        write_scores(catalog, checkpoint, task.name, scores, conditions)
    for (name, probes, conditions), asked in zip(plan.probes, probe_sets, strict=True):
        write_answers(catalog, checkpoint, name, probes, asked, responses.get(asked.name, []), conditions)


def _answer(catalog: Catalog, asked: Prompting, sets: list[RequestSet], harness: Harness,
            advance: Callable[[int], None]) -> dict[str, list[Response]]:  # fmt: skip
    checkpoint = asked.checkpoint
    base = checkpoint.base_folder(catalog)
    folder = checkpoint.folder(catalog)
    job = Job(model=base or folder, adapter=folder if base is not None else None, tokenizer=asked.folder,
              weights_hash=checkpoint.weights_hash, stop_ids=asked.stop_ids, sets=tuple(sets))  # fmt: skip
    work = catalog.temporary("eval")
    try:
        return harness.evaluate(job, work, advance)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def require_weights(catalog: Catalog, checkpoint: Checkpoint) -> None:
    """Raises UserError where the weights in the checkpoint's folder, or the base of an adapter, are not those that
    were registered."""
    kind, digest = weights_of(checkpoint.folder(catalog))
    if digest != checkpoint.weights_hash:
        raise UserError(f"the weights of {checkpoint.id} changed since it was registered "
                        f"({checkpoint.weights_hash[:12]}, now {digest[:12]})",
                        "register them under another --run name",
                        where=str(checkpoint.folder(catalog)))  # fmt: skip
    if kind == "adapter":
        base = checkpoint.base_folder(catalog)
        if base is None or checkpoint.base_hash is None:
            raise UserError(f"{checkpoint.id} is an adapter without a base",
                            "register it again with: kedge checkpoint add ... --base MODEL")  # fmt: skip
        found = weights_of(base)[1]
        if found != checkpoint.base_hash:
            raise UserError(f"{checkpoint.id} was trained on another base ({checkpoint.base_hash[:12]}, this one is "
                            f"{found[:12]})", "put the right base there or register the adapter again",
                            where=str(base))  # fmt: skip


def _result(catalog: Catalog, asked: Prompting, benchmark: str, conditions: dict[str, Any]) -> dict[str, Any]:
    found = read_scores(catalog, asked.checkpoint, benchmark, conditions)
    assert found is not None
    scores, _ = found
    pairs = read_beside(catalog, asked.checkpoint, benchmark, conditions, PART)
    return {"checkpoint": asked.checkpoint.id, "step": asked.checkpoint.step, "benchmark": benchmark,
            "score": accuracy(scores), "n": scores.num_rows,
            "margin": None if pairs is None else mean_margin(pairs)} | count_states(scores)  # fmt: skip


def print_report(report: EvalReport) -> None:
    """The scores as a table, and what there was to do."""
    margins = ["margin"] if any(row["margin"] is not None for row in report.results) else []
    columns = ["checkpoint", "benchmark", "score", *margins, "n", "truncated", "unparsed", "timeout", "error"]
    table(f"{report.run}: suite {report.suite}", columns, [[row[name] for name in columns] for row in report.results])
    if report.evaluated:
        say(f"scored {len(report.evaluated)} checkpoints; next: kedge drift {report.run}")
    else:
        say("nothing to do: every checkpoint is scored under these conditions")
    for checkpoint, folder in report.reports.items():
        out.print(f"reward model {checkpoint}: {shown(Path(folder) / 'report.html')}", markup=False)
