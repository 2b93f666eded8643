"""Commands: eval, scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the root app."""
    app.command("eval")(evaluate)
    scores = typer.Typer(help="Results of other harnesses.", no_args_is_help=True)
    scores.command("add")(add)
    app.add_typer(scores, name="scores")


def evaluate(
    reference: Annotated[str, typer.Argument(metavar="RUN|CKPT", help="A run, RUN@STEP or a tag.")],
    suite: Annotated[str | None, typer.Option(help="The suite, where the run file names none.")] = None,
    to: Annotated[Path | None, typer.Option(help="Also write a reward model's report to this folder.")] = None,
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

    report = score(Catalog(find_project()), reference, suite, to)
    print_json(vars(report)) if json else print_report(report)


def add(
    file: Annotated[Path, typer.Argument(help="Samples as JSON Lines, JSON or Parquet.", exists=True, dir_okay=False)],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Import results: one object per sample with checkpoint, benchmark, sample_id and state (right, wrong, truncated,
    unparsed, timeout or error).

    Example: kedge scores add --help
    """
    from curation.catalog import Catalog
    from curation.config import find_project
    from curation.console import print_json, table
    from evals.importing import add_scores

    added = add_scores(Catalog(find_project()), file)
    if json:
        print_json({"added": added})
    else:
        table("added", ["checkpoint", "benchmark", "n"], [list(row.values()) for row in added])
