"""Shapes of vote files: which columns say what, and what one record of them says.

`votes` has a line per annotator and item, `wide` a line per item with several annotators' answers, `battles` a line
per comparison of two named models, as arenas publish them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import orjson
from pydantic import Field, field_validator, model_validator

from curation.annotation.records import BOTH_BAD, TIE
from curation.config import Strict
from curation.errors import Problem, UserError, did_you_mean

Shape = Literal["votes", "wide", "battles"]
Said = Literal["a", "b", "tie", "both_bad", "none"]
A, B, NONE = "a", "b", "none"

# role -> the names of columns that have it, compared in lower case with _ for spaces and hyphens. One of the first
# group is taken before any of the second; two of one group are ambiguous.
ROLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "item": (("item", "item_id"), ("question_id", "task_id", "task", "example_id", "pair_id", "comparison_id",
                                   "prompt_id", "id")),
    "annotator": (("annotator", "annotator_id"), ("worker", "worker_id", "user", "user_id", "rater", "rater_id",
                                                  "labeler", "labeler_id", "labeller", "judge", "judge_id",
                                                  "judge_hash", "coder", "evaluator")),
    "verdict": (("verdict",), ("label", "choice", "vote", "winner", "preference", "preferred", "decision")),
    "rating": (("rating",), ("score", "stars")),
    "rating_a": (("rating_a",), ("score_a", "rating_1", "score_1")),
    "rating_b": (("rating_b",), ("score_b", "rating_2", "score_2")),
    "prompt": (("prompt",), ("question", "instruction", "input", "query", "context")),
    "response_a": (("response_a", "conversation_a"), ("answer_a", "output_a", "completion_a", "candidate_a",
                                                      "response_1", "response1", "answer_1", "output_1")),
    "response_b": (("response_b", "conversation_b"), ("answer_b", "output_b", "completion_b", "candidate_b",
                                                      "response_2", "response2", "answer_2", "output_2")),
    "model_a": (("model_a",), ("model_1", "model1")),
    "model_b": (("model_b",), ("model_2", "model2")),
    "winner_a": (("winner_model_a",), ()),
    "winner_b": (("winner_model_b",), ()),
    "winner_tie": (("winner_tie",), ()),
    "seconds": (("seconds",), ("duration_seconds", "duration", "time_spent", "lead_time", "elapsed")),
    "time": (("time", "answered_at"), ("tstamp", "timestamp", "submitted_at", "created_at", "updated_at", "date")),
    "rationale": (("rationale",), ("comment", "reason", "explanation", "justification")),
    "topic": (("topic",), ("category", "domain")),
    "turn": (("turn",), ()),
    "votes": (("votes", "annotations"), ("labels", "preferences", "individual_preference")),
}  # fmt: skip
NUMBERED = re.compile(r"(annotator|rater|worker|labell?er|coder|judge|user|vote|label|choice|verdict|expert)_?\d+")
WORDS: dict[str, str] = {
    **dict.fromkeys(("a", "model_a", "response_a", "answer_a", "assistant_a", "option_a", "candidate_a", "a_is_better",
                     "a_better", "left", "first", "a>b", "a>>b"), A),
    **dict.fromkeys(("b", "model_b", "response_b", "answer_b", "assistant_b", "option_b", "candidate_b", "b_is_better",
                     "b_better", "right", "second", "b>a", "b>>a"), B),
    **dict.fromkeys(("tie", "tied", "draw", "equal", "same", "a=b", "no_preference"), TIE),
    **dict.fromkeys(("both_bad", "bothbad", "tie_bothbad", "tie_both_bad", "both_are_bad"), BOTH_BAD),
    **dict.fromkeys(("none", "skip", "skipped", "discard", "discarded"), NONE),
}  # fmt: skip


class VoteFile(Strict):
    """`FILE.yaml` beside a file of votes, where its columns do not speak for themselves. `fields` gives a role the name
    of its column (`{item: case, annotator: who}`), `annotators` names the columns that hold one annotator's answers
    each, `verdicts` says what a label means (`{1: a, 2: b, 3: tie}`; `none`: not answered). `kind: judge` for votes of
    models. `reject_share` is the share (0..1) of lines that may fail."""

    shape: Shape | None = None
    fields: dict[str, str] = {}
    annotators: list[str] = []
    verdicts: dict[str, Said] = {}
    kind: Literal["person", "judge"] = "person"
    reject_share: float = Field(default=0.0, ge=0, le=1)

    @field_validator("verdicts", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        return {folded(name): said for name, said in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _known(self) -> VoteFile:
        for role in self.fields:
            if role not in ROLES:
                raise ValueError(f"fields: there is no role '{role}'; {did_you_mean(role, ROLES)}")
        return self


class Layout(NamedTuple):
    """A file's shape, the column of each role that it has, and (wide) the columns of annotators."""

    shape: Shape
    columns: Mapping[str, str]
    annotators: tuple[str, ...] = ()


def folded(name: Any) -> str:
    """A label or column name as it is compared; a number as it is written shortest."""
    text = re.sub(r"\s*([<>=]+)\s*", r"\1", str(name).strip().lower())
    if re.fullmatch(r"[+-]?\d+(\.\d+)?", text):
        return f"{float(text):g}"
    return re.sub(r"[^\w<>=.]+", "_", text).strip("_") or text


