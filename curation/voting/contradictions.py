"""Results of comparisons that cannot all be right: the same two answers judged both ways, and circles of answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import xxhash

from curation import schema

EDGES = pa.schema([("context", schema.UUID), ("chosen", schema.UUID), ("rejected", schema.UUID),
                   ("example", schema.UUID)])  # fmt: skip


class Result(NamedTuple):
    """One comparison: of the answers to the prompt `context`, `better` won against `worse` in `item`. Prompt and
    answers are 16-byte hashes."""

    context: bytes
    better: bytes
    worse: bytes
    item: str


class Conflicts(NamedTuple):
    """`contradictions`: pairs of items that judge the same two answers to the same prompt the other way round.
    `cycles`: the items of each shortest circle of three or more answers (A over B, B over C, C over A), in its order
    from its first item on. Both in order, each once."""

    contradictions: list[tuple[str, str]]
    cycles: list[tuple[str, ...]]


def conflicts(results: Sequence[Result]) -> Conflicts:
    """The contradictions and cycles among results, whatever their order; a result between equal answers says
    nothing."""
    from curation.measures.pair_conflicts import cycles

    told = sorted({item for item in results if item.better != item.worse})
    by_pair: dict[tuple[bytes, ...], list[str]] = {}
    for item in told:
        by_pair.setdefault(item[:3], []).append(item.item)
    against = {tuple(sorted((one, other))) for (context, better, worse), items in by_pair.items() if better < worse
               for one in items for other in by_pair.get((context, worse, better), ())}  # fmt: skip
    edges = {_edge_id(key): (key, items[0]) for key, items in by_pair.items()}
    order = sorted(edges, key=lambda edge: edges[edge][0])
    columns = [[edges[edge][0][place] for edge in order] for place in range(3)] + [order]
    table = pa.Table.from_arrays([_uuids(values) for values in columns], schema=EDGES)
    found: dict[bytes, list[tuple[int, bytes]]] = {}
    for row in cycles(table).to_pylist() if order else ():
        if row["step"] is not None:
            found.setdefault(row["row_id"].bytes, []).append((row["step"], row["other_row_id"].bytes))
    circles: dict[frozenset[bytes], tuple[str, ...]] = {}
    for edge in order:
        if edge in found:
            members = [edge, *(other for _, other in sorted(found[edge]))]
            circles.setdefault(frozenset(members), tuple(edges[member][1] for member in members))
    return Conflicts(sorted((one, other) for one, other in against), sorted(circles.values()))


def _edge_id(key: tuple[bytes, ...]) -> bytes:
    return xxhash.xxh3_128_digest(b"".join(key))


def _uuids(values: list[Any]) -> pa.ExtensionArray:
    return pa.ExtensionArray.from_storage(schema.UUID, pa.array(values, pa.binary(16)))
