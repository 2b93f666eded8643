"""A file of votes -> what every line says, and the lines that say nothing that can be read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from curation import registry
from curation.annotation.vote_shapes import A, B, Layout, VoteFile, beside, cells, layout_of, one_hot, verdict_of
from curation.annotation.vote_texts import Turns, texts_of
from curation.config import load_yaml, shown
from curation.conversations import Rejected, text_of
from curation.errors import UserError
from curation.parsing import RECORD_CHARS
from curation.recognising import reader_of
from curation.sources import Record, Source

RATED = {"rating": "item", "answer_rating": "candidate"}  # questions that ratings in a file answer, and of what
FAR = 1e11  # seconds since 1970 beyond this are milliseconds


class Shown(NamedTuple):
    """What a line says was shown. `item` is the file's name of it; texts are empty and models None where the line does
    not give them."""

    item: str | None
    prompt: Turns
    answers: tuple[Turns, Turns]
    models: tuple[str | None, str | None]
    topic: str | None
    turn: int | None


class Given(NamedTuple):
    """One annotator's answer, as a line gives it. `annotator` is None where a line names nobody. `verdict` is `a`, `b`,
    `tie`, `both_bad` or `none` (not answered), None where the line has none but ratings; `label` is what stood there.
    `values` is what came, without who said it."""

    line: int
    shown: Shown
    annotator: str | None
    verdict: str | None
    label: Any
    ratings: list[tuple[str, str | None, int]]
    rationale: str | None
    seconds: float | None
    answered_at: str | None
    values: dict[str, Any]


class Reject(NamedTuple):
    """A line that is no vote, why, and the beginning of what stood there, without who said it."""

    line: int
    reason: str
    record: str


@dataclass
class Read:
    """What a file holds: `given` in its order."""

    file: VoteFile
    layout: Layout
    given: list[Given] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    num_lines: int = 0


def read_votes_file(path: Path, keys: frozenset[str] = frozenset()) -> Read:
    """Read a file of any format that `kedge add` reads. `keys` are candidates that labels may name, where there are
    items already; a single letter is a slot then. Raises UserError where it is not there, empty, or of a shape
    that is not known or ambiguous, or where none of its labels can be read."""
    if not path.is_file():
        raise UserError("is not there", "check the path; for the judge: kedge annotate add JOB --judge",
                        where=shown(path))  # fmt: skip
    explained = path.with_name(f"{path.name}.yaml")
    file = load_yaml(explained, VoteFile) if explained.is_file() else VoteFile()
    reader = registry.make("sources", reader_of(path))
    assert isinstance(reader, Source)
    records = list(reader.read(path))
    values = [record.value for record in records if record.value is not None]
    if not values:
        problem = f"nothing in it can be read: {records[0].problem}" if records else "holds no votes"
        raise UserError(problem, "give a file with votes", where=shown(path))
    layout = layout_of(values, file, shown(path))
    read = Read(file, layout, num_lines=len(records))
    for record in records:
        try:
            read.given += _given(record, layout, file, keys)
        except Rejected as error:
            read.rejects.append(Reject(record.line, str(error), _kept(record, layout)))
    _check_labels(values, layout, shown(path), read)
    return read


def _check_labels(values: Sequence[Mapping[str, Any]], layout: Layout, where: str, read: Read) -> None:
    """Nothing was read and labels are why: the whole file needs to be explained, not its lines mended."""
    if read.given or not any(reject.reason.startswith("the label ") for reject in read.rejects):
        return
    column = layout.columns.get("verdict", "")
    labels = [value[column] for value in values if value.get(column) is not None]
    labels += [_label(cell) for value in values for _, cell in cells(value, layout)]
    seen = sorted({str(label) for label in labels if label is not None})
    pairs = ", ".join(f"{label!r}: a | b | tie | both_bad | none" for label in seen[:6])
    raise UserError(f"what its labels mean is not known ({', '.join(seen[:12])})", f"write {beside(where)} with\n"
                    f"verdicts: {{{pairs}}}", where=where, key="verdicts")  # fmt: skip


def _kept(record: Record, layout: Layout) -> str:
    """The beginning of a record without its annotators; nothing of a line that cannot be taken apart."""
    return "" if record.value is None else _json(_without_annotators(record.value, layout))[:RECORD_CHARS]


def _without_annotators(value: Mapping[str, Any], layout: Layout) -> dict[str, Any]:
    hidden = {layout.columns.get("annotator"), layout.columns.get("votes"), *layout.annotators}
    return {key: item for key, item in value.items() if key not in hidden}


def _json(value: Any) -> str:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS, default=str).decode()
    except (TypeError, ValueError) as error:
        raise Rejected(f"holds what JSON cannot: {error}") from error


def _given(record: Record, layout: Layout, file: VoteFile, keys: frozenset[str]) -> Iterator[Given]:
    """The votes of one record; all of them or, by Rejected, none."""
    if record.value is None:
        raise Rejected(record.problem)
    value, columns = record.value, layout.columns
    _json(value)
    what = _shown(value, columns)
    if layout.shape == "wide":
        found = [_of_cell(record.line, what, name, cell, file, keys) for name, cell in cells(value, layout)]
        return iter(found)
    who = value.get(columns.get("annotator", ""))
    if who in (None, "") and layout.shape == "votes":
        raise Rejected("names no annotator")
    label = value.get(columns.get("verdict", ""))
    said = one_hot(value, columns) if label is None and "winner_a" in columns else None
    if label is None and said is None and "winner_a" in columns:
        raise Rejected("its winner columns do not name one winner")
    ratings = _ratings(value, columns)
    if said is None and (label is not None or not ratings):
        said = _verdict(label, file, what, keys)
    rest = {"rationale": value.get(columns.get("rationale", "")), "seconds": value.get(columns.get("seconds", "")),
            "time": value.get(columns.get("time", ""))}  # fmt: skip
    return iter([Given(record.line, what, None if who in (None, "") else str(who), said, label, ratings,
                       *_rest(rest), _answer_alone(value, layout))])  # fmt: skip


def _of_cell(line: int, what: Shown, name: str | None, cell: Any, file: VoteFile, keys: frozenset[str]) -> Given:
    inner = cell if isinstance(cell, Mapping) else {"verdict": cell}
    label = _label(inner)
    why = {"rationale": next((inner[key] for key in ("rationale", "comment", "reasoning") if inner.get(key)), None),
           "seconds": inner.get("seconds"), "time": inner.get("time", inner.get("answered_at"))}  # fmt: skip
    kept = {key: item for key, item in inner.items() if key not in ("annotator", "annotator_id", "worker_id",
                                                                    "user_id", "user")}  # fmt: skip
    return Given(line, what, name, _verdict(label, file, what, keys), label, [], *_rest(why), kept)


def _label(cell: Any) -> Any:
    if not isinstance(cell, Mapping):
        return cell
    names = ("verdict", "label", "choice", "winner", "vote", "score")
    return next((cell[name] for name in names if cell.get(name) is not None), None)


def _verdict(label: Any, file: VoteFile, what: Shown, keys: frozenset[str]) -> str:
    if keys and isinstance(label, str) and (label in keys or re.fullmatch(r"[A-Za-z]", label)):
        return label if label in keys else label.lower()
    said = verdict_of(label, file.verdicts, what.models)
    if said is None:
        raise Rejected(f"the label {label!r:.60} is none of a, b, tie, both_bad; say what it means under 'verdicts'")
    return said


def _answer_alone(value: Mapping[str, Any], layout: Layout) -> dict[str, Any]:
    """A record without its annotator and without the texts, which the item holds."""
    texts = {layout.columns.get(role) for role in ("prompt", "response_a", "response_b")}
    return {key: item for key, item in _without_annotators(value, layout).items() if key not in texts}


def _rest(value: Mapping[str, Any]) -> tuple[str | None, float | None, str | None]:
    """(rationale, seconds, time)."""
    why = value["rationale"]
    return (None if why in (None, "") else text_of(why, "rationale")), _seconds(value["seconds"]), _time(value["time"])


def _ratings(value: Mapping[str, Any], columns: Mapping[str, str]) -> list[tuple[str, str | None, int]]:
    """(question, a, b or None for the whole item, rating)."""
    found = []
    for role, question, side in (("rating", "rating", None), ("rating_a", "answer_rating", A),
                                 ("rating_b", "answer_rating", B)):  # fmt: skip
        given = value.get(columns.get(role, ""))
        if given not in (None, ""):
            number = _number(given, columns[role])
            if number != int(number) or not 0 <= number <= 10:
                raise Rejected(f"'{columns[role]}' is {given!r:.40}, which is no whole number of 0..10")
            found.append((question, side, int(number)))
    return found


def _number(value: Any, name: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise Rejected(f"'{name}' is {value!r:.40}, which is no number")
    return number


def _seconds(value: Any) -> float | None:
    if value in (None, ""):
        return None
    number = _number(value, "seconds")
    if number < 0:
        raise Rejected(f"'seconds' is {number:g}, less than none")
    return number


def _time(value: Any) -> str | None:
    """ISO 8601 in UTC, to the microsecond, of ISO 8601 or of seconds (milliseconds) since 1970. A time without a zone
    is taken as UTC."""
    if value in (None, ""):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    try:
        if math.isfinite(number) and not isinstance(value, bool):
            moment = datetime.fromtimestamp(number / 1000 if abs(number) > FAR else number, UTC)
        else:
            moment = datetime.fromisoformat(text_of(value, "time"))
    except (ValueError, OverflowError, OSError) as error:
        raise Rejected(f"'time' is {value!r:.40}, which is no ISO 8601 and no seconds since 1970") from error
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.isoformat(timespec="microseconds")


def _shown(value: Mapping[str, Any], columns: Mapping[str, str]) -> Shown:
    name = value.get(columns.get("item", ""))
    models = tuple(_name(value.get(columns.get(role, ""))) for role in ("model_a", "model_b"))
    topic, turn = value.get(columns.get("topic", "")), value.get(columns.get("turn", ""))
    turns = int(_number(turn, "turn")) if turn not in (None, "") else None
    cell = {role: value.get(columns.get(role, "")) for role in ("prompt", "response_a", "response_b")}
    prompt, sides = texts_of(cell["prompt"], (cell["response_a"], cell["response_b"]), turns)
    return Shown(None if name in (None, "") else str(name), prompt, sides, models,  # type: ignore[arg-type]
                 topic if isinstance(topic, str) and topic else None, turns)  # fmt: skip


def _name(value: Any) -> str | None:
    return None if value in (None, "") else str(value)
