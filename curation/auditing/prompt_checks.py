"""Checks R1 to R4: prompts of reinforcement learning, the room for answers, and what they are judged against."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.auditing.checks import Check, graded, level, worst
from curation.auditing.judged import Judged
from curation.auditing.mirrors import Mirror
from curation.errors import UserError

KNOWN = ("choice", "exact", "numeric")
ROLLOUT_SHARE = 0.95  # the quantile of earlier rollouts that stands for a solution's length


@dataclass(frozen=True)
class Prompts:
    """N rlvr rows beside their anatomy: `ground_truth`, `verifier`, `prompt_hash` (or None) and the prompt hashes of
    rows that are held out."""

    ground_truth: pa.ChunkedArray
    verifier: pa.ChunkedArray
    prompt_hash: pa.ChunkedArray | None
    held_out: frozenset[str]


def prompt_checks(rows: Judged, anatomy: pa.Table, prompts: Prompts, mirror: Mirror) -> Iterator[Check]:
    """R1, R2 and R4 (R3 is setting_checks.context_fits)."""
    yield _overlong(rows, mirror)
    yield _room(rows, anatomy, mirror)
    yield _truth(prompts)


def _overlong(rows: Judged, mirror: Mirror) -> Check:
    """R1: prompts beyond the trainer's limit: dropped, cut on the left, or passed."""
    count = max(1, len(rows.tokens))
    cut = int(((rows.kept < rows.tokens) & ~rows.dropped).sum())
    dropped = int(rows.dropped.sum())
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


def _truth(prompts: Prompts) -> Check:
    """R4: a ground truth that its own verifier accepts, and no prompt that is also held out."""
    rows = zip(prompts.ground_truth.to_pylist(), prompts.verifier.to_pylist(), strict=True)
    states = Counter(_state(truth, name) for truth, name in rows)
    hashes = prompts.prompt_hash.to_pylist() if prompts.prompt_hash is not None else []
    states["also held out"] = sum(item in prompts.held_out for item in hashes)
    count = max(1, len(prompts.ground_truth))
    bad = {name: states[name] for name in ("missing", "not accepted by its verifier", "also held out") if states[name]}
    value = sum(bad.values()) / count
    unknown = f"; {states['unknown']:,} name a verifier that is not kedge's: unchecked" if states["unknown"] else ""
    if bad:
        said = ", ".join(f"{number:,} {name}" for name, number in bad.items())
        return Check("R4", "ground truth", "error", value, 0.0, f"ground truths: {said}{unknown}",
                     "leave those rows out by a rule, or mend their mapping")  # fmt: skip
    return Check("R4", "ground truth", "warn" if unknown else "ok", 0.0, 0.0,
                 f"{states['fine']:,} ground truths are accepted by their verifiers{unknown}",
                 f"verifiers: {', '.join(KNOWN)}" if unknown else "")  # fmt: skip


def _state(truth: str | None, verifier: str | None) -> str:
    if not (truth or "").strip():
        return "missing"
    if verifier not in KNOWN:
        return "unknown"
    judge: Any = importlib.import_module(f"curation.verifiers.{verifier}").judge
    try:
        return "fine" if judge(truth, truth).state == "right" else "not accepted by its verifier"
    except (ValueError, UserError):
        return "not accepted by its verifier"
