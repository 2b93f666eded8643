"""Commands: audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def audit(
    subject: Annotated[str, typer.Argument(metavar="RUN|MIXTURE|FILE", help="What to audit.")],
    dataset: Annotated[
        str | None, typer.Argument(metavar="[DATASET]", help="Local data in place of what a launch file names.")
    ] = None,
    tokenizer: Annotated[str | None, typer.Option(help="A name, folder or hub id.")] = None,
    max_length: Annotated[
        int | None, typer.Option(help="One context length; without it, a mixture or file is swept.")
    ] = None,
    to: Annotated[Path | None, typer.Option(help="Also write report.html and audit.json here.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """What training would cut, drop and mask; exit 1 where a check fails. A mixture or a dataset without a length is
    audited at every length from 512 on. A file needs no project: a dataset, or a launch file of axolotl, LLaMA-Factory,
    TRL or verl, audited as that launch would train.

    Example: kedge audit sft
    """
    from curation.auditing.command import run

    raise typer.Exit(run(subject, dataset, tokenizer, max_length, to, json))


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the root app."""
    app.command()(audit)
