"""What should not stand in a row's texts: forms left unfilled, refusals, self-reference, marks of a chat template."""

from __future__ import annotations

import functools
import re
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from curation import phrases, schema
from curation.config import read_yaml
from curation.measures import PartMeasure
from curation.texts import FIELDS, PLAIN, SIDES, Segments, segments

ANSWER, PROMPT, REJECTED = "answer", "prompt", "rejected"
LISTS = {ANSWER: ("placeholders", "blanks", "special_tokens", "role_markers", "identities"),
         PROMPT: ("placeholders", "blanks", "special_tokens"),
         REJECTED: ("placeholders", "blanks", "special_tokens", "role_markers", "identities")}  # fmt: skip
COUNTS = {ANSWER: ("refusals", "refusal_mentions", "self_references"), REJECTED: ("self_references",)}
Found = dict[int, list[str]]  # index of a text -> what was found in it, in order, each once


class Phrases(PartMeasure):
    """Phrases of catalogs/phrases by where they stand. `answer_` is what a model learns to say: assistant turns of
    `messages`, `chosen`, a plain text, a reference solution; `prompt_` every other turn; `rejected_` the assistant
    turns of the rejected side. Lists hold each text once, in order. Null where a row has no such text.

    placeholders: forms that were certainly to be filled in ({{name}}); blanks: those that may be wanted ([Your Name]);
    both outside of code and mathematics. placeholders_discussed: whether someone asks about templates, code or tokens,
    or a text holds markup, so that placeholders and special tokens may be wanted (null where the row has none).
    special_tokens: control tokens of chat templates, outside of code. role_markers: names of speakers at the beginning
    of a line. refusals and refusal_mentions: turns that refuse in their first 200 characters (behind a thought), or say
    such words further on. self_references: turns that speak of themselves as a machine. identities: models and
    makers that a turn claims to be or to be made by.
    """

    version: ClassVar[int] = 1
    depends_on: ClassVar[tuple[str, ...]] = ("curation/phrases.py", "curation/texts.py")
    columns: ClassVar[pa.Schema] = pa.schema(
        [(f"{side}_{name}", pa.list_(pa.string())) for side, names in LISTS.items() for name in names]
        + [(f"{side}_{name}", pa.int32()) for side, names in COUNTS.items() for name in names]
        + [("placeholders_discussed", pa.bool_())]
    )

    def identity(self) -> dict[str, Any]:
        """Covers the phrases too: another phrase, another signal."""
        return super().identity() | {"phrases": phrases.fingerprint_of_phrases()}

    def reads(self, stage: str) -> tuple[str, ...]:
        return tuple(name for name in SIDES[stage] if name != "ground_truth")

    def measure(self, rows: pa.Table, stage: str) -> pa.Table:
        found = segments(rows, self.reads(stage))
        texts = pl.Series(found.strings(), dtype=pl.String)
        side_S = _sides(found, stage)
        row_S = found.row_S
        said = (found.field_S == FIELDS.index("content")) & (side_S != PROMPT)
        lists = {"placeholders": _forms(texts, "certain"), "blanks": _forms(texts, "blanks"),
                 "special_tokens": _special_tokens(texts), "role_markers": _role_markers(texts),
                 "identities": _identities(texts, said)}  # fmt: skip
        counts = _counted(texts, said)
        arrays: dict[str, pa.Array] = {}
        for side in (ANSWER, PROMPT, REJECTED):
            there = np.bincount(row_S[side_S == side], minlength=rows.num_rows) > 0
            for name in LISTS[side]:
                arrays[f"{side}_{name}"] = _listed(lists[name], side_S == side, row_S, there)
            for name in COUNTS.get(side, ()):
                count_N = np.bincount(row_S[counts[name] & (side_S == side)], minlength=rows.num_rows)
                arrays[f"{side}_{name}"] = pa.array(count_N, pa.int32(), mask=~there)
        marked = np.zeros(rows.num_rows, np.bool_)
        marked[row_S[[place for name in ("placeholders", "special_tokens") for place in lists[name]]]] = True
        places = np.flatnonzero(marked[row_S])
        near = texts.gather(places)
        asks = ~np.isin(found.role_S[places], schema.ROLES.index("assistant"))
        talk = asks & near.str.contains(_placeholders()["discussing"]).to_numpy()
        talk |= near.str.contains(_placeholders()["markup"]).to_numpy()
        discussed = np.bincount(row_S[places[talk]], minlength=rows.num_rows) > 0
        arrays["placeholders_discussed"] = pa.array(discussed, pa.bool_(), mask=~marked)
        return pa.table([arrays[name] for name in self.columns.names], schema=self.columns)


def _sides(found: Segments, stage: str) -> npt.NDArray[Any]:
    """The side of each of S texts."""
    says = np.isin(found.role_S, (PLAIN, schema.ROLES.index("assistant")))
    side = np.where(says, ANSWER, PROMPT).astype(object)
    for index, name in enumerate(found.columns):
        if name == "prompt":
            side[found.column_S == index] = PROMPT
        elif name == "rejected":
            side[(found.column_S == index) & says] = REJECTED
    return side


