"""Commands: generate, annotate serve, push, status, pull, add, resolve, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Job = Annotated[str, typer.Argument(metavar="JOB", help="A job of catalogs/annotations/, by its name.")]
annotate = typer.Typer(no_args_is_help=True, help="Annotation: serve, push, follow, pull, resolve, report.")


def generate(
    job: Annotated[str, typer.Argument(metavar="JOB", help="A job of catalogs/generations/, by its name.")],
    json: Json = False,
) -> None:
    """Generate answers to prompts with a checkpoint or behind an endpoint; run again, it goes on where it was.

    Example: kedge generate --help
    """
    from curation.generation.command import print_generation

    print_generation(job, json)


def serve(
    host: Annotated[str, typer.Option(help="The address to listen on; anything but loopback opens it.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port.")] = 6900,
    annotators: Annotated[int, typer.Option(help="How many annotators to make.", min=1)] = 3,
    backup: Annotated[Path | None, typer.Option(metavar="FILE", help="Back up all data to FILE, and end.")] = None,
) -> None:
    """Run a real Argilla server for this project, on loopback, with its data in the project.

    Example: kedge annotate serve --help
    """
    from curation.annotation.serving import run

    raise typer.Exit(run(host, port, annotators, backup))


def push(job: Job, json: Json = False) -> None:
    """Send a job's items to Argilla; run again, it sends what is not there yet.

    Example: kedge annotate push --help
    """
    from curation.annotation.pushing import print_push

    print_push(job, json)


def status(job: Job, json: Json = False) -> None:
    """How far a job is: items, answers and what is left, per annotator.

    Example: kedge annotate status --help
    """
    from curation.annotation.status import print_status

    print_status(job, json)


def pull(job: Job, json: Json = False) -> None:
    """Fetch all answers to a job as evidence; late ones are added, and pulling twice changes nothing.

    Example: kedge annotate pull --help
    """
    from curation.annotation.pulling import print_pull

    print_pull(job, json)


def add(
    file: Annotated[Path, typer.Argument(metavar="FILE|JOB", help="Votes as JSONL or CSV.")],
    job: Annotated[
        str | None, typer.Option(metavar="NAME", help="What to call it; by default the file's name.")
    ] = None,
    judge: Annotated[bool, typer.Option("--judge", help="FILE is a job: let the judge answer its items.")] = False,
    json: Json = False,
) -> None:
    """Import votes without Argilla: one line a vote, one an item, or battles of an arena.

    Example: kedge annotate add --help
    """
    from curation.annotation.adding import print_added

    print_added(file, job, judge, json)


def resolve(
    name: Annotated[str, typer.Argument(metavar="JOB|RESOLUTION", help="A job, or a file of catalogs/resolutions/.")],
    export: Annotated[Path | None, typer.Option(metavar="DIR", help="Also write the pairs in others' shapes.")] = None,
    json: Json = False,
) -> None:
    """Turn votes into chosen and rejected: a preference source with confidence and lineage.

    Example: kedge annotate resolve --help
    """
    from curation.annotation.resolve_command import print_resolved

    print_resolved(name, export, json)


def report(
    job: Annotated[str, typer.Argument(metavar="JOB|RESOLUTION", help="A job, or a file of catalogs/resolutions/.")],
    to: Annotated[Path | None, typer.Option(metavar="DIR", help="Where report.html is written.")] = None,
    json: Json = False,
) -> None:
    """Agreement, annotators, bias, disagreements and cost of a job.

    Example: kedge annotate report --help
    """
    from curation.annotation.reporting import print_report

    print_report(job, to, json)


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the root app."""
    app.command()(generate)
    for command in (serve, push, status, pull, add, resolve, report):
        annotate.command()(command)
    app.add_typer(annotate, name="annotate")
