"""Commands: train, checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
checkpoint = typer.Typer(
    no_args_is_help=True, help="Register, list, compare, tag and merge checkpoints, also foreign ones."
)


def train(
    name: Annotated[str, typer.Argument(metavar="RUN", help="A run file.")],
    origin: Annotated[str | None, typer.Option("--from", metavar="CKPT", help="Go back to this checkpoint.")] = None,
    chain: Annotated[bool, typer.Option("--chain", help="Every stage that it descends from, behind gates.")] = False,
    rehearse: Annotated[bool, typer.Option("--rehearse", help="Three steps on the longest rows.")] = False,
    bundle: Annotated[Path | None, typer.Option(help="Write a folder that trains without the lake.")] = None,
    json: Json = False,
) -> None:
    """Train a run after a passing audit; started again after a stop, it goes on from its last checkpoint.

    Example: kedge train sft
    """
    from trainers.training import print_run
    from trainers.training import train as start

    if rehearse:
        from trainers.rehearsing import rehearse as go

        go(name, json)
        return
    if bundle is not None:
        from trainers.bundling.writing import bundle as write

        write(name, bundle)
        return
    if chain:
        raise typer.Exit(train_chain(name, json))
    print_run(start(name, origin), json)


def train_chain(name: str, json: bool) -> int:
    """Walk the chain of a run by kedge's own commands; returns the exit code."""
    from curation import cli
    from curation.catalog import Catalog
    from curation.config import find_project
    from trainers.chain import Steps, print_chain, walk

    def command(*words: str) -> Callable[[str], int]:
        return lambda subject: cli.run([*words, subject])

    steps = Steps(command("mix", "build"), command("audit"), command("train"), command("eval"), command("drift"))
    return print_chain(walk(Catalog(find_project()), name, steps), json)


def plan(
    name: Annotated[str, typer.Argument(metavar="RUN", help="A run file.")],
    chain: Annotated[
        bool, typer.Option("--chain", help="With every run that it descends from, and their sum.")
    ] = False,
    iterations: Annotated[int, typer.Option(min=1, help="How often all of it is gone through.")] = 1,
    json: Json = False,
) -> None:
    """Steps, tokens, memory, hours and cost of a run whose mixture is frozen, and settings that are unusual.

    Example: kedge plan sft
    """
    from trainers.planning.plan import plan as make
    from trainers.planning.plan import print_plan

    print_plan(make(name, chain, iterations), json)


def add(
    paths: Annotated[list[Path], typer.Argument(help="Folders with safetensors weights.")],
    run: Annotated[str, typer.Option(help="The run's name.")],
    base: Annotated[str | None, typer.Option(help="The model that adapters belong to.")] = None,
) -> None:
    """Register checkpoints that were trained elsewhere; their data is unknown, but for those of a bundle.

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


def merge(
    references: Annotated[list[str], typer.Argument(metavar="A B | ADAPTER", help="RUN@STEP, RUN or a tag.")],
    weight: Annotated[list[float] | None, typer.Option(help="The share of B, 0 to 1; several make a sweep.")] = None,
    run: Annotated[str | None, typer.Option(help="The run that merges are registered under.")] = None,
    waive: Annotated[str | None, typer.Option(help="Why another tokenizer or template is accepted.")] = None,
    json: Json = False,
) -> None:
    """Average two checkpoints (a safety valve: RL with its best SFT or DPO one), or put an adapter onto its base.

    Each weight W makes the checkpoint RUN@(1000 W) with 1 - W of A and W of B. They are chosen like others: kedge eval
    RUN --suite SUITE scores them all, kedge drift RUN compares each with A.

    Example: kedge checkpoint merge --help
    """
    from trainers.merging.command import merge as merged
    from trainers.merging.command import print_merged

    print_merged(merged(references, weight or [], run, waive), json)


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="RUN@STEP, RUN or a tag.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    json: Json = False,
) -> None:
    """Say how far the weights of two checkpoints lie apart, and what differs beside them.

    Example: kedge checkpoint compare sft@75 sft@150
    """
    from trainers.merging.comparing import compare as compared
    from trainers.merging.comparing import print_comparison

    print_comparison(compared(first, second), json)


def register(app: typer.Typer) -> None:
    """Add the commands of this package to the root app."""
    app.command()(train)
    app.command()(plan)
    checkpoint.command("add")(add)
    checkpoint.command("list")(list_)
    checkpoint.command("tag")(tag)
    checkpoint.command("merge")(merge)
    checkpoint.command("compare")(compare)
    app.add_typer(checkpoint, name="checkpoint")
