"""Commands: train, checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
checkpoint = typer.Typer(no_args_is_help=True, help="Register, list and tag checkpoints, also foreign ones.")


def train(name: Annotated[str, typer.Argument(metavar="RUN", help="A run file.")], json: Json = False) -> None:
    """Train a run after a passing audit; started again after a stop, it goes on from its last checkpoint.

    Example: kedge train sft
    """
    from trainers.training import print_run
    from trainers.training import train as start

    print_run(start(name), json)


def add(
    paths: Annotated[list[Path], typer.Argument(help="Folders with safetensors weights.")],
    run: Annotated[str, typer.Option(help="The run's name.")],
    base: Annotated[str | None, typer.Option(help="The model that adapters belong to.")] = None,
) -> None:
    """Register checkpoints that were trained elsewhere; their data is unknown.

    Example: kedge checkpoint add models/tiny --run foreign
    """
    from trainers.registering import add_foreign

    add_foreign(paths, run, base)


def list_(run: Annotated[str | None, typer.Argument(help="One run.")] = None, json: Json = False) -> None:
    """List registered checkpoints.

    Example: kedge checkpoint list
    """
    from trainers.registering import print_list

    print_list(run, json)


def tag(
    reference: Annotated[str, typer.Argument(help="RUN@STEP.")], name: Annotated[str, typer.Argument(help="The tag.")]
) -> None:
    """Give a checkpoint a name of its own.

    Example: kedge checkpoint tag sft@150 best
    """
    from trainers.registering import add_tag

    add_tag(reference, name)


def register(app: typer.Typer) -> None:
    """Add the commands of this package to the root app."""
    app.command()(train)
    checkpoint.command("add")(add)
    checkpoint.command("list")(list_)
    checkpoint.command("tag")(tag)
    app.add_typer(checkpoint, name="checkpoint")
