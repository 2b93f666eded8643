"""Commands: eval, scores, drift."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this package to the root app."""
    from evals.commands import drifting, evaluating

    for group in (evaluating, drifting):
        group.register(app)
