"""Commands: measure, rules, mix."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Engine = Literal["local", "ray", "slurm"]
mix = typer.Typer(no_args_is_help=True, help="Mixtures from SQL: look, freeze.")


def measure(
    sources: Annotated[list[str] | None, typer.Argument(help="Sources; all by default.")] = None,
    only: Annotated[str | None, typer.Option(help="One measure by name.")] = None,
    engine: Annotated[Engine, typer.Option(help="What measures parts; kedge.yaml describes clusters.")] = "local",
    json: Json = False,
) -> None:
    """Measure what is missing: what the adopted rules read, or one measure. Joins over all rows run on this machine
    whatever the engine.

    Example: kedge measure addition
    """
    from curation.mixing import measure_sources

    measure_sources(sources or None, only, engine, json)


def rules(
    rule: Annotated[str | None, typer.Argument(help="One rule by name.")] = None,
    to: Annotated[Path | None, typer.Option(help="Write report.html and funnel.json here.")] = None,
    json: Json = False,
) -> None:
    """What each rule removes, alone and together. Of one rule also its reasons, rows that it caught with their
    evidence, and what moving its thresholds would do.

    Example: kedge rules exact_duplicate
    """
    from curation.rules_command import print_rules

    print_rules(rule, to, json)


def show(name: Annotated[str, typer.Argument(help="The mixture's name.")], json: Json = False) -> None:
    """What a mixture would hold: rows and tokens per source; offered, refused, left over. Freezes nothing.

    Example: kedge mix show sft
    """
    from curation.mixing import print_preview

    print_preview(name, json)


def build(name: Annotated[str, typer.Argument(help="The mixture's name.")], json: Json = False) -> None:
    """Freeze a mixture as Parquet in training order, with its lineage and its held-out split.

    Example: kedge mix build sft
    """
    from curation.mixing import print_build

    print_build(name, json)


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the root app."""
    app.command()(measure)
    app.command()(rules)
    mix.command()(show)
    mix.command()(build)
    app.add_typer(mix, name="mix")
