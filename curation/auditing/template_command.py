"""`kedge template check`: of a template by name or path, or of a model folder's own."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from curation.auditing.template_checks import TemplateReport, check_template, pairs_of
from curation.config import project_around
from curation.console import out, print_json, table
from curation.errors import EXIT_FAILED, EXIT_OK, UserError
from curation.rendering import load_template, load_tokenizer


def run(name: str, tokenizer: str | None, kwargs: str | None, as_json: bool) -> int:
    """Check, print, and return the exit code: 1 where a check fails. Needs no project."""
    project = project_around()
    folder = Path(name) if Path(name).is_dir() else None
    if tokenizer is None and folder is None:
        raise UserError("a template is checked on a tokenizer", f"for example: kedge template check {name} --tokenizer "
                        "FOLDER")  # fmt: skip
    loaded = load_tokenizer(project, tokenizer or name)
    template = load_template(project, "tokenizer" if folder is not None else name, loaded)
    report = check_template(template, loaded, _arguments(kwargs), folder)
    if as_json:
        print_json(asdict(report) | {"template": name, "tokenizer": tokenizer or name, "passed": report.passed})
    else:
        print_template(name, report)
    return EXIT_OK if report.passed else EXIT_FAILED


def _arguments(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"is no JSON: {error}", "for example: --kwargs '{\"enable_thinking\": false}'",
                        key="--kwargs") from error  # fmt: skip
    if not isinstance(value, dict):
        raise UserError("is no JSON object", "for example: --kwargs '{\"enable_thinking\": false}'", key="--kwargs")
    return value


def print_template(name: str, report: TemplateReport) -> None:
    """The verdict, the matrix line, and the checks."""
    failed = [check for check in report.checks if check.level == "error"]
    verdict = f"FAILED: {failed[0].message}" if failed else "PASSED"
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    out.print(f"{name}: {verdict}{more}", style="red" if failed else "green", markup=False)
    table("what it does", ["property", "seen"], pairs_of(report))
    table("checks", ["check", "level", "what was seen"],
          [[f"{check.id} {check.name}", check.level, check.message] for check in report.checks])  # fmt: skip
    for check in report.checks:
        if check.next:
            out.print(f"{check.id}: {check.next}", markup=False)
