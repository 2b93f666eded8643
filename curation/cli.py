"""The root command. Sub-commands of other packages join by the entry-point group `kedge.commands`.

A command parses, makes one call, prints and returns an exit code. Errors of the user print without a traceback.
"""

from __future__ import annotations

import functools
import gc
import os
import sys
import traceback
from importlib.metadata import entry_points

import typer
from typer.exceptions import TyperException

from curation.errors import EXIT_INTERRUPTED, EXIT_UNFORESEEN, EXIT_USER, KedgeError


@functools.cache
def load_commands() -> typer.Typer:
    """The root app with the commands of every package of the distribution and of outside packages, made once."""
    from curation import commands

    app = typer.Typer(
        name="kedge",
        help="The data desk and the judge for post-training: mixtures from SQL, truncation audits, drift verdicts.",
        no_args_is_help=True,
        rich_markup_mode=None,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    commands.register(app)
    for point in sorted(entry_points(group="kedge.commands"), key=lambda item: item.name):
        point.load()(app)
    return app


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code (the table in errors.py)."""
    gc.set_threshold(50_000, 20, 20)  # imports make no garbage; looking for it took a sixth of a command
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run one command line in this process and return its exit code."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        code = load_commands()(args=arguments, prog_name="kedge", standalone_mode=False)
        return int(code or 0)
    except KedgeError as error:
        for problem in error.problems:
            console.print(f"error: {problem}", markup=False, style="red")
        return error.exit_code
    except TyperException as error:
        show = getattr(error, "show", None)
        if show is not None:
            show()
        return EXIT_USER
    except (KeyboardInterrupt, typer.Abort):
        console.print("interrupted; run the same command again to go on", style="yellow")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception:  # the last resort: what nobody foresaw ends with its own exit code, and says where it arose
        traceback.print_exc()
        console.print("this is a defect of kedge: please report the lines above", style="red")
        return EXIT_UNFORESEEN


if __name__ == "__main__":
    main()
