"""Checks R1 to R4: prompts of reinforcement learning, the room for answers, and what they are judged against."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.auditing.checks import Check, graded, level, worst
from curation.auditing.judged import Judged
from curation.auditing.mirrors import Mirror
from curation.auditing.rl_signal import GRPOBatch, Rollouts, signal
from curation.auditing.setting import Setting
from curation.verifiers.attacks import forms
from curation.verifiers.named import VERIFIERS, Item, canonical, judge_all

REFUSED = "not accepted by its verifier"
SIGNAL = 0.30  # below this share of groups with a gradient most of the sampling is paid for nothing
VERL_BATCH = ("train_batch_size", "ppo_mini_batch_size", "ppo_micro_batch_size_per_gpu")
ROLLOUT_SHARE = 0.95  # the quantile of earlier rollouts that stands for a solution's length


@dataclass(frozen=True)
class Prompts:
    """N rlvr rows beside their anatomy: `ground_truth`, `verifier`, `prompt_hash` and `pass_rates` (or None) and the
    prompt hashes of rows that are held out."""

    ground_truth: pa.ChunkedArray
    verifier: pa.ChunkedArray
    prompt_hash: pa.ChunkedArray | None
    pass_rates: pa.ChunkedArray | None
    held_out: frozenset[str]


def prompt_checks(rows: Judged, anatomy: pa.Table, prompts: Prompts, mirror: Mirror,
                  setting: Setting) -> Iterator[Check]:  # fmt: skip
    """R1, R2, R4, R5 and R6 (R3 is setting_checks.context_fits)."""
    yield _overlong(rows, mirror)
    yield _room(rows, anatomy, mirror)
    if getattr(mirror, "rewarded", True):  # a teacher's signal needs neither ground truths nor groups
        yield _truth(prompts, int(rows.errors.sum()))
        yield _signal(prompts, group_size(mirror, setting))
        yield _batches(mirror, setting)


def _overlong(rows: Judged, mirror: Mirror) -> Check:
    """R1: prompts beyond the trainer's limit: dropped, cut on the left, or passed."""
    count = max(1, len(rows.tokens))
    cut = int(((rows.kept < rows.tokens) & ~rows.dropped).sum())
    dropped = int((rows.dropped & ~rows.errors).sum())
    longest = int(rows.tokens.max(initial=0))
    if cut:
        return Check("R1", "prompt overlong", "error", cut / count, 0.0,
                     f"{cut:,} prompts lose their beginning: the trainer keeps the last {mirror.context_length} tokens",
                     f"filter them before training, or raise {mirror.limits} to {longest:,}")  # fmt: skip
    if dropped:
        return Check("R1", "prompt overlong", level(dropped / count, 0.0, 0.05), dropped / count, 0.05,
                     f"{dropped:,} prompts are longer than {mirror.context_length} tokens and dropped",
                     f"raise {mirror.limits} to {longest:,}, or leave them out by a rule")  # fmt: skip
    return Check("R1", "prompt overlong", "ok", 0.0, 0.0, f"every prompt is passed whole (longest {longest:,} tokens)")


def _room(rows: Judged, anatomy: pa.Table, mirror: Mirror) -> Check:
    """R2: reference solutions that would not fit into a completion."""
    room = getattr(mirror, "response_length", None)
    lengths = anatomy["solution_tokens"]
    known = lengths.is_valid().to_numpy()
    if room is None or not known.any():
        what = "completions have no limit" if room is None else "no row has a reference solution to measure"
        return Check("R2", "response budget", "ok", 0.0, 0.20, what)
    tokens = pc.fill_null(lengths, 0).to_numpy()
    strata = [{"source": name, "over": float((tokens[of] > room).mean())} for index, name in enumerate(rows.names)
              if (of := known & (rows.source == index)).any()]  # fmt: skip
    value, where = worst(strata, lambda item: item["over"])
    needed = int(np.quantile(tokens[known], ROLLOUT_SHARE, method="higher"))
    return graded("R2", "response budget", value, (0.05, 0.20),
                  f"{value:.1%} of the reference solutions of '{where}' are longer than a completion may be ({room})",
                  f"every reference solution fits into {room} tokens",
                  f"{needed:,} tokens hold 95 % of the solutions (a policy writes more than a reference)")  # fmt: skip


def _truth(prompts: Prompts, raising: int) -> Check:
    """R4: a ground truth that its own verifier accepts, no prompt that is also held out, and none on which the template
    raises (which a length filter may take for too long)."""
    states = _states(prompts)
    hashes = prompts.prompt_hash.to_pylist() if prompts.prompt_hash is not None else []
    states["also held out"] = sum(item in prompts.held_out for item in hashes)
    states["on which the template raises"] = raising
    count = max(1, len(prompts.ground_truth))
    kinds = ("missing", REFUSED, "also held out", "on which the template raises")
    bad = {name: states[name] for name in kinds if states[name]}
    value = sum(bad.values()) / count
    unknown = f"; {states['unknown']:,} name a verifier that is not kedge's: unchecked" if states["unknown"] else ""
    if bad:
        said = ", ".join(f"{number:,} {name}" for name, number in bad.items())
        return Check("R4", "ground truth", "error", value, 0.0, f"ground truths: {said}{unknown}",
                     "leave those rows out by a rule, or mend their mapping or the template")  # fmt: skip
    return Check("R4", "ground truth", "warn" if unknown else "ok", 0.0, 0.0,
                 f"{states['fine']:,} of {count:,} ground truths are accepted by their verifiers{unknown}",
                 f"verifiers: {', '.join(VERIFIERS)}, or a name that stands for one" if unknown else "")  # fmt: skip


