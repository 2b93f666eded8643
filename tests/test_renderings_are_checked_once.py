"""A tokenizer and template that passed their checks are remembered by their bytes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from curation.config import Project, find_project
from curation.errors import UserError
from curation.rendering import load_tokenizer
from curation.rendering.checked import Checked, checked

AGAIN = """
import sys
from curation import cli
assert cli.run(["mix", "build", "asked"]) == 0
assert "transformers" not in sys.modules and "torch" not in sys.modules
"""


@pytest.fixture
def project(project_folder: Path, tiny_model: Path) -> Project:
    shutil.copytree(tiny_model, project_folder / "model")
    (project_folder / "kedge.yaml").write_text("tokenizers: {own: model}\n")
    return find_project(project_folder)


def remembered(project: Project) -> list[Path]:
    return sorted((project.lake / ".cache" / "renderings").glob("*.json"))


def test_what_is_remembered_is_what_was_found(project: Project) -> None:
    first = checked(project, "own", "chatml")
    assert len(remembered(project)) == 1
    assert checked(project, "own", "chatml") == first
    loaded = load_tokenizer(project, "own")
    own = checked(project, "own", "tokenizer")
    assert own == Checked(loaded.reference, loaded.fingerprint, loaded.stop_ids, loaded.hf.chat_template)
    assert checked(project, "own", None) == Checked(loaded.reference, loaded.fingerprint, loaded.stop_ids, None)
    assert len(remembered(project)) == 3


@pytest.mark.parametrize("name, key", [("tokenizer_config.json", "model_max_length"), ("generation_config.json", "x")])
def test_other_bytes_beside_a_tokenizer_are_looked_at_anew(project: Project, name: str, key: str) -> None:
    checked(project, "own", "chatml")
    path = project.root / "model" / name
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(content | {key: 77}))
    checked(project, "own", "chatml")
    assert len(remembered(project)) == 2


def test_a_damaged_memory_is_found_again_and_mended(project: Project) -> None:
    first = checked(project, "own", "chatml")
    (path,) = remembered(project)
    path.write_bytes(path.read_bytes()[:-9])
    assert checked(project, "own", "chatml") == first
    assert json.loads(path.read_text())["fingerprint"] == first.fingerprint


def test_a_template_that_does_not_fit_is_refused_every_time(project: Project) -> None:
    folder = project.catalogs / "templates"
    folder.mkdir()
    (folder / "strange.jinja").write_text("<|no_such_token|>{{ messages[0].content }}")
    for _ in range(2):
        with pytest.raises(UserError, match="no token"):
            checked(project, "own", "strange")
    assert not remembered(project)


def test_a_mixture_built_again_loads_no_transformers(project: Project, kedge_process) -> None:
    row = {"messages": [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]}
    (project.root / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (project.catalogs / "mixtures").mkdir()
    header = "/* ---\nstage: sft\ntokenizer: own\ntemplate: chatml\n--- */\nFROM kept\n"
    (project.catalogs / "mixtures" / "asked.sql").write_text(header)
    for arguments in (("add", "rows.jsonl"), ("mix", "build", "asked")):
        done = kedge_process(*arguments, cwd=project.root)
        assert done.returncode == 0, done.stderr
    done = subprocess.run([sys.executable, "-c", AGAIN], cwd=project.root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
