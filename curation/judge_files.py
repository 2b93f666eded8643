"""Judges as files: `catalogs/judges/NAME.yaml` says what a judge is asked and how its reply is read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Literal

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import Field, field_validator, model_validator

from curation.config import SHIPPED, Project, Strict, load_yaml, project_around
from curation.errors import UserError
from curation.fingerprint import fingerprint
from curation.verifiers.reading import after_thought

VERDICTS: tuple[Literal["A", "B", "tie", "both_bad"], ...] = ("A", "B", "tie", "both_bad")
KEYS = {"score": "score", "compare": "verdict", "steps": "scores"}  # of the JSON object that ends a reply
Messages = list[dict[str, str]]


class JudgeFile(Strict):
    """`catalogs/judges/NAME.yaml`. `kind`: `score` (one answer gets a number of `scale`), `compare` (one of `verdicts`
    on two answers) or `steps` (a number of `scale` for each step of an answer). `system`, `user` and `repair` are
    Jinja templates over `rubric`, `mark`, `prompt` and, as the kind has them, `answer`, `first` and `second`, or
    `steps`, with `low` and `high` of the scale, or `verdicts`. They run in Jinja's sandbox.

    `mark` is a word that no answer can know: put what is judged between tags that hold it. `repair` is what is said
    once where a reply cannot be read."""

    kind: Literal["score", "compare", "steps"]
    rubric: str = Field(min_length=1)
    scale: tuple[float, float] = (0.0, 10.0)
    verdicts: tuple[Literal["A", "B", "tie", "both_bad"], ...] = VERDICTS
    system: str = ""
    user: str
    repair: str

    @field_validator("system", "user", "repair")
    @classmethod
    def _is_template(cls, value: str) -> str:
        try:
            _environment().from_string(value)
        except jinja2.TemplateSyntaxError as error:
            raise ValueError(f"is no Jinja template: line {error.lineno}: {error.message}; mend it") from error
        return value

    @model_validator(mode="after")
    def _asks(self) -> JudgeFile:
        low, high = self.scale
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError("scale: is no range; write [LOW, HIGH] with LOW < HIGH")
        if not {"A", "B"} <= set(self.verdicts):
            raise ValueError("verdicts: lack A or B; write at least [A, B]")
        names = {"score": ("answer",), "compare": ("first", "second"), "steps": ("steps",)}[self.kind]
        words = {name: f"a {name} to look for" for name in ("prompt", *names)}
        given: dict[str, Any] = words | ({"steps": [words["steps"]]} if self.kind == "steps" else {})
        try:
            asked = self.messages(**given)
            self.repair_message(**given)
        except jinja2.TemplateError as error:
            raise ValueError(f"its templates cannot be filled: {error}; mend them") from error
        shown = "\n".join(turn["content"] for turn in asked)
        for name, words_of in words.items():
            if words_of not in shown:
                raise ValueError(f"user: does not show '{name}'; write {{{{ {name} }}}} where it belongs")
        return self

    def messages(self, **given: Any) -> Messages:
        """What the judge is asked about `given` (prompt, and answer, first and second, or steps)."""
        values = self._values(given)
        texts = {role: _rendered(text, values) for role, text in (("system", self.system), ("user", self.user))}
        return [{"role": role, "content": text} for role, text in texts.items() if text]

    def repair_message(self, **given: Any) -> dict[str, str]:
        """What is said after a reply that cannot be read."""
        return {"role": "user", "content": _rendered(self.repair, self._values(given))}

    def _values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        low, high = (f"{bound:g}" for bound in self.scale)
        verdicts = ", ".join(f'"{verdict}"' for verdict in self.verdicts)
        return {"rubric": self.rubric.strip(), "mark": _mark(given), "low": low, "high": high,
                "verdicts": verdicts} | dict(given)  # fmt: skip

    def read(self, reply: str, num_steps: int = 1) -> float | str | list[float] | None:
        """What a reply says: a number of the scale, a verdict, or `num_steps` numbers; None where it does not say so.
        Strict: after a thought, the reply must end with one JSON object of the one key that belongs to the kind."""
        value = last_object(reply, KEYS[self.kind])
        if self.kind == "compare":
            return value if isinstance(value, str) and value in self.verdicts else None
        if self.kind == "score":
            return self._number(value)
        numbers = [self._number(item) for item in value] if isinstance(value, list) else []
        return numbers if len(numbers) == num_steps and None not in numbers else None  # type: ignore[return-value]

    def _number(self, value: Any) -> float | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value) if self.scale[0] <= value <= self.scale[1] else None

    def share(self, value: float) -> float:
        """A number of the scale as 0..1."""
        low, high = self.scale
        return (value - low) / (high - low)


def load_judge(reference: str, kind: str, project: Project | None = None) -> JudgeFile:
    """The judge file `reference` (a name, or a path ending in .yaml) of the project around the working directory, else
    of those shipped. Raises UserError, also where it is of another kind."""
    project = project or project_around() or Project(SHIPPED.parent)
    path = project.path("judges", reference, ".yaml")
    found = load_yaml(path, JudgeFile)
    if found.kind != kind:
        raise UserError(f"is of kind '{found.kind}', and kind '{kind}' is needed", "name another", where=path.name)
    return found


def last_object(reply: str, key: str) -> Any:
    """The value of the JSON object {key: value} that ends a reply; None where it ends otherwise. A thought before it
    and a code fence around it are no harm."""
    after = after_thought(reply)
    text = (after or "").rstrip().removesuffix("```").rstrip()
    if not text.endswith("}") or (start := text.rfind("{")) < 0:
        return None
    try:
        pairs = json.loads(text[start:], object_pairs_hook=list, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return pairs[0][1] if len(pairs) == 1 and pairs[0][0] == key else None


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _environment() -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _rendered(text: str, values: Mapping[str, Any]) -> str:
    return _environment().from_string(text).render(values).strip()


def _mark(given: Mapping[str, Any]) -> str:
    """A word made of all that is judged, so that none of it can hold the word, and the same question the same word."""
    texts = [text for value in given.values() for text in ([value] if isinstance(value, str) else value)]
    return fingerprint(sorted(texts))[:16]
