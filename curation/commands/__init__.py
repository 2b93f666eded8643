"""The commands of the data plane: one file per group, each with `register(app)`; heavy imports inside functions."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add every command of this package to the root app."""
    from curation.commands import annotating, auditing, mixing, project, sources, templates

    for group in (project, sources, mixing, auditing, annotating, templates):
        group.register(app)
