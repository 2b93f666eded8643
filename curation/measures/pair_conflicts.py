"""Preference pairs that contradict other pairs: reversed labels, cycles, the same pair twice, across all sources."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from curation import schema, texts
from curation.catalog import write_parquet
from curation.measures import JoinMeasure
from curation.relations import empty_relation, parquet_list

if TYPE_CHECKING:
    from curation.join_work import JoinWork

SIDES = ("chosen", "rejected")
KEYS = pa.schema([schema.IDENTITY[0], ("context", schema.UUID), ("chosen", schema.UUID), ("rejected", schema.UUID)])
CYCLES = pa.schema([schema.IDENTITY[0], ("other_row_id", schema.UUID), ("cycle_length", pa.int32()),
                    ("component_size", pa.int32()), ("step", pa.int32())])  # fmt: skip
MAX_EDGES = 2_000  # of one component whose cycles are looked for


class PairConflicts(JoinMeasure):
    """Compares pairs whose whole prompts are equal (every turn and the tools; `prompt_hash` covers the first question
    alone). Answers are equal by NFKC and white space, across sources. Margins and votes decide nothing here.

    `contradicting_pairs` counts other rows with the same two answers and reversed labels; for rows with one side
    (KTO), rows with the same answer and the other label. `repeated_pairs` counts other rows with the same answers and
    labels. `answers_labelled_both_ways` (0..2) counts answers of the row that stand on the other side of a row that
    compares them with something else: usual where pairs were made from a ranking, so no contradiction by itself.
    `preference_cycle` is the length (3 or more) of the shortest cycle A > B > C > A that the pair is part of, null
    where it is part of none or of a component with more than 2,000 different pairs (such a component is in the evidence
    without a length). A pair whose sides are equal compares nothing and takes no part but in repeats.

    Evidence: `kind` is contradiction, twice (the row of the first source by priority, lowest row_id, is the other one),
    chosen_elsewhere_rejected or rejected_elsewhere_chosen, each with one example (the lowest row_id) of the other rows,
    or cycle: the other rows of the row's shortest cycle by `step`.
    """

    version: ClassVar[int] = 1
    stages: ClassVar[tuple[str, ...]] = ("preference",)
    depends_on: ClassVar[tuple[str, ...]] = ("curation/texts.py", "curation/duplicates/order.py")
    columns: ClassVar[pa.Schema] = pa.schema(
        [
            ("contradicting_pairs", pa.int32()),
            ("repeated_pairs", pa.int32()),
            ("answers_labelled_both_ways", pa.int32()),
            ("preference_cycle", pa.int32()),
        ]
    )
    evidence_kind: ClassVar[str] = "conflicting_pairs"
    evidence: ClassVar[pa.Schema] = pa.schema(
        [
            schema.IDENTITY[0],
            ("other_row_id", schema.UUID),
            ("kind", pa.string()),
            ("step", pa.int32()),
            ("cycle_length", pa.int32()),
            ("component_size", pa.int32()),
            ("prompt_hash", schema.UUID),
            ("source", pa.string()),
            ("other_source", pa.string()),
        ]
    )

    def join(self, work: JoinWork) -> None:
        from curation.duplicates.order import bind_source_ranks, bind_table

        connection = work.connection
        jobs = [KeyJob(part.path, work.cache / f"{part.hash}.parquet", work.folder / f"{part.hash}.parquet")
                for part in work.parts]  # fmt: skip
        files = list(work.run(write_keys, jobs, "comparing answers of pairs"))
        keys = parquet_list(files) if files else f"({empty_relation(KEYS)})"
        bind_source_ranks(work)
        connection.execute(
            "CREATE TEMP TABLE labels AS SELECT k.*, r.source, r.prompt_hash, p.priority, "
            "k.chosen IS NOT DISTINCT FROM k.rejected AS alike "
            f"FROM {keys} AS k JOIN rows_preference AS r USING (row_id) JOIN source_ranks AS p USING (source)"
        )
        connection.execute(CONFLICTS)
        bind_table(work, "cycles", cycles(connection.sql(EDGES).to_arrow_table()))
        connection.execute(RESULTS)


# A reversed pair joins on chosen = rejected both ways; nulls match nulls, so that KTO labels meet their opposites. Two
# rows of each side of an answer are enough to find one that compares it with something else (`lowest`).
CONFLICTS = """
CREATE TEMP TABLE pairs AS
SELECT context, chosen, rejected, any_value(alike) AS alike, count(*) AS size, min(row_id) AS example
FROM labels GROUP BY context, chosen, rejected;
CREATE TEMP TABLE contradictions AS
SELECT a.context, a.chosen, a.rejected, b.size, b.example
FROM pairs AS a JOIN pairs AS b ON a.context = b.context AND a.chosen IS NOT DISTINCT FROM b.rejected
                               AND a.rejected IS NOT DISTINCT FROM b.chosen
