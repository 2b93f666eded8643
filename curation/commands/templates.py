"""Commands: template."""

from __future__ import annotations

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


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the root app."""
    template.command()(check)
    app.add_typer(template, name="template")
