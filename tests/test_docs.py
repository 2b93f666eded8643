"""README commands and docstring examples run in the quickstart's project; the files it names are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests import REPOSITORY

README = (REPOSITORY / "README.md").read_text()
NEEDS_CARE = ("quickstart", "env")  # not run again here: CI runs the quickstart, environments take minutes


def readme_commands() -> list[str]:
    blocks = re.findall(r"(?<!-->\n)```console\n(.*?)```", README, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("kedge ")]


def docstring_examples() -> list[str]:
    found = []
    for folder in ("curation/commands", "evals/commands", "trainers"):
        for path in sorted((REPOSITORY / folder).glob("*.py")):
            found += re.findall(r"^\s+Example: (kedge .+)$", path.read_text(), re.MULTILINE)
    return found


def test_the_readme_names_only_paths_that_exist():
    named = re.findall(r"`((?:curation|trainers|evals|catalogs|tests)/[\w./]*)`", README)
    assert named
    missing = [name for name in named if "NAME" not in name and not _holds_files(REPOSITORY / name)]
    assert not missing


def _holds_files(path: Path) -> bool:
    """An empty folder is not in a clone: git keeps files."""
    return path.is_file() or any(one.is_file() for one in path.rglob("*"))


def test_the_two_commands_of_the_readme_are_what_ci_runs():
    script = (REPOSITORY / ".ci" / "run").read_text()
    assert "readme_command" in script
    for name in ("run", "test"):
        assert re.search(rf"<!-- command: {name} -->\n```console\n.+\n```", README)


def test_every_command_has_an_example():
    import typer

    from curation.cli import load_commands

    def walk(group: typer.Typer) -> list:
        commands = [item.callback for item in group.registered_commands]
        return commands + [one for item in group.registered_groups for one in walk(item.typer_instance)]

    for callback in walk(load_commands()):
        assert "Example: kedge " in (callback.__doc__ or ""), callback


@pytest.mark.parametrize("command", [*readme_commands(), *docstring_examples()])
def test_documented_commands_run(command: str, quickstart: Path, kedge, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(quickstart)
    arguments = shlex.split(command)[1:]
    if arguments[0] in NEEDS_CARE and "--help" not in arguments:
        pytest.skip("runs in CI")
    if "ROW_ID" in arguments:
        _, out, _ = kedge("sql", "SELECT row_id::VARCHAR AS id FROM rows_sft ORDER BY row_id LIMIT 1", "--json")
        arguments[arguments.index("ROW_ID")] = re.search(r"[0-9a-f-]{36}", out).group()  # type: ignore[union-attr]
    code, out, err = kedge(*arguments)
    expected = {0}
    if arguments[:2] in (["drift", "sft"], ["audit", "sft_short"]):
        expected = {1}
    assert code in expected, err or out