WHERE NOT a.alike;
CREATE TEMP TABLE repeats AS
SELECT row_id, first_value(row_id) OVER same AS other_row_id, row_number() OVER same AS place,
       count(*) OVER (PARTITION BY context, chosen, rejected) AS size
FROM labels
WINDOW same AS (PARTITION BY context, chosen, rejected ORDER BY priority, row_id);
CREATE TEMP TABLE stood AS
SELECT context, chosen AS answer, 'chosen' AS side, rejected AS against, example FROM pairs
WHERE chosen IS NOT NULL AND NOT alike
UNION ALL
SELECT context, rejected, 'rejected', chosen, example FROM pairs WHERE rejected IS NOT NULL AND NOT alike;
CREATE TEMP TABLE lowest AS
SELECT *, row_number() OVER (PARTITION BY context, answer, side ORDER BY example) AS place FROM stood
QUALIFY place <= 2;
CREATE TEMP TABLE elsewhere AS
SELECT s.context, s.answer, s.side, s.against, min(t.example) AS other_row_id
FROM stood AS s JOIN lowest AS t ON s.context = t.context AND s.answer = t.answer AND s.side <> t.side
                                AND s.against IS DISTINCT FROM t.against
GROUP BY ALL
"""
# Only an answer that is both preferred and not can lie on a cycle.
EDGES = """
SELECT context, chosen, rejected, example
FROM pairs AS p
WHERE NOT alike AND chosen IS NOT NULL AND rejected IS NOT NULL
  AND EXISTS (FROM pairs AS b WHERE b.context = p.context AND b.rejected = p.chosen AND NOT b.alike)
  AND EXISTS (FROM pairs AS b WHERE b.context = p.context AND b.chosen = p.rejected AND NOT b.alike)
ORDER BY context, chosen, rejected
"""
RESULTS = """
CREATE TEMP VIEW measured AS
SELECT l.row_id, coalesce(c.size, 0)::INTEGER AS contradicting_pairs, (r.size - 1)::INTEGER AS repeated_pairs,
       ((e.answer IS NOT NULL)::INTEGER + (f.answer IS NOT NULL)::INTEGER)::INTEGER AS answers_labelled_both_ways,
       y.cycle_length AS preference_cycle
FROM labels AS l
JOIN repeats AS r ON l.row_id = r.row_id
JOIN pairs AS p ON l.context = p.context AND l.chosen IS NOT DISTINCT FROM p.chosen
               AND l.rejected IS NOT DISTINCT FROM p.rejected
LEFT JOIN contradictions AS c ON l.context = c.context AND l.chosen IS NOT DISTINCT FROM c.chosen
                             AND l.rejected IS NOT DISTINCT FROM c.rejected
LEFT JOIN elsewhere AS e ON l.context = e.context AND l.chosen = e.answer AND e.side = 'chosen'
                        AND l.rejected IS NOT DISTINCT FROM e.against
