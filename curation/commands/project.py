"""Commands: quickstart, init, doctor, plugins, rebuild, env create, show, sql, why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
environments = typer.Typer(no_args_is_help=True, help="Environments for verl, vllm and the Argilla server.")


def quickstart(
    folder: Annotated[Path, typer.Argument(help="Where the project is made.")] = Path("kedge-quickstart"),
) -> None:
    """Walk the whole journey offline on a tiny model: rows, rules, mixture, audit, training, evaluation, drift.

    Example: kedge quickstart --help
    """
    from curation import cli
    from curation.quickstart import journey

    journey.prepare(folder.resolve())
    journey.walk(folder.resolve(), cli.run)


def init(folder: Annotated[Path, typer.Argument(help="The project's folder.")] = Path()) -> None:
    """Start a project: kedge.yaml, catalogs/ and a .gitignore that keeps the lake out of git.

    Example: kedge init ../fresh
    """
    from curation.describing import make_project

    for path in make_project(folder):
        typer.echo(f"made {path}")


def doctor(json: Json = False) -> None:
    """Check versions, the lake, its index and locks; exit 4 where something is broken.

    Example: kedge doctor
    """
    from curation.describing import print_findings
    from curation.doctoring import examine

    raise typer.Exit(print_findings(examine(), json))


def plugins(json: Json = False) -> None:
    """List plug-ins with their versions and options.

    Example: kedge plugins --json
    """
    from curation.describing import print_plugins

    print_plugins(json)


def rebuild() -> None:
    """Make the index catalog.duckdb anew from the lake.

    Example: kedge rebuild
    """
    from curation.catalog import Catalog
    from curation.config import find_project

    typer.echo(f"{Catalog(find_project()).rebuild()} outputs entered")


def create(names: Annotated[list[str], typer.Argument(help="verl, vllm or argilla.")]) -> None:
    """Make environments for parts that cannot share this one.

    Example: kedge env create --help
    """
    from curation.environments import create as make

    for name in names:
        typer.echo(f"{name}: {make(name)}")


def show(
    name: Annotated[str, typer.Argument(help="A kind (sources, rules, ...) or the name of one thing.")],
    json: Json = False,
) -> None:
    """Describe anything: a source, rule, mixture, run, checkpoint, measure; or list a kind.

    Example: kedge show addition
    """
    from curation.describing import show as describe

    describe(name, json)


def sql(query: Annotated[str, typer.Argument(help="One SELECT.")], json: Json = False) -> None:
    """Query the lake, read-only. Views: rows, rows_STAGE, verdicts, duplicates, mixture_rows, checkpoints, manifests,
    generation, items, votes, resolved, and one per measure.

    Example: kedge sql "SELECT source, count(*) AS num_rows FROM rows GROUP BY source ORDER BY source"
    """
    from curation.describing import print_query

    print_query(query, json)


def why(
    row_id: Annotated[str, typer.Argument(help="A row's id, or its first characters.")], json: Json = False
) -> None:
    """Tell a row's whole story: file and line, signals, verdicts, mixtures, runs.

    Example: kedge why ROW_ID
    """
    from curation.describing import print_story

    print_story(row_id, json)


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the root app."""
    for command in (quickstart, init, doctor, plugins, rebuild, show, sql, why):
        app.command()(command)
    environments.command()(create)
    environments.callback()(_group)
    app.add_typer(environments, name="env")


def _group() -> None:
    """Environments for verl, vllm and the Argilla server."""
