"""Personal data and secrets in a row's texts, as counts: the values themselves are neither kept nor shown."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from curation.measures import PartMeasure, _contacts, _secrets
from curation.measures._secrets import NEITHER, REAL, SOME_SECRET, Kind, python_pattern
from curation.phrases import fingerprint_of_phrases
from curation.texts import FIELDS, SIDES, segments

CONTACTS = tuple(dict.fromkeys(kind.name for kind in _contacts.KINDS))
# What every candidate of some kind holds: texts without any of these are not searched further.
SOME = (
    r"@|[0-9](?:[ ./()-]{0,2}[0-9]){6}|\b[A-Z]{2}[0-9]{2}[ 0-9A-Z]|[0-9]\.[0-9]{1,3}\.[0-9]|"
    rf"[0-9a-fA-F]:[0-9a-fA-F]{{0,4}}:|{SOME_SECRET}"
)


class PersonalData(PartMeasure):
    """How many distinct values a row holds, in all its texts and tool calls: `emails`; `phone_numbers` (international,
    American, or behind a word such as `phone`); `ibans` and `payment_cards` whose check digits hold; public
    `ip_addresses`; `social_security_numbers` (American, behind such a word); `secrets` (keys, tokens, private keys and
    passwords in URLs, by their issuers' forms). `answer_secrets` are those of the assistant turns (of `chosen` where
    there is one; a plain text counts whole), `answer_secret_kinds` their kinds in order of the alphabet. Documented
    examples (example.com, exchange 555, test cards, AKIA...EXAMPLE, local addresses) count only in
    `example_personal_data` and `example_secrets`.
    """

    version: ClassVar[int] = 3
    depends_on: ClassVar[tuple[str, ...]] = (
        "curation/measures/_contacts.py", "curation/measures/_secrets.py", "curation/phrases.py", "curation/texts.py",
    )  # fmt: skip
    columns: ClassVar[pa.Schema] = pa.schema(
        [(name, pa.int32()) for name in (*CONTACTS, "secrets", "answer_secrets", "example_personal_data",
                                         "example_secrets")]
        + [("answer_secret_kinds", pa.list_(pa.string()))]
    )  # fmt: skip

    def identity(self) -> dict[str, Any]:
        """Covers what counts as an example."""
        return super().identity() | {"phrases": fingerprint_of_phrases()}

    def reads(self, stage: str) -> tuple[str, ...]:
        return tuple(name for name in SIDES[stage] if name != "ground_truth")

    def measure(self, rows: pa.Table, stage: str) -> pa.Table:
        found = segments(rows, self.reads(stage), FIELDS)
        texts = pl.Series(found.strings(), dtype=pl.String)
        says, row_S = found.learnt_S, found.row_S
        places = texts.str.contains(_rust(SOME)).arg_true()
        few = texts.gather(places)
        values: dict[str, set[tuple[int, str]]] = {name: set() for name in self.columns.names}
        for kinds, plain in ((_contacts.KINDS, True), (_secrets.KINDS, False)):
            for kind in kinds:
                for place, value, verdict in _judged(few, places.to_numpy(), kind):
                    row = int(row_S[place])
                    name = (kind.name if plain else "secrets") if verdict == REAL else (
                        "example_personal_data" if plain else "example_secrets")  # fmt: skip
                    values[name].add((row, value))
                    if verdict == REAL and not plain and says[place]:
                        values["answer_secrets"].add((row, value))
                        values["answer_secret_kinds"].add((row, kind.name))
        arrays = [pa.array(_per_row(values[name], rows.num_rows), pa.int32()) for name in self.columns.names[:-1]]
        arrays.append(_lists(values["answer_secret_kinds"], rows.num_rows))
        return pa.table(arrays, schema=self.columns)


@functools.cache
def _rust(expression: str) -> str:
    """An expression for polars: `\\b` of ASCII words."""
    return expression.replace(r"\b", r"(?-u:\b)")


def _judged(texts: pl.Series, places: npt.NDArray[np.uint32], kind: Kind) -> Iterator[tuple[int, str, str]]:
    """(place, value, REAL or EXAMPLE) of every value of a kind in texts that stand at `places`."""
    holding = texts.str.contains(_rust(kind.pattern)).arg_true()
    for place, text in zip(places[holding.to_numpy()], texts.gather(holding).to_list(), strict=True):
        for match in python_pattern(kind.pattern).finditer(text):
            verdict = kind.judge(match)
            if verdict != NEITHER:
                value = match.groupdict().get("value") or match.group()
                if kind.name == "phone_numbers":
                    value = _contacts.digits_of(value)[-9:]  # one number, however it is written
                yield int(place), f"{kind.name} {value}", verdict


def _per_row(values: set[tuple[int, str]], num_rows: int) -> npt.NDArray[np.int64]:
    return np.bincount(np.array([row for row, _ in values], np.int64), minlength=num_rows)


def _lists(values: set[tuple[int, str]], num_rows: int) -> pa.ListArray:
    ends = np.concatenate([[0], np.cumsum(_per_row(values, num_rows))])
    flat = pa.array([value for _, value in sorted(values)], pa.string())
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), flat)
