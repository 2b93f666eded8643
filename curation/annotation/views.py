"""Annotation's evidence as views: `items`, `votes`, `resolved`, `generation` (empty where there is none) and
`annotated`."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from curation.annotation.records import (
    GENERATION_KIND,
    ITEMS,
    ITEMS_KIND,
    RESOLVED,
    RESOLVED_KIND,
    VOTES,
    VOTES_KIND,
)
from curation.catalog import Catalog
from curation.generation._records import GENERATION
from curation.relations import empty_relation, parquet_list

KINDS: dict[str, pa.Schema] = {ITEMS_KIND: ITEMS, VOTES_KIND: VOTES, RESOLVED_KIND: RESOLVED,
                               GENERATION_KIND: GENERATION}  # fmt: skip
# Every row that a person submitted a vote on, once for each item; an item without a row is not there, so that
# `row_id NOT IN (SELECT row_id FROM annotated)` says what it seems to say.
ANNOTATED = """
SELECT i.row_id, r.prompt_hash, i.job, i.round, i.item_id, v.num_votes,
       list_filter(list_transform(i.candidates, lambda c: c.generation_id), lambda g: g IS NOT NULL) AS generation_ids
FROM ({items}) AS i
JOIN (SELECT item_id, count(DISTINCT annotator) AS num_votes FROM ({votes})
      WHERE status = 'submitted' AND kind = 'person' GROUP BY item_id) AS v ON i.item_id = v.item_id
LEFT JOIN rows AS r ON i.row_id = r.row_id
WHERE i.row_id IS NOT NULL
"""


def selects(catalog: Catalog) -> dict[str, str]:
    """SELECT statements by view name, over a session of `catalog` (`annotated` reads its `rows`). Of each job, round or
    resolution the evidence that was published last."""
    newest: dict[tuple[str, str], tuple[str, list[Path]]] = {}
    for kind in KINDS:
        for folder, manifest in catalog.manifests("evidence", kind):
            key = (kind, str(manifest.parameters.get("plugin")))
            created = str(catalog.provenance(folder).get("created_at", ""))
            if created >= newest.get(key, ("", []))[0]:
                newest[key] = (created, [folder / part.name for part in manifest.parts])
    found = {}
    for kind, of in KINDS.items():
        columns = ", ".join(f'"{name}"' for name in of.names)
        queries = [f"SELECT {columns} FROM {parquet_list(parts)}"
                   for (other, _), (_, parts) in sorted(newest.items()) if other == kind and parts]  # fmt: skip
        found[kind] = " UNION ALL BY NAME ".join(queries) or empty_relation(of)
    found["annotated"] = ANNOTATED.format(items=found[ITEMS_KIND], votes=found[VOTES_KIND])
    return found
