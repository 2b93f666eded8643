"""Checks of the launch as a whole: positions (R3), whether the mirror is vouched for (V1), dead options (V2)."""

from __future__ import annotations

from curation.auditing.checks import Check
from curation.auditing.judged import Judged
from curation.auditing.mirrors import Mirror
from curation.auditing.setting import Setting, installed_version
from curation.errors import Problem


def context_fits(rows: Judged, mirror: Mirror, setting: Setting) -> Check:
    """R3: what a sequence may grow to, against the positions of the model (with RoPE scaling) and, where answers are
    generated, the engine's own limit. The value is how far it goes beyond, as a share."""
    room = getattr(mirror, "response_length", None)
    longest = int(rows.kept.max(initial=0))
    asked = longest + (room or 0)
    what = f"sequences of {asked:,} tokens" + (f" ({longest:,} and {room:,} of an answer)" if room else "")
    if room is None and mirror.context_length is not None and mirror.packs:
        asked, what = mirror.context_length, f"packed sequences of {mirror.context_length:,} tokens"
    limits = {"the model's positions": setting.positions}
    if room is not None and mirror.limits == "vllm_max_model_length":
        limits["vllm_max_model_length"] = mirror.context_length
    known = {name: value for name, value in limits.items() if value}
    if not known:
        return Check("R3", "context fits", "ok", 0.0, 0.0, f"{what}; the model's positions are not known here")
    name = min(known, key=lambda item: known[item])
    limit = known[name]
    over = max(0.0, asked / limit - 1)
    return Check("R3", "context fits", "error" if over else "ok", over, 0.0,
                 f"{what} {'do not fit into' if over else 'fit into'} {name} ({limit:,})", "lower the length, or "
                 "choose a model (or a RoPE scaling) with more positions" if over else "")  # fmt: skip


def vouched(mirror: Mirror) -> Check:
    """V1: how far the mirror is known to be what the trainer does. Differential tests run against the installed
    trainer, and a wrapper compares every row before step 1."""
    name = "mirror parity"
    if mirror.read_not_run:
        return Check("V1", name, "warn", 0.0, 1.0, mirror.read_not_run, "compare a few rows with the trainer's own")
    version = installed_version(mirror.package)
    if version is None:
        return Check("V1", name, "ok", 0.0, 1.0, f"tested against {mirror.package} {mirror.versions}, which is not "
                     "installed here")  # fmt: skip
    return Check("V1", name, "ok", 0.0, 1.0, f"tested against {mirror.package} {version}; training compares every row "
                 "before step 1")  # fmt: skip


def live(problems: tuple[Problem, ...]) -> Check:
    """V2: options that are set and ignored, unknown, or forced back."""
    return Check("V2", "dead options", "error" if problems else "ok", float(len(problems)), 0.0,
                 "; ".join(f"{item.where}: {item.key}: {item.what}" for item in problems) or "every option is alive",
                 "; ".join(item.next for item in problems if item.next))  # fmt: skip
