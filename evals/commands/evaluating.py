"""Commands: eval."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the root app."""
    app.command("eval")(evaluate)


def evaluate(
    reference: Annotated[str, typer.Argument(metavar="RUN|CKPT", help="A run, RUN@STEP or a tag.")],
    suite: Annotated[str | None, typer.Option(help="The suite, where the run file names none.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Score what is not scored yet: a run's start and every checkpoint of it, or one checkpoint.

    Example: kedge eval sft
    """
    from curation.catalog import Catalog
    from curation.config import find_project
    from curation.console import print_json
    from evals.evaluating import evaluate as score
    from evals.evaluating import print_report

    report = score(Catalog(find_project()), reference, suite)
    print_json(vars(report)) if json else print_report(report)
