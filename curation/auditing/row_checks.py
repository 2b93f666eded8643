"""Checks A1 to A11 and T3: what cutting, dropping and splitting costs the rows, from whom, and in which share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from curation.auditing.checks import ROUNDING, Check, Level, graded, level, lost, worst
from curation.auditing.fates import SPLIT
from curation.auditing.judged import Judged
from curation.auditing.strata import GATED, shifts
from curation.rendering.thoughts import FORMATS

Sources = list[dict[str, Any]]


def run_checks(rows: Judged, sources: Sources, limit: int | None, refusals: list[str]) -> list[Check]:
    """Every check in the order of their ids, given what `by_source` counted."""
    strata = sources[:-1]
    losing = bool((rows.tokens > rows.kept).any() or (rows.kept_trained < rows.trained).any())
    advice = rows.once("longer", lambda: longer(rows)) if losing else "raise max_length"
    return [*_cut_checks(strata, rows, limit, advice), *_format_checks(rows), *_signal_checks(strata, rows, advice),
            _prompt_cut(rows), reweighting(rows), _order(rows), _reasoning(rows), refused(refusals)]  # fmt: skip


def longer(rows: Judged, share: float = 0.99) -> str:
    """The smallest length at which a share of the rows, and of the reasoning rows, of every source stays whole, as
    advice: the length under which A1, A2 and A5 pass."""
    groups = [(rows.source == index) & of for index in range(len(rows.names)) for of in (~rows.errors, rows.closes)]
    lengths = [np.quantile(rows.tokens[group], share, method="higher") for group in groups if group.any()]
    if not lengths:
        return "raise max_length"
    longest = int(max(lengths))
    return f"max_length {longest:,} keeps {share:.0%} of every source whole; or leave the long rows out by a rule"


def _cut_checks(strata: Sources, rows: Judged, limit: int | None, advice: str) -> Iterator[Check]:
    long = (rows.tokens > limit) & (rows.fates.fate != SPLIT) if limit is not None else np.zeros(len(rows.tokens), bool)
    counts = rows.each(long)
    value, where = worst([item | {"long": count} for item, count in zip(strata, counts, strict=False)],
                         lambda item: item["long"] / item["rows"])  # fmt: skip
    yield Check("A1", "overlong rows", level(value, 0.01, 0.05), value, 0.05,
                f"{value:.1%} of the rows of '{where}' are longer than {limit}" if value else "no row is too long",
                advice if value else "")  # fmt: skip
    value, where = worst(strata, lost("stops_before", "stops_after"))
    yield Check("A2", "stop kept", level(value, 0.0, 0.01), value, 0.01,
                f"{value:.1%} of the rows of '{where}' lose the token that ends the answer" if value else
                "every row keeps the token that ends its answer", advice if value else "")  # fmt: skip
    value, where = worst(strata, lambda item: 1 - item["stops_before"] / item["rows"])
    yield Check("A3", "stop trained", level(value, 0.0, 0.0), value, 0.0,
                f"in {value:.1%} of the rows of '{where}' the last trained token is no stop"
                if value else "the last trained token of every row is a stop",
                "train the end-of-turn token (inside the generation tags), and make it the eos"
                if value else "")  # fmt: skip
    value = float(rows.fates.false_stop.sum() / max(1, len(rows.source)))
    yield graded("A4", "false stop", value, (0.0, 0.001),
                 f"{value:.1%} of the rows end in the middle of the answer with a stop token that is trained",
                 "no row learns to stop where its answer does not end",
                 "the trainer adds the stop after the cut: " + advice)  # fmt: skip
    value, where = worst(strata, lost("think_closed_before", "think_closed_after"))
    yield Check("A5", "think closed", level(value, 0.0, 0.01), value, 0.01,
                f"{value:.1%} of the reasoning rows of '{where}' never see the end of their reasoning" if value else
                "every thought that closes still closes", advice if value else "")  # fmt: skip


def _format_checks(rows: Judged) -> Iterator[Check]:
    """A6: thoughts as the source writes them, before any cut."""
    wrong = rows.think_format > 0
    value = float(wrong.sum() / max(1, len(rows.source)))
    kinds = [f"{int((rows.think_format == code).sum()):,} {name}" for code, name in enumerate(FORMATS)
             if code and (rows.think_format == code).any()]  # fmt: skip
    yield graded("A6", "source format", value, (0.0, 0.0),
                 f"{value:.1%} of all rows have a malformed thought: {', '.join(kinds)}",
                 "every thought is well formed", "leave them out: kedge rules unclosed_think")  # fmt: skip


def _signal_checks(strata: Sources, rows: Judged, advice: str) -> Iterator[Check]:
    once = rows.each(np.minimum(rows.kept_trained, rows.trained))  # a token that is kept twice makes up for no other
    value, where = worst([item | {"once": count} for item, count in zip(strata, once, strict=False)],
                         lost("trained_tokens", "once"))  # fmt: skip
    had, stay = int(rows.has_answer.sum()), int(rows.keeps_answer.sum())
    answers = f"; {had - stay:,} of {had:,} answers are not whole" if stay < had else ""
    yield Check("A7", "trained tokens lost", level(value, 0.02, 0.10), value, 0.10,
                f"{value:.1%} of the trained tokens of '{where}' are lost{answers}" if value else
                f"no trained token is lost{answers}", advice if value > 0.02 else "")  # fmt: skip
    silent = int((~rows.dropped & (rows.kept_trained == 0)).sum())
    dropped = int(rows.dropped.sum()) / max(1, len(rows.source))
    grade: Level = "error" if silent else level(dropped, 0.001, 0.05)
    seen = max(silent / max(1, len(rows.source)), dropped)
    single = int((rows.kept_trained == 1).sum())
    one = f", {single:,} train one token alone" if single else ""
    yield Check("A8", "nothing to train", grade, seen, 0.0 if silent else 0.05,
                f"{silent:,} rows stay with nothing to train, {dropped:.1%} are dropped{one}" if silent or dropped else
                "every row has something to train" + one, advice if silent or dropped else "")  # fmt: skip


def _prompt_cut(rows: Judged) -> Check:
    """A9: the answer is trained, and something before it is gone."""
    gone = (rows.kept_trained > 0) & ~rows.fates.covers_start()
    value = float(gone.sum() / max(1, len(rows.source)))
    return graded("A9", "prompt cut", value, (0.0, 0.0),
                  f"{int(gone.sum()):,} rows train an answer without the beginning of its prompt",
                  "no answer is trained without its prompt", "cut on the right (truncation_mode: keep_start), or leave "
                  "the long rows out by a rule")  # fmt: skip


def reweighting(rows: Judged) -> Check:
    """A10 over sources, modes and labels, in rows and trained tokens: error where the total variation is above 0.05,
    PSI above 0.1 or a stratum loses more than a fifth of its share, warn above 0.02 or where a share changes by more
    than a tenth; the kind and unit that moves most is told."""
    moved = [item for item in shifts(rows) if item.kind in GATED]
    if not moved:
        return Check("A10", "mixture re-weighted", "ok", 0.0, 0.05, "there is nothing to weigh")
    most = max(moved, key=lambda item: max(item.total_variation, item.worst_loss / 4))
    value = max(most.total_variation, most.worst_loss / 4)
    grade = level(max(item.total_variation for item in moved), 0.02, 0.05)
    loss = max(item.worst_loss for item in moved)
    if loss > 0.20 + ROUNDING or any(item.psi > 0.1 for item in moved):
        grade = "error"
    elif grade == "ok" and (loss > 0.10 + ROUNDING or max(item.gain for item in moved) > 0.10 + ROUNDING):
        grade = "warn"
    what = f"the shares of {most.unit} by {most.kind} move by {most.total_variation:.3f} (total variation)"
    return Check("A10", "mixture re-weighted", grade, value, 0.05,
                 f"{what}; '{most.worst}' loses {most.worst_loss:.1%} of its share" if value > ROUNDING else
                 "sources and modes keep their shares",
                 "re-balance by the takes, or raise max_length" if grade != "ok" else "")  # fmt: skip


def _order(rows: Judged) -> Check:
    """A11: a length limit selects by mode where long rows are the thinking ones. The value is the gap between the
    shares of rows with and without a thought that stay whole; the rank correlation of length and mode says why."""
    thinks = rows.once("thinks", lambda: rows.thinks)
    if not thinks.any() or thinks.all():
        return Check("A11", "length selects by mode", "ok", 0.0, 1.0, "all rows are of one mode")
    kept = [float(rows.whole[of].mean()) for of in (thinks, ~thinks)]
    value = abs(kept[1] - kept[0])
    if value <= ROUNDING:
        return Check("A11", "length selects by mode", "ok", 0.0, 1.0, "both modes stay whole alike")
    rho = rows.once("rho", lambda: _correlation(rows.tokens, thinks))
    return Check("A11", "length selects by mode", level(value, 0.05, 1.0), value, 1.0,
                 f"{kept[0]:.1%} of the rows with a thought stay whole and {kept[1]:.1%} of those without (length and "
                 f"mode correlate at {rho:+.2f})", "re-balance by the takes, or raise max_length"
                 if value > 0.05 else "")  # fmt: skip


def _correlation(tokens: np.ndarray, thinks: np.ndarray) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(tokens, thinks).statistic)


def _reasoning(rows: Judged) -> Check:
    """T3 over the rows: every thought of the source is in a trained part of the rendered row."""
    lacking = rows.thoughts > rows.thoughts_trained
    value = float(lacking.sum() / max(1, (rows.thoughts > 0).sum()))
    gone = int((rows.thoughts - rows.thoughts_trained).sum())
    return graded("T3", "reasoning survives", value, (0.0, 0.0),
                  f"the rendering loses or does not train {gone:,} thoughts of {int(lacking.sum()):,} rows",
                  "every thought is in the trained text" if rows.thoughts.any() else "no row has a thought",
                  "use a template that keeps reasoning in the turns of the past (chatml_think), or split the "
                  "conversations so that each thought is in the last turn")  # fmt: skip


def refused(refusals: list[str]) -> Check:
    """R0: whether the trainer would start at all."""
    return Check("R0", "the trainer would start", "error" if refusals else "ok", float(len(refusals)), 0.0,
                 "; ".join(refusals) or "the template renders every row, and the trainer takes them",
                 "leave those rows out by a rule, or mend the template" if refusals else "")  # fmt: skip
