"""Items as records of Argilla, and the sending of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import orjson

from curation.annotation._argilla_questions import ORIGINAL, Asked, letter
from curation.annotation._argilla_rest import TRIES, Argilla, Refused, records
from curation.annotation.rendering import candidate, chat, plain, refusal
from curation.errors import UserError

BATCH_ITEMS = 250
BATCH_BYTES = 8 << 20
TERM_CHARS = 1_000
FAILURES = 5  # records that the server fails at, after which it is taken to be broken
OWN = {"topic": "terms", "source": "terms", "position": "integer"}  # metadata of every record
Json = dict[str, Any]


class Dataset(NamedTuple):
    """A published dataset: its questions, how many slots its records have, ids of the questions by name, and its
    metadata properties with their types."""

    id: str
    workspace: str
    asked: list[Asked]
    slots: int
    question_ids: dict[str, str]
    metadata: dict[str, str]


def field_name(slot: int) -> str:
    return f"answer-{letter(slot).lower()}"


def properties(items: Sequence[Json]) -> dict[str, str]:
    """Metadata properties by name: `topic`, which annotators see, and what they do not: source, position, and what the
    job's query gave beside (a margin, a judge's verdict), as numbers where all values are."""
    found = dict(OWN)
    for item in items:
        for name, value in _beside(item).items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            found[name] = "float" if number and found.get(name, "float") == "float" else "terms"
    return found


def _beside(item: Json) -> Json:
    """What the job's query gave beside an item, without nulls."""
    given = orjson.loads(item["meta"] or "{}")
    return {name if name not in OWN else f"query-{name}": value for name, value in given.items() if value is not None}


def _metadata(item: Json, kinds: dict[str, str]) -> Json:
    """An item's metadata as the dataset takes it; what it has no property for, or another type, is left out."""
    given = {"topic": item["topic"], "source": item["source"], "position": item["position"], **_beside(item)}
    found: Json = {}
    for name, value in given.items():
        kind = kinds.get(name)
        if value is None or kind is None:
            continue
        if kind == "terms":
            text = value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
            found[name] = text[:TERM_CHARS]
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = float(value) if kind == "float" else int(value)
    return found


def record(item: Json, dataset: Dataset) -> Json | str:
    """An item as a record of Argilla, or why it cannot be one. A suggestion is what the page selects beforehand: only
    the answer to be edited is given as one, never anybody's verdict."""
    candidates = item["candidates"] or []
    if len(candidates) > dataset.slots:
        return f"it has {len(candidates)} candidates, and the dataset in Argilla was made for {dataset.slots}"
    if reason := refusal(item):
        return reason
    fields: Json = {"prompt": chat(item["prompt"] or [], item["tools"]) or [{"role": "user", "content": "*(empty)*"}]}
    fields |= {field_name(slot): candidate(one["messages"] or []) for slot, one in enumerate(candidates)}
    made = {"external_id": item["item_id"], "fields": fields, "metadata": _metadata(item, dataset.metadata)}
    edits = [one.name for one in dataset.asked if one.question.kind == "edit"]
    text = plain(candidates[0]["messages"] or []) if edits and candidates else ""
    suggestions = [{"question_id": dataset.question_ids[name], "value": text, "agent": ORIGINAL} for name in edits]
    return made | ({"suggestions": suggestions} if text else {})


class Sent(NamedTuple):
    """What became of a round's items: ids sent now, ids that were there, reason by the id of those refused, and how
    many records of the dataset are no items of the round."""

    pushed: list[str]
    there: list[str]
    refused: dict[str, str]
    foreign: int


def send(server: Argilla, dataset: Dataset, items: Sequence[Json], advance: Callable[[int], None]) -> Sent:
    """Send what is not there yet, in batches that one bad record does not stop. Records are told apart by their
    external id, which Argilla keeps unique, so that a batch whose reply was lost is sent again and doubles nothing."""
    known = {one["external_id"] for one in records(server, dataset.id)}
    ids = [item["item_id"] for item in items]
    refused: dict[str, str] = {}
    ready: list[Json] = []
    for item in items:
        if item["item_id"] not in known:
            made = record(item, dataset)
            if isinstance(made, str):
                refused[item["item_id"]] = made
            else:
                ready.append(made)
    advance(len(ids) - len(ready))
    pushed: list[str] = []
    for batch in _batches(ready):
        reasons = _send(server, dataset, batch)
        refused |= reasons
        pushed += [one["external_id"] for one in batch if one["external_id"] not in reasons]
        advance(len(batch))
        if sum(reason.startswith("HTTP 5") for reason in refused.values()) >= FAILURES:
            raise UserError(f"Argilla fails at record after record: {next(iter(reasons.values()))}", "see the server's "
                            "log, then run the same command again, which goes on where it was")  # fmt: skip
    return Sent(pushed, [one for one in ids if one in known], refused, len(known - set(ids)))


def _batches(made: Sequence[Json]) -> Iterator[list[Json]]:
    batch: list[Json] = []
    size = 0
    for one in made:
        length = len(orjson.dumps(one))
        if batch and (len(batch) >= BATCH_ITEMS or size + length > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += length
    if batch:
        yield batch


def _send(server: Argilla, dataset: Dataset, batch: Sequence[Json], tries: int = TRIES) -> dict[str, str]:
    """Send a batch; reason by external id of the records that were refused. A batch that is refused is stored nowhere,
    and is halved until the bad records are alone."""
    try:
        server.ask("PUT", f"/datasets/{dataset.id}/records/bulk", {"items": list(batch)}, tries=tries)
    except Refused as error:
        if error.status not in (400, 413, 422, 500):
            raise
        if len(batch) == 1:
            return {batch[0]["external_id"]: error.detail if error.status < 500 else str(error)}
        half = len(batch) // 2
        return _send(server, dataset, batch[:half], 2) | _send(server, dataset, batch[half:], 2)
    return {}