def _listed(found: Found, there_S: npt.NDArray[np.bool_], row_S: npt.NDArray[np.int64],
            there: npt.NDArray[np.bool_]) -> pa.ListArray:  # fmt: skip
    """One list per row of what was found in its texts, each once; null where a row is not `there`."""
    of: dict[int, dict[str, None]] = {}
    for place in sorted(found):
        if there_S[place]:
            of.setdefault(int(row_S[place]), {}).update(dict.fromkeys(found[place]))
    lengths = np.zeros(len(there) + 1, np.int32)
    for row, values in of.items():
        lengths[row + 1] = len(values)
    flat = pa.array([value for row in sorted(of) for value in of[row]], pa.string())
    return pa.ListArray.from_arrays(pa.array(np.cumsum(lengths), pa.int32()), flat, mask=pa.array(~there))


@functools.cache
def _placeholders() -> dict[str, Any]:
    value, _ = read_yaml((phrases.FOLDER / "placeholders.yaml").read_text(), "placeholders.yaml")
    return dict(value)


@functools.cache
def _tokens() -> dict[str, list[str]]:
    value, _ = read_yaml((phrases.FOLDER / "special_tokens.yaml").read_text(), "special_tokens.yaml")
    return dict(value)


@functools.cache
def _speakers() -> str:
    value, _ = read_yaml((phrases.FOLDER / "role_markers.yaml").read_text(), "role_markers.yaml")
    return r"(?m)^[ \t]*(" + "|".join(map(re.escape, value["line_starts"])) + ")"


def _prose(texts: pl.Series) -> pl.Series:
    """Texts without code and mathematics; what was taken out leaves a blank."""
    return texts.str.replace_all(_placeholders()["apart"], " ")


def _forms(texts: pl.Series, kind: str) -> Found:
    """Placeholders in texts, without the spaces inside their braces."""
    found: Found = {}
    for expression in _placeholders()[kind]:
        places = texts.str.contains(expression).arg_true()
        named = _prose(texts.gather(places)).str.extract_all(expression)
        for place, values in zip(places.to_list(), named.to_list(), strict=True):
            forms = [re.sub(r"\{\s+|\s+\}", lambda part: part.group().strip(), match["form"])
                     for value in values if (match := re.search(expression, value))]  # fmt: skip
            if forms:
                found[place] = list(dict.fromkeys(found.get(place, []) + forms))
    return found


def _special_tokens(texts: pl.Series) -> Found:
    tokens = _tokens()
    everywhere = "|".join(map(re.escape, tokens["tokens"]))
    starts, ends = ("|".join(map(re.escape, tokens[name])) for name in ("at_start", "at_end"))
    expression = rf"{everywhere}|\A\s*(?:{starts})|(?:{ends})\s*\z"
    places = texts.str.contains(expression).arg_true()
    named = _prose(texts.gather(places)).str.extract_all(expression).to_list()
    return {place: [value.strip() for value in values] for place, values in zip(places.to_list(), named, strict=True)
            if values}  # fmt: skip


def _role_markers(texts: pl.Series) -> Found:
    places = texts.str.contains(_speakers()).arg_true()
    named = texts.gather(places).str.extract_all(_speakers()).to_list()
    return {place: [value.strip() for value in values] for place, values in zip(places.to_list(), named, strict=True)}


def _identities(texts: pl.Series, said: npt.NDArray[np.bool_]) -> Found:
    """The models and makers that the `said` texts claim as their own, as identities.yaml spells them."""
    names = phrases.phrases("identities").words
    spelled = {name.lower(): name for key in ("maker", "model") for name in names[key]}
    longest = "|".join(re.escape(name) for name in sorted(spelled, key=len, reverse=True))
    places = np.flatnonzero(said)
    places = places[phrases.holding(texts.gather(places), "identities")]
    claims = phrases.answers(texts.gather(places)).str.extract_all(phrases.pattern("identities")).to_list()
    return {int(place): [spelled[name.lower()] for claim in many for name in re.findall(f"(?i){longest}", claim)]
            for place, many in zip(places, claims, strict=True) if many}  # fmt: skip


def _counted(texts: pl.Series, said: npt.NDArray[np.bool_]) -> dict[str, npt.NDArray[np.bool_]]:
    """Which of S texts refuse, mention a refusal, speak of themselves as a machine; only `said` ones do."""
    found = {name: np.zeros(len(texts), np.bool_) for name in COUNTS[ANSWER]}
    places = np.flatnonzero(said)
    answers = phrases.answers(texts.gather(places))
    found["refusals"][places], found["refusal_mentions"][places] = phrases.refusals_and_mentions(answers)
    found["self_references"][places] = phrases.holding(answers, "self_reference")
    return found
