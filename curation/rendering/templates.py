"""Chat templates by name, path, or as the tokenizer carries them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from curation.config import SHIPPED, Project, read_text
from curation.errors import UserError, did_you_mean
from curation.fingerprint import hash_bytes
from curation.rendering.tokenizers import Tokenizer

OWN = "tokenizer"
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
SPECIAL = re.compile(r"<\|[A-Za-z0-9_]+\|>")


@dataclass(frozen=True)
class Template:
    """A chat template. `fingerprint` is the hash of its bytes."""

    name: str
    text: str
    fingerprint: str

    @property
    def has_generation(self) -> bool:
        """Whether it marks what the assistant says with generation tags."""
        return GENERATION.search(self.text) is not None


def load_template(project: Project | None, reference: str, tokenizer: Tokenizer) -> Template:
    """The template `reference`: `tokenizer` for the tokenizer's own, a name in catalogs/templates/, or a `.jinja` file.
    Raises UserError where it is not there, is no Jinja, or uses special tokens that the tokenizer splits."""
    if reference == OWN:
        text = tokenizer.hf.chat_template
        if not isinstance(text, str):
            raise UserError("the tokenizer carries no chat template", "name one: template: chatml", key="template")
    else:
        text = read_text(template_path(project, reference))
    template = Template(reference, text, hash_bytes(text.encode()))
    _check(template, tokenizer)
    return template


def template_path(project: Project | None, reference: str) -> Path:
    if project is not None:
        return project.path("templates", reference, ".jinja")
    if Path(reference).is_file():
        return Path(reference)
    known = {path.stem: path for path in (SHIPPED / "templates").glob("*.jinja")}
    if reference not in known:
        raise UserError(f"there is no template '{reference}'", did_you_mean(reference, known), key="template")
    return known[reference]


def _check(template: Template, tokenizer: Tokenizer) -> None:
    import jinja2
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        _compile_jinja_template(template.text)
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"is no Jinja template: {error.message}", "mend the line",
                        where=f"{template.name}:{error.lineno}", key="template") from error  # fmt: skip
    vocabulary = tokenizer.hf.get_vocab()
    split = sorted(token for token in set(SPECIAL.findall(template.text)) if token not in vocabulary)
    if split:
        what = f"the tokenizer has no token {', '.join(split)}, which the template '{template.name}' writes"
        raise UserError(what, "add the tokens to the tokenizer, or choose a template that fits it", key="template")