def group_size(mirror: Mirror, setting: Setting) -> int:
    """Answers per prompt: TRL's num_generations, verl's n."""
    given = setting.options.get("n") or getattr(mirror, "num_generations", None) or getattr(mirror, "n", None)
    return int(given or 8)


def _signal(prompts: Prompts, size: int) -> Check:
    """R5: the expected share of groups whose rewards differ, the only ones with a gradient."""
    name = "groups with a gradient"
    means = None if prompts.pass_rates is None else [
        float(np.mean(known)) if (known := [rate for rate in item or () if rate is not None]) else float("nan")
        for item in prompts.pass_rates.to_pylist()]  # fmt: skip
    seen = signal(means, size)
    if seen.share is None or seen.band is None:
        return Check("R5", name, "ok", 0.0, 1.0, f"unknown for groups of {size}: no row has a pass rate",
                     "sample answers and add pass_rates: all right or all wrong trains nothing")  # fmt: skip
    value = 1 - seen.share
    half = f"half of them at groups of {seen.smallest_group}" if seen.smallest_group else "never half of them"
    low, high = seen.band
    return Check("R5", name, "warn" if seen.share < SIGNAL else "ok", value, 1.0,
                 f"{seen.share:.1%} of the groups of {size} have a gradient ({half}); prompts solved {low:.0%} to "
                 f"{high:.0%} of the time have one half of the time: {seen.num_in_band:,} of {seen.num_known:,}",
                 "take prompts of that band, or larger groups" if seen.share < SIGNAL else "")  # fmt: skip


def _batches(mirror: Mirror, setting: Setting) -> Check:
    """R6: samples per iteration, updates on them, and what does not divide."""
    name, options = "batch arithmetic", setting.options
    batch: GRPOBatch | Rollouts | None = None
    if mirror.package == "trl":
        given = {field.name: options[field.name] for field in fields(GRPOBatch) if field.name in options}
        batch = GRPOBatch(**(given | {"num_processes": setting.num_processes, "num_generations":
                                      group_size(mirror, setting)}))  # fmt: skip
    elif all(key in options for key in VERL_BATCH):
        batch = Rollouts(**{key: options[key] for key in VERL_BATCH}, n=group_size(mirror, setting),
                         num_devices=setting.num_processes, ppo_epochs=options.get("ppo_epochs", 1))  # fmt: skip
    if batch is None:
        return Check("R6", name, "ok", 0.0, 0.0, f"unknown: the options {', '.join(VERL_BATCH)} are not all given")
    problems = batch.problems()
    return Check("R6", name, "error" if problems else "ok", float(len(problems)), 0.0,
                 "; ".join(f"{item.key}: {item.what}" for item in problems) or _said(batch),
                 "; ".join(item.next for item in problems))  # fmt: skip


def _said(batch: GRPOBatch | Rollouts) -> str:
    if isinstance(batch, GRPOBatch):
        return (f"{batch.derived[0]} completions of {float(batch.prompts_per_generation):g} prompts per generation, "
                f"{float(batch.updates_per_generation):g} optimiser updates on them")  # fmt: skip
    return (f"{batch.samples_per_iteration:,} samples per iteration, {float(batch.updates_per_iteration):g} optimiser "
            f"updates on them, {float(batch.micro_batches_per_update):g} micro-batches each")  # fmt: skip


def _states(prompts: Prompts) -> Counter[str]:
    """Rows by what their ground truth is: missing, unknown (no verifier of kedge's), fine, or not accepted by its
    verifier where it is written as an answer (`attacks.forms`; mathematics in a box, which text alone accepts)."""
    known = dict.fromkeys(prompts.verifier.unique().to_pylist())
    names = {name: canonical(name) for name in known}
    rows = Counter(zip(prompts.ground_truth.to_pylist(), map(names.get, prompts.verifier.to_pylist()), strict=True))
    states: Counter[str] = Counter()
    asked: list[tuple[Item, int]] = []
    for (truth, verifier), count in rows.items():
        if not (truth or "").strip():
            states["missing"] += count
        elif verifier is None:
            states["unknown"] += count
        elif (text := _as_answer(verifier, truth)) is None:
            states[REFUSED] += count
        else:
            asked.append((Item(verifier, text, truth), count))
    for judged, (_, count) in zip(judge_all([item for item, _ in asked]), asked, strict=True):
        states["fine" if judged.state == "right" else REFUSED] += count
    return states


def _as_answer(verifier: str, truth: str) -> str | None:
    """A ground truth as an honest answer writes it; None where it is none of this verifier's."""
    try:
        written = forms(verifier, truth)
    except ValueError:
        return None
    return written["boxed" if verifier == "math" else "plain"]
