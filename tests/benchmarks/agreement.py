"""Agreement, annotators and aggregation of 10,000 votes, beside scikit-learn, statsmodels and crowd-kit.

`python -m tests.benchmarks.agreement` simulates ten annotators (one answers at random, one by position, one the wrong
way round) who cast 10,000 votes (`--small` 1,000, `--votes N` any number) in a calibration and a main round with ties,
gold items and retests. `seconds` is the time from the two tables in memory to everything the report needs, in a fresh
process, first imports of scipy and statsmodels included: arrays; agreement at all and by question, source, round and
week, each coefficient with its bootstrap interval; all figures and flags of every annotator; what calibration changed;
majority and Dawid-Skene. `seconds_by_step` splits it. `peak_memory_bytes` is the process's, `memory_before_bytes` what
it held before the work began.

The peers get the same votes as arrays and do less: scikit-learn Cohen's kappa of every pair of annotators, statsmodels
Fleiss' kappa, crowd-kit Dawid-Skene, none with an interval; `seconds_without_intervals` is kedge's time for the same
three. One that is not installed is named in `absent`. `difference` is the largest between kedge's figure and theirs;
`right` is the share of items whose candidate was told by Dawid-Skene, and by the majority.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from tests.benchmarks.watching import MAXRSS_UNIT
from tests.voters import Simulated, simulate

HABITS = ("good",) * 7 + ("random", "position", "adversarial")
PEERS = {"scikit-learn": "sklearn", "statsmodels": "statsmodels", "crowd-kit": "crowdkit"}


def simulated(num_votes: int) -> Simulated:
    """Votes of both rounds, exactly so many."""
    calibration = simulate(HABITS, num_votes // 100, 10, round_name="calibration-1", skill=0.8, ties=0.1,
                           gold_share=0.3, seed=1)  # fmt: skip
    main = simulate(HABITS, num_votes * 9 // 30, 3, skill=0.85, ties=0.1, gold_share=0.05, retest_share=0.02, seed=2)
    votes = pa.concat_tables([calibration.votes, main.votes]).slice(0, num_votes)
    return Simulated(pa.concat_tables([calibration.items, main.items]), votes, calibration.truth | main.truth,
                     main.habits)  # fmt: skip


def kedge(num_votes: int) -> dict[str, Any]:
    """Time, memory and figures of everything together; run in a process of its own."""
    from curation.voting.vote_arrays import arrays

    made = simulated(num_votes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_UNIT
    steps: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = work()
        steps[name] = round(time.perf_counter() - began, 3)
        return result

    votes = timed("arrays", lambda: arrays(made.items, made.votes))
    found = timed("agreement", lambda: _agreement(votes))
    people = timed("annotators", lambda: _annotators(votes))
    timed("calibration", lambda: _calibration(votes))
    right = timed("aggregation", lambda: _aggregation(votes, made))
    flags = {made.habits[one.name]: [flag.name for flag in one.flags] for one in people}
    return {
        "votes": len(votes.labels_V), "items": len(votes.item_ids), "annotators": len(votes.annotators),
        "seconds": round(sum(steps.values()), 3), "seconds_by_step": steps, "right": right,
        "alpha": round(found.alpha.value, 4), "alpha_interval": [round(end, 4) for end in found.alpha.interval],
        "flags": {habit: flags[habit] for habit in HABITS[-3:]}, "memory_before_bytes": before,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_UNIT,
    }  # fmt: skip


def _agreement(votes: Any) -> Any:
    from curation.voting.agreement import agreement

    for by in ("question", "source", "round", "week"):
        agreement(votes, by)
    return agreement(votes)["all"]


def _annotators(votes: Any) -> Any:
    from curation.voting.annotators import annotators

    return annotators(votes)


def _calibration(votes: Any) -> Any:
    from curation.voting.annotator_changes import calibration_changes

    return calibration_changes(votes)


def _right(votes: Any, made: Simulated, labels_I: np.ndarray) -> float:
    truth = np.array([votes.label_names.index(made.truth[name]) for name in votes.item_ids])
    return round(float((labels_I == truth)[votes.counted_I].mean()), 4)


def _aggregation(votes: Any, made: Simulated) -> dict[str, float]:
    from curation.voting.aggregating import majority
    from curation.voting.dawid_skene import dawid_skene

    sizes = len(votes.item_ids), len(votes.label_names)
    most = majority(votes.items_V, votes.labels_V, *sizes)
    learnt = dawid_skene(votes.items_V, votes.annotators_V, votes.labels_V, sizes[1], num_items=sizes[0])
    return {"majority": _right(votes, made, most.labels_I),
            "dawid_skene": _right(votes, made, learnt.posteriors_IL[:, : votes.tie].argmax(axis=1))}  # fmt: skip


def beside(num_votes: int) -> dict[str, Any]:
    """Peers on the same votes, and kedge on the same figures without intervals; run in a process of its own."""
    from curation.voting.agreement import agreement_on
    from curation.voting.coefficients import answered_together
    from curation.voting.dawid_skene import dawid_skene
    from curation.voting.vote_arrays import arrays

    made = simulated(num_votes)
    votes = arrays(made.items, made.votes)
    answers = votes.answers["verdict"]
    agreement_on(answers, resamples=1)  # imports
    began = time.perf_counter()
    ours = agreement_on(answers, resamples=1)
    middle = time.perf_counter()
    dawid_skene(votes.items_V, votes.annotators_V, votes.labels_V, len(votes.label_names))
    found: dict[str, Any] = {"seconds_without_intervals": {"kappas and alpha": round(middle - began, 4),
                             "dawid_skene": round(time.perf_counter() - middle, 4)}}  # fmt: skip
    there = {name for name, module in PEERS.items() if importlib.util.find_spec(module)}
    found["absent"] = sorted(PEERS.keys() - there)
    found["peers"] = {name: work(votes, made, ours, answered_together(answers)) for name, work in
                      (("scikit-learn", _sklearn), ("statsmodels", _statsmodels), ("crowd-kit", _crowdkit))
                      if name in there}  # fmt: skip
    return found


def _sklearn(votes: Any, made: Simulated, ours: Any, together: Any) -> dict[str, float]:
    from sklearn.metrics import cohen_kappa_score

    _, one, other, value, second = together
    pairs = sorted({*zip(one.tolist(), other.tolist(), strict=True)})
    began = time.perf_counter()
    theirs = [cohen_kappa_score(value[at], second[at]) for at in ((one == a) & (other == b) for a, b in pairs)]
    seconds = time.perf_counter() - began
    gap = max(abs(pair.kappa.value - kappa) for pair, kappa in zip(ours.pairs, theirs, strict=True))
    return {"seconds": round(seconds, 4), "difference": gap}


def _statsmodels(votes: Any, made: Simulated, ours: Any, together: Any) -> dict[str, float]:
    """Fleiss' kappa wants as many votes of each item: the main round's items with three alone."""
    from statsmodels.stats.inter_rater import fleiss_kappa

    from curation.voting.agreement import agreement_on

    answers = votes.answers["verdict"]
    three = np.bincount(answers.units_N, minlength=len(votes.item_ids)) == 3
    same = answers.of(three[answers.units_N])
    table = np.zeros((len(three), len(answers.values)))
    np.add.at(table, (same.units_N, same.values_N), 1)
    began = time.perf_counter()
    theirs = fleiss_kappa(table[three])
    seconds = time.perf_counter() - began
    return {"seconds": round(seconds, 4), "difference": abs(agreement_on(same, resamples=1).fleiss.value - theirs)}


def _crowdkit(votes: Any, made: Simulated, ours: Any, together: Any) -> dict[str, float]:
    import pandas as pd
    from crowdkit.aggregation import DawidSkene

    frame = pd.DataFrame({"task": votes.items_V, "worker": votes.annotators_V, "label": votes.labels_V})
    began = time.perf_counter()
    model = DawidSkene(n_iter=100, tol=1e-6).fit(frame)
    seconds = time.perf_counter() - began
    chances = model.probas_.reindex(index=range(len(votes.item_ids)), columns=range(votes.tie)).fillna(0).to_numpy()
    return {"seconds": round(seconds, 4), "right": _right(votes, made, chances.argmax(axis=1))}


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run, print the tables and the JSON line, and return what the line holds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="1,000 votes")
    parser.add_argument("--votes", type=int, default=10_000)
    options = parser.parse_args(arguments)
    num_votes = 1_000 if options.small else options.votes
    line: dict[str, Any] = {}
    for work in (kedge, beside):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            line |= pool.submit(work, num_votes).result()
    table = Table("step", "seconds", title=f"{line['votes']:,} votes of {line['annotators']} annotators, "
                                           f"{line['peak_memory_bytes'] >> 20:,} MiB at most")  # fmt: skip
    for name, seconds in (line["seconds_by_step"] | {"all": line["seconds"]}).items():
        table.add_row(name, f"{seconds:.3f}")
    Console(width=100).print(table)
    peers = Table("peer", "seconds", "largest difference", "right")
    for name, item in line["peers"].items():
        peers.add_row(name, f"{item['seconds']:.4f}", f"{item.get('difference', float('nan')):.1e}",
                      f"{item.get('right', float('nan')):.4f}")  # fmt: skip
    for name in line["absent"]:
        peers.add_row(name, "not installed", "", "")
    Console(width=100).print(peers)
    print(json.dumps(line))
    return line


if __name__ == "__main__":
    main()