def layout_of(records: Sequence[Mapping[str, Any]], file: VoteFile, where: str) -> Layout:
    """The layout that the columns of `records` have. Raises UserError with everything that is ambiguous or missing."""
    keys = list(dict.fromkeys(key for record in records for key in record))
    columns, problems = _columns(keys, file, where)
    taken = set(columns.values())
    wide = [key for key in keys if key not in taken and NUMBERED.fullmatch(folded(key))]
    wide = list(file.annotators) or wide
    problems += [Problem(f"there is no column '{name}'", did_you_mean(name, keys), where, "annotators")
                 for name in file.annotators if name not in keys]  # fmt: skip
    if problems:
        raise UserError(problems)
    has = columns.keys()
    answer = bool(has & {"verdict", "rating", "rating_a"})
    battle = {"model_a", "model_b"} <= has and bool(has & {"verdict", "winner_a"})
    could: dict[Shape, bool] = {"wide": bool(wide) or "votes" in has, "battles": battle,
                                "votes": answer and "annotator" in has and not battle}  # fmt: skip
    fits = [name for name, fitting in could.items() if fitting]
    shape = file.shape or (fits[0] if len(fits) == 1 else None)
    if shape is None:
        raise UserError(_unclear(keys, fits), _step(where), where=where)
    if shape not in fits and not (shape == "votes" and answer and "annotator" in has):
        raise UserError(f"its columns are no {shape} ({', '.join(keys)[:300]})", _step(where), where=where, key="shape")
    return Layout(shape, columns, tuple(wide) if shape == "wide" else ())


def _columns(keys: Sequence[str], file: VoteFile, where: str) -> tuple[dict[str, str], list[Problem]]:
    """(role -> column, what is wrong)."""
    found, problems = {}, []
    given = set(file.fields.values()) | set(file.annotators)
    for role, groups in ROLES.items():
        if role in file.fields:
            found[role] = file.fields[role]
            if found[role] not in keys:
                step = did_you_mean(found[role], keys)
                problems.append(Problem(f"there is no column '{found[role]}'", step, where, f"fields.{role}"))
            continue
        fitting = [[key for key in keys if folded(key) in group and key not in given] for group in groups]
        names = next((group for group in fitting if group), [])
        if len(names) > 1:
            listed = " and ".join(f"'{name}'" for name in names)
            problems.append(Problem(f"{listed} could each be the {role}", f"write {beside(where)} with\nfields:\n  "
                                    f"{role}: {names[0]}", where, role))  # fmt: skip
        elif names:
            found[role] = names[0]
    return found, problems


def _unclear(keys: Sequence[str], fits: Sequence[str]) -> str:
    seen = ", ".join(keys)[:300]
    if fits:
        return f"its columns ({seen}) could be {' or '.join(fits)}"
    return (
        f"its columns ({seen}) are no votes that are known: looked for (votes) an annotator with a verdict, label, "
        "choice or rating; (wide) annotator_1, annotator_2, ... or votes; (battles) model_a, model_b and winner"
    )


def _step(where: str) -> str:
    return f"write {beside(where)} with\nshape: votes | wide | battles\nfields: {{item: COLUMN, annotator: COLUMN, " \
           "verdict: COLUMN, ...}"  # fmt: skip


def beside(where: str) -> str:
    """The file that explains a file of votes."""
    return f"{where.split(':')[0]}.yaml"


def verdict_of(label: Any, verdicts: Mapping[str, str], models: tuple[str | None, str | None]) -> str | None:
    """What a label says: a, b, tie, both_bad or none; None where that is not known. A number is never guessed: 1 may be
    the first answer or the second."""
    if label is None or label == "":
        return NONE
    word = folded(label)
    if word in verdicts:
        return verdicts[word]
    if isinstance(label, str) and models[0] != models[1] and label in models:
        return (A, B)[models.index(label)]
    return WORDS.get(word) if isinstance(label, str) else None


def one_hot(record: Mapping[str, Any], columns: Mapping[str, str]) -> str | None:
    """The verdict of the columns winner_model_a, winner_model_b and winner_tie, of which one is 1."""
    flags = [str(record.get(columns.get(role, ""), 0)).lower() in ("1", "1.0", "true")
             for role in ("winner_a", "winner_b", "winner_tie")]  # fmt: skip
    return (A, B, TIE)[flags.index(True)] if sum(flags) == 1 else None


def cells(record: Mapping[str, Any], layout: Layout) -> Iterable[tuple[str | None, Any]]:
    """(annotator, cell) of a record of the wide shape: of its columns of annotators, and of `votes`, which holds a list
    or a mapping (as JSON text in a table). A cell is a label, or a mapping with `verdict` (and `annotator`, `seconds`,
    `time`, `rationale`)."""
    for name in layout.annotators:
        if record.get(name) not in (None, ""):
            yield name, record[name]
    held = record.get(layout.columns.get("votes", ""))
    if isinstance(held, str):
        try:
            held = orjson.loads(held)
        except orjson.JSONDecodeError:
            held = [held]
    if isinstance(held, Mapping):
        yield from held.items()
    elif isinstance(held, list):
        for place, cell in enumerate(held, 1):
            named = next((cell[key] for key in ("annotator", "annotator_id", "worker_id", "user_id", "user")
                          if cell.get(key) is not None), None) if isinstance(cell, Mapping) else None  # fmt: skip
            yield str(named) if named is not None else f"voter {place}", cell
