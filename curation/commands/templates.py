"""Commands: template."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

template = typer.Typer(no_args_is_help=True, help="Chat templates: does training say what inference will say?")


def check(
    name: Annotated[str, typer.Argument(metavar="TEMPLATE|FOLDER", help="A template, a .jinja file, a model folder.")],
    tokenizer: Annotated[str | None, typer.Option(help="A name, folder or hub id.")] = None,
    kwargs: Annotated[str | None, typer.Option(help="Arguments of the template as JSON.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a template on a tokenizer: the same text in training, evaluation and serving; exit 1 where it is not.

    Example: kedge template check chatml --tokenizer tiny
    """
    from curation.auditing.template_command import run

    raise typer.Exit(run(name, tokenizer, kwargs, json))


def adapt(
    name: Annotated[str, typer.Argument(metavar="TEMPLATE|FOLDER", help="A template, a .jinja file, a folder's own.")],
    tokenizer: Annotated[str, typer.Option(metavar="BASE", help="A name, folder or hub id; best a model's folder.")],
    to: Annotated[Path, typer.Option(metavar="DIR", help="The new tokenizer's folder.")],
    parent: Annotated[Path | None, typer.Option(metavar="FOLDER", help="The tokenizer of the stage before.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Fit a template to a base tokenizer: its special strings on unused tokens, and the rows that must be trained.

    Example: kedge template adapt chatml_think --tokenizer tiny --to adapted/tiny
    """
    from curation.auditing.adapt_command import run

    raise typer.Exit(run(name, tokenizer, to, parent, json))


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the root app."""
    template.command()(check)
    template.command()(adapt)
    app.add_typer(template, name="template")
