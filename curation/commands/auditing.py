"""Commands: audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def audit(
    subject: Annotated[str, typer.Argument(metavar="RUN|MIXTURE|FILE", help="What to audit.")],
    tokenizer: Annotated[str | None, typer.Option(help="A name, folder or hub id.")] = None,
    max_length: Annotated[
        int | None, typer.Option(help="One context length; without it, a mixture or file is swept.")
    ] = None,
    to: Annotated[Path | None, typer.Option(help="Also write report.html and audit.json here.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """What training would cut, drop and mask; exit 1 where a check fails. A file needs no project. A mixture or a file
    without a length is audited at every length from 512 on.

    Example: kedge audit sft
    """
    from curation.auditing.command import run

    raise typer.Exit(run(subject, tokenizer, max_length, to, json))


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the root app."""
    app.command()(audit)