LEFT JOIN elsewhere AS f ON l.context = f.context AND l.rejected = f.answer AND f.side = 'rejected'
                        AND l.chosen IS NOT DISTINCT FROM f.against
LEFT JOIN (SELECT row_id, any_value(cycle_length) AS cycle_length FROM cycles GROUP BY row_id) AS y
       ON p.example = y.row_id;
CREATE TEMP VIEW facts AS
SELECT l.row_id, c.example AS other_row_id, 'contradiction' AS kind, NULL::INTEGER AS step,
       NULL::INTEGER AS cycle_length, NULL::INTEGER AS component_size
FROM labels AS l JOIN contradictions AS c ON l.context = c.context AND l.chosen IS NOT DISTINCT FROM c.chosen
                                         AND l.rejected IS NOT DISTINCT FROM c.rejected
UNION ALL
SELECT row_id, other_row_id, 'twice', NULL, NULL, NULL FROM repeats WHERE place > 1
UNION ALL
SELECT l.row_id, e.other_row_id, 'chosen_elsewhere_rejected', NULL, NULL, NULL
FROM labels AS l JOIN elsewhere AS e ON l.context = e.context AND l.chosen = e.answer AND e.side = 'chosen'
                                    AND l.rejected IS NOT DISTINCT FROM e.against
UNION ALL
SELECT l.row_id, e.other_row_id, 'rejected_elsewhere_chosen', NULL, NULL, NULL
FROM labels AS l JOIN elsewhere AS e ON l.context = e.context AND l.rejected = e.answer AND e.side = 'rejected'
                                    AND l.chosen IS NOT DISTINCT FROM e.against
