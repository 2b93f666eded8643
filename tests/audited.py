"""Rows -> Case -> checks by id, through the real path (tokenizer, template, anatomy, mirror), and the register of what
every check was seen to say."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curation import schema
from curation.auditing import template_checks
from curation.auditing.audit import mirror_for
from curation.auditing.case import Case, checks_of
from curation.auditing.checks import Check, Level
from curation.auditing.judged import by_source
from curation.auditing.mirrors import Mirror
from curation.measures.anatomy import anatomy_for
from curation.rendering import Template, load_tokenizer

Row = dict[str, Any]
Turn = dict[str, Any]
Checks = dict[str, Check]

TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


@dataclass(frozen=True)
class Said:
    """What a check must say: its level, its value (None: any), and a part of its message."""

    level: Level
    value: float | None = 0.0
    message: str = ""


@dataclass(frozen=True)
class Seen:
    """An expectation that a test holds a check to."""

    id: str
    said: Said


SEEN: list[Seen] = []


def ok(value: float | None = 0.0, message: str = "") -> Said:
    return Said("ok", value, message)


def warn(value: float | None, message: str = "") -> Said:
    return Said("warn", value, message)


def error(value: float | None, message: str = "") -> Said:
    return Said("error", value, message)


@dataclass(frozen=True)
class Expected:
    """What checks must say, by id."""

    said: dict[str, Said]

    def missed_by(self, checks: Checks) -> list[tuple[Check | None, Said]]:
        """The checks that say something else than they must, or say that something is wrong and not what to do."""
        return [(checks.get(id), said) for id, said in self.said.items() if not _holds(checks.get(id), said)]


def _holds(check: Check | None, said: Said) -> bool:
    if check is None or check.level != said.level or said.message not in check.message:
        return False
    return (said.value is None or check.value == pytest.approx(said.value)) and (
        check.level == "ok" or bool(check.next)
    )


def says(**said: Said) -> pytest.MarkDecorator:
    """Gives a test the argument `expected`: what checks must say, by id. It enters SEEN at import, so that one test can
    ask whether every check is tried."""
    SEEN.extend(Seen(id, item) for id, item in said.items())
    return pytest.mark.parametrize("expected", [Expected(said)], ids=["said"])


def user(text: str) -> Turn:
    return {"role": "user", "content": text}


def assistant(text: str) -> Turn:
    return {"role": "assistant", "content": text}


def talk(answer: str, question: str = "12 plus 3?") -> Row:
    """A conversation of one exchange."""
    return {"messages": [user(question), assistant(answer)]}


def pair(chosen: str, rejected: str, question: str = "12 plus 3?") -> Row:
    """A preference row."""
    return {"prompt": [user(question)], "chosen": [assistant(chosen)], "rejected": [assistant(rejected)]}


def prompt(question: str = "12 plus 3?", truth: str = "15", **more: Any) -> Row:
    """A row of reinforcement learning."""
    return {"prompt": [user(question)], "ground_truth": truth, "verifier": "numeric"} | more


def stage_of(row: Row) -> str:
    return (
        "preference" if "chosen" in row else "rlvr" if "prompt" in row else "sft" if "messages" in row else "midtrain"
    )


def mirror(trainer: str, **options: Any) -> Mirror:
    return mirror_for(trainer, options, checked=True)


def case(model: Path, rows: Sequence[Row], trained: Mirror, *, template: str | Path = "tokenizer",
         kwargs: dict[str, Any] | None = None, **more: Any) -> Case:  # fmt: skip
    """Rows of one stage (a key `source` names their source) as a case, rendered and measured as an audit does it;
    `more` are fields of Case."""
    stage = stage_of(rows[0])
    given = [{"row_id": f"{number:032x}", "source": "one", "epoch": 0} | row for number, row in enumerate(rows)]
    table = pa.Table.from_pylist(given, schema=schema.frozen(stage))
    filled = [name for name in ("text", "messages") if name in rows[0]]
    path = trained.rendering_path(stage, filled)
    measure = anatomy_for(None, str(model), str(template), path, trained.rendering_kwargs(kwargs or {}), stage)
    known = [name for name in measure.reads(stage) if name in table.column_names]
    return Case("DATA", stage, table, measure.measure(table.select(known), stage), trained, [], measure, **more)


def checks_by_id(made: Case) -> Checks:
    """What the audit says of the rows of a case, by check id."""
    judged = made.judged(made.mirror.fates(made.anatomy))
    found = checks_of(made, judged, by_source(judged))
    assert len({check.id for check in found}) == len(found)
    return {check.id: check for check in found}


def audited(model: Path, rows: Sequence[Row], trained: Mirror, **more: Any) -> Checks:
    """What an audit says of rows under a mirror, by check id."""
    return checks_by_id(case(model, rows, trained, **more))


def template_says(model: Path, text: str, folder: Path | None = None, **kwargs: Any) -> Checks:
    """What the checks of a template's text say under a model's tokenizer, by check id."""
    report = template_checks.check_template(Template("probe", text, "0"), load_tokenizer(None, str(model)), kwargs,
                                            folder)  # fmt: skip
    return {check.id: check for check in report.checks}


def at(made: Case, length: int | None) -> Case:
    """The same case at another context length."""
    return replace(made, mirror=made.mirror.at(length))


def column(made: Case, name: str) -> list[int]:
    """A column of a case's anatomy, one value per row."""
    found: list[int] = made.anatomy[name].to_pylist()
    return found


def with_template(model: Path, folder: Path, template: str) -> Path:
    """A copy of a model's folder that carries another chat template."""
    shutil.copytree(model, folder)
    (folder / "chat_template.jinja").write_text(template)
    return folder


def with_bos(model: Path, folder: Path, *, added: bool) -> Path:
    """A copy of a model's folder whose tokenizer has a beginning-of-sequence token `<|bos|>`, and, where it is `added`,
    puts it before every text."""
    import transformers
    from tokenizers import processors

    shutil.copytree(model, folder)
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(str(folder))
    tokenizer.add_special_tokens({"bos_token": "<|bos|>"})
    if added:
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<|bos|> $A", special_tokens=[("<|bos|>", tokenizer.bos_token_id)]
        )
    tokenizer.save_pretrained(str(folder))
    return folder


def trl_template(name: str) -> str:
    """A chat template that the installed TRL ships; skips where it does not."""
    trl = pytest.importorskip("trl")
    path = Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja"
    if not path.is_file():
        pytest.skip(f"the installed TRL ships no {name}.jinja")
    return path.read_text()
