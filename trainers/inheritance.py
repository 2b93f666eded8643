"""A stage keeps its parent's template and tokenizer, or says that it extends them and proves it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from curation.auditing.gate import Subject
from curation.auditing.template_inheritance import compare
from curation.catalog import Catalog
from curation.errors import GateFailed
from curation.fingerprint import hash_bytes
from curation.rendering import Template, load_tokenizer
from curation.runs import Run

CHECK = "template_inherited"


def require_inherited(catalog: Catalog, run: Run, subject: Subject) -> None:
    """Raises GateFailed where the run's template or tokenizer is not that of the checkpoint that it starts from, unless
    it extends them (`template_change: extends`) or a waiver of `template_inherited` accepts it. A checkpoint whose
    template is unknown (a base, a foreign one) binds nobody, and plain text is trained without any."""
    start = run.start()
    text = subject.anatomy.template_text
    if text is None:
        return
    mine = hash_bytes(text.encode())
    if start.template is None or (start.template, start.tokenizer) == (mine, subject.anatomy.tokenizer_fingerprint):
        return
    if any(waiver.check == CHECK for waiver in run.file.waivers):
        return
    what = "template" if start.template != mine else "tokenizer"
    if run.file.template_change != "extends":
        raise GateFailed(
            f"the {what} is not that of {start.id}, on which this stage builds",
            "use the parent's, or say 'template_change: extends', or waive it with a reason",
            where=run.where,
            key=CHECK,
        )
    folder = start.folder(catalog)
    parent = parent_template(folder)
    if parent is None:
        raise GateFailed(f"{folder.name} of {start.id} has no template to compare with", "name the parent's template",
                         where=run.where, key=CHECK)  # fmt: skip
    project = catalog.project
    child = (Template("child", text, hash_bytes(text.encode())), load_tokenizer(project, subject.anatomy.tokenizer))
    found = compare((parent, load_tokenizer(project, str(folder.resolve()))), child)
    if found.verdict == "breaks":
        raise GateFailed([replace(problem, where=run.where, key=CHECK) for problem in found.problems])


def parent_template(folder: Path) -> Template | None:
    """The template saved beside a checkpoint's weights; None where there is none."""
    path = folder / "chat_template.jinja"
    if not path.is_file():
        return None
    text = path.read_text()
    return Template("parent", text, hash_bytes(text.encode()))
