"""What a stage did besides training: template change, waived checks, and how the data shifted."""

from __future__ import annotations

import json
from typing import Any

from curation import checkpoints
from curation.catalog import Catalog
from curation.checkpoints import Checkpoint
from curation.outputs import Manifest


def stage_context(catalog: Catalog, checkpoint: Checkpoint) -> dict[str, Any]:
    """What stands beside the verdicts of a checkpoint: its mixture, the parent's, whether the template changed (None
    where one of the two is unknown), the waivers of its audit, shares of trained tokens per source before and after
    the trainer's cuts, and the shares of the parent's mixture."""
    parent = checkpoints.find(catalog, checkpoint.parent) if checkpoint.parent is not None else None
    audit = _audit(catalog, checkpoint)
    known = None not in (checkpoint.template, parent and parent.template)
    return {
        "checkpoint": checkpoint.id,
        "parent": None if parent is None else parent.id,
        "mixture": checkpoint.mixture or "data unknown",
        "parent_mixture": None if parent is None else parent.mixture,
        "template_changed": checkpoint.template != parent.template if known and parent is not None else None,
        "waivers": [] if audit is None else [{"check": item["id"], "value": item["value"], "reason": item["waived"]}
                                             for item in audit["checks"] if item["waived"]],
        "shares": shares(catalog, checkpoint, parent, audit),
    }  # fmt: skip


def shares(
    catalog: Catalog, checkpoint: Checkpoint, parent: Checkpoint | None, audit: dict[str, Any] | None
) -> list[dict[str, Any]]:
    """Per source its share (0..1) of the trained tokens of the parent's mixture, of this one before any cut, and of
    what the trainer kept; of rows where trained tokens were not counted. None where unknown."""
    before, own = _mixture_shares(catalog, parent), _mixture_shares(catalog, checkpoint)
    kept: dict[str, float] = {}
    if audit is not None:
        counts = {item["source"]: item["kept_trained_tokens"] for item in audit["sources"] if item["source"] != "all"}
        kept = _shares(counts)
    names = sorted({*before, *own, *kept})
    return [{"source": name, "parent": before.get(name, 0.0) if before else None,
             "mixture": own.get(name, 0.0) if own else None, "kept": kept.get(name, 0.0) if kept else None}
            for name in names]  # fmt: skip


def _mixture_shares(catalog: Catalog, checkpoint: Checkpoint | None) -> dict[str, float]:
    manifest = None if checkpoint is None else _mixture(catalog, checkpoint)
    if manifest is None:
        return {}
    sources = manifest.counts["sources"]
    tokens = {name: item.get("trained_tokens") or 0 for name, item in sources.items()}
    return _shares(tokens if any(tokens.values()) else {name: item["rows"] for name, item in sources.items()})


def _shares(counts: dict[str, int]) -> dict[str, float]:
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items() if count} if total else {}


def _mixture(catalog: Catalog, checkpoint: Checkpoint) -> Manifest | None:
    name, _, digest = (checkpoint.mixture or "").partition("@")
    return catalog.manifest(catalog.folder("mixtures", name, digest[:16])) if digest else None


def _audit(catalog: Catalog, checkpoint: Checkpoint) -> dict[str, Any] | None:
    """The audit under which a checkpoint was trained; of several with other waivers, the one published last."""
    if checkpoint.audit is None:
        return None
    found = catalog.latest("audits", checkpoint.run, checkpoint.audit)
    return None if found is None else dict(json.loads((found[0] / "audit.json").read_bytes()))
