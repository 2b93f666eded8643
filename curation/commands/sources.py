"""Commands: add."""

from __future__ import annotations

from typing import Annotated

import typer


def add(
    reference: Annotated[
        str, typer.Argument(metavar="PATH|HUB_ID|SOURCE", help="A file, folder, dataset id or source.")
    ],
    name: Annotated[str | None, typer.Option(help="The source's name; by default the file's.")] = None,
    stage: Annotated[str | None, typer.Option(help="midtrain, sft, preference, rlvr or benchmark.")] = None,
    held_out: Annotated[float | None, typer.Option(help="Share of prompts to keep for evaluation, 0..1.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Recognise a dataset's shape, write its source file and bring its rows into the lake; again for what is new.

    Example: kedge add reversal
    """
    from curation.adding import add as run
    from curation.adding import print_report

    report, catalog = run(reference, name, stage, held_out)
    print_report(report, catalog, json)


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the root app."""
    app.command()(add)
