"""A tokenizer and its template that passed their checks, remembered, so that a command with nothing to render does not
load transformers to find that out again (some 5 seconds)."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel, ValidationError

from curation.config import Project, read_text
from curation.fingerprint import fingerprint, hash_bytes, hash_folder
from curation.outputs import write_atomically
from curation.rendering.templates import OWN, load_template, template_path
from curation.rendering.tokenizers import load_tokenizer, resolve

LAYOUT = 1  # of what is remembered, and the version of the checks
# What AutoTokenizer and the stop ids depend on: every small file of a model's folder, by its kind.
PATTERNS = ("*.json", "*.jinja", "*.txt", "*.model", "additional_chat_templates/*.jinja")
LIBRARIES = ("transformers", "tokenizers")


class _Found(BaseModel):
    fingerprint: str
    stop_ids: tuple[int, ...]
    template_text: str | None


@dataclass(frozen=True)
class Checked:
    """What identifies a rendering: where the tokenizer is found again, its fingerprint and stop ids, and the text of
    the template (None where rows are rendered without one)."""

    reference: str
    fingerprint: str
    stop_ids: tuple[int, ...]
    template_text: str | None


def checked(project: Project | None, tokenizer: str, template: str | None) -> Checked:
    """The tokenizer and the template by reference. What was found for a folder of the same bytes under the same
    libraries is taken from `lake/.cache/renderings/`. Raises UserError where either is not there or does not fit."""
    target, _ = resolve(project, tokenizer)
    path = None
    if project is not None and Path(target).is_dir():
        text = None if template in (None, OWN) else read_text(template_path(project, template))
        libraries = [version(name) for name in LIBRARIES]
        key = fingerprint([LAYOUT, libraries, hash_folder(Path(target), PATTERNS), template == OWN,
                           text and hash_bytes(text.encode())])  # fmt: skip
        path = project.lake / ".cache" / "renderings" / f"{key}.json"
        found = _read(path)
        if found is not None:
            return Checked(target, found.fingerprint, found.stop_ids, found.template_text)
    loaded = load_tokenizer(project, tokenizer)
    text = None if template is None else load_template(project, template, loaded).text
    if path is not None:
        found = _Found(fingerprint=loaded.fingerprint, stop_ids=loaded.stop_ids, template_text=text)
        write_atomically(path, found.model_dump_json().encode())
    return Checked(loaded.reference, loaded.fingerprint, loaded.stop_ids, text)


def _read(path: Path) -> _Found | None:
    try:
        return _Found.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