UNION ALL
SELECT l.row_id, y.other_row_id, 'cycle', y.step, y.cycle_length, y.component_size
FROM labels AS l JOIN pairs AS p ON l.context = p.context AND l.chosen = p.chosen AND l.rejected = p.rejected
JOIN cycles AS y ON p.example = y.row_id;
CREATE TEMP VIEW found AS
SELECT facts.*, l.prompt_hash, l.source, o.source AS other_source
FROM facts JOIN labels AS l ON facts.row_id = l.row_id LEFT JOIN labels AS o ON facts.other_row_id = o.row_id
"""


@dataclass(frozen=True)
class KeyJob:
    """Write the keys of the row part `rows` to `target` by way of `draft`."""

    rows: Path
    target: Path
    draft: Path


def write_keys(job: KeyJob) -> Path:
    """The target: row_id and the hashes of prompt and sides (KEYS) of every row of a part; made where it is missing."""
    if not job.target.exists():
        file = pq.ParquetFile(job.rows)
        columns = ["row_id", "prompt", *SIDES, "tools"]
        tables = [keys_of(file.read_row_group(index, columns)) for index in range(file.num_row_groups)]
        write_parquet(job.draft, pa.concat_tables(tables) if tables else KEYS.empty_table())
        job.draft.replace(job.target)
    return job.target


def keys_of(rows: pa.Table) -> pa.Table:
    """Row_id and hashes of the whole prompt and of each side (null where there is none), KEYS."""
    found = [rows["row_id"].combine_chunks(), _hashes(rows, ("prompt", "tools"))]
    return pa.Table.from_arrays([*found, *(_hashes(rows, (side,)) for side in SIDES)], schema=KEYS)


def _hashes(rows: pa.Table, columns: tuple[str, ...]) -> pa.Array:
    """16 bytes (xxh3-128) over the roles and texts of some columns, NFKC, white space folded."""
    told = []
    for name in columns:
        texts_N = pl.Series(pl.from_arrow(texts.joined(rows, [name], texts.FIELDS, separator="\x1e")))
        told.append(texts_N.str.normalize("NFKC").str.replace_all(r"\s+", " ").str.strip_chars(" "))
        if pa.types.is_list(rows[name].type):
            roles = pl.Series(pl.from_arrow(rows[name])).list.eval(pl.element().struct.field("role"))
            told.append(roles.list.join(",").fill_null(""))
    whole = pl.select(pl.concat_str(told, separator="\x1d")).to_series()
    absent = rows[columns[0]].is_null().to_pylist()
    digests = [None if none else xxhash.xxh3_128_digest(text) for text, none in zip(whole, absent, strict=True)]
    return pa.ExtensionArray.from_storage(schema.UUID, pa.array(digests, pa.binary(16)))


def cycles(edges: pa.Table) -> pa.Table:
    """The cycles over more than two answers that each of E edges (context, chosen > rejected, example row, in total
    order) is part of: for its row the other rows of one shortest cycle, by step (CYCLES). Edges outside of strongly
    connected components of three or more answers have none."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names = {name: _raw(edges[name]) for name in ("context", "chosen", "rejected", "example")}
    ends = np.char.add(np.tile(names["context"], 2), np.concatenate([names["chosen"], names["rejected"]]))
    known, ids = np.unique(ends, return_inverse=True)
    size = len(names["context"])
    start, stop = ids[:size], ids[size:]
    graph = coo_array((np.ones(size, np.int8), (start, stop)), (len(known), len(known)))
    _, component = connected_components(graph, directed=True, connection="strong")
    answers = np.bincount(component, minlength=1)
    inside = np.flatnonzero((component[start] == component[stop]) & (answers[component[start]] > 2))
    by_component: dict[int, list[int]] = defaultdict(list)
    for edge in inside.tolist():
        by_component[int(component[start[edge]])].append(edge)
    found: list[tuple[bytes, bytes | None, int | None, int, int | None]] = []
    row = [bytes.fromhex(item.decode()) for item in names["example"]]
    for number, members in by_component.items():
        total = int(answers[number])
        if len(members) > MAX_EDGES:
            found += [(row[edge], None, None, total, None) for edge in members]
            continue
        leaving: dict[int, list[int]] = defaultdict(list)
        for edge in members:
            leaving[int(start[edge])].append(edge)
        for edge in members:
            path = _way_back(edge, start, stop, leaving)
            found += [(row[edge], row[other], len(path) + 1, total, step + 1) for step, other in enumerate(path)]
    columns = [list(column) for column in zip(*found, strict=True)] or [[] for _ in CYCLES]
    arrays = [pa.ExtensionArray.from_storage(schema.UUID, pa.array(values, pa.binary(16))) if of.type == schema.UUID
              else pa.array(values, of.type) for values, of in zip(columns, CYCLES, strict=True)]  # fmt: skip
    return pa.Table.from_arrays(arrays, schema=CYCLES)


def _raw(column: pa.ChunkedArray) -> np.ndarray:
    """Ids as text of 32 characters (numpy drops zero bytes at the end of raw ones)."""
    values = column.combine_chunks()
    storage = values.storage if isinstance(values, pa.ExtensionArray) else values
    return np.array([item.hex().encode() for item in storage.to_pylist()], dtype="S32")


def _way_back(edge: int, start: np.ndarray, stop: np.ndarray, leaving: dict[int, list[int]]) -> list[int]:
    """The edges of a shortest path from the end of `edge` to its begin, other than the reversed edge alone; empty where
    there is none. Of several shortest paths the one whose edges come first in the total order."""
    target, origin = int(start[edge]), int(stop[edge])
    came: dict[int, int] = {}
    queue = deque([origin])
    while queue:
        node = queue.popleft()
        for other in leaving[node]:
            after = int(stop[other])
            if after in came or after == origin or (node == origin and after == target):
                continue
            came[after] = other
            if after == target:
                path = [other]
                while int(start[path[-1]]) != origin:
                    path.append(came[int(start[path[-1]])])
                return path[::-1]
            queue.append(after)
    return []
