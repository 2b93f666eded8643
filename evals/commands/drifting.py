"""Commands: drift."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the root app."""
    app.command("drift")(drift)


def drift(
    reference: Annotated[str, typer.Argument(metavar="RUN|CKPT", help="A run, RUN@STEP or a tag.")],
    against: Annotated[str | None, typer.Argument(metavar="[B]", help="Compare with this checkpoint.")] = None,
    suite: Annotated[str | None, typer.Option(help="The suite, where the run file names none.")] = None,
    to: Annotated[Path | None, typer.Option(help="Also write the report to this folder.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what improved, regressed or is undecided since the run's start, the best earlier checkpoint and the base.

    Example: kedge drift sft
    """
    from curation.catalog import Catalog
    from curation.config import find_project
    from evals.drift import drift as compare
    from evals.drift_report import print_report, publish

    catalog = Catalog(find_project())
    report = compare(catalog, reference, against, suite)
    print_report(report, publish(catalog, report, to), json)
    raise typer.Exit(report.exit_code)
