"""Scores in the lake: one row per sample of one benchmark answered by one checkpoint under given conditions.

A score belongs to weights and conditions, not to a checkpoint's name: the same weights under another name are not
evaluated again, other weights at the same place are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation import schema
from curation.catalog import Catalog, write_parquet
from curation.checkpoints import Checkpoint
from curation.errors import InstrumentError
from curation.fingerprint import fingerprint
from curation.outputs import Manifest

CONDITIONS = ("benchmark_fingerprint", "template", "tokenizer", "sampling", "max_new_tokens", "repeats", "harness",
              "harness_version", "template_kwargs")  # fmt: skip
PART = "part-scores.parquet"


def weights_identity(checkpoint: Checkpoint) -> dict[str, str | None]:
    """What was evaluated: the weights' hash and, for an adapter, its base's."""
    return {"weights_hash": checkpoint.weights_hash, "base_hash": checkpoint.base_hash}


def scores_fingerprint(checkpoint: Checkpoint, benchmark: str, conditions: dict[str, Any]) -> str:
    """The identity of a table of scores: benchmark, weights and conditions."""
    return fingerprint({"benchmark": benchmark, "conditions": conditions} | weights_identity(checkpoint))


def scores_folder(catalog: Catalog, checkpoint: Checkpoint, benchmark: str, conditions: dict[str, Any]) -> Path:
    """`lake/scores/BENCHMARK/FINGERPRINT/`, whether it exists or not."""
    return catalog.folder("scores", benchmark, scores_fingerprint(checkpoint, benchmark, conditions)[:16])


def write_scores(catalog: Catalog, checkpoint: Checkpoint, benchmark: str, table: pa.Table,
                 conditions: dict[str, Any], beside: dict[str, pa.Table] | None = None) -> Path:  # fmt: skip
    """Publish N rows of `schema.SCORES` and return their folder. Rows are stored by sample and repeat, so equal scores
    are equal bytes. `beside` holds further tables by file name, which the manifest counts apart. Raises InstrumentError
    where a (sample, repeat) occurs twice or a state is unknown."""
    table = table.select(schema.SCORES.names).cast(schema.SCORES)
    table = table.sort_by([("sample_id", "ascending"), ("repeat", "ascending")])
    pairs = list(zip(table["sample_id"].to_pylist(), table["repeat"].to_pylist(), strict=True))
    unknown = sorted(set(table["state"].to_pylist()) - set(schema.STATES))
    if len(set(pairs)) != len(pairs) or unknown:
        what = f"states {', '.join(map(str, unknown))}" if unknown else "the same sample scored twice"
        raise InstrumentError(f"{benchmark}: the harness returned {what}", "check the sample ids of the benchmark")
    target = scores_folder(catalog, checkpoint, benchmark, conditions)
    with catalog.publishing(target) as draft:
        part = write_parquet(draft.folder / PART, table)
        more = {name: write_parquet(draft.folder / name, item).hash for name, item in (beside or {}).items()}
        draft.manifest = Manifest(
            kind="scores",
            name=benchmark,
            fingerprint=scores_fingerprint(checkpoint, benchmark, conditions),
            parts=[part],
            inputs=weights_identity(checkpoint),
            parameters=conditions,
            counts=count_states(table) | ({"beside": more} if more else {}),
        )
    return target


def count_states(table: pa.Table) -> dict[str, int]:
    """Samples per state, every state named."""
    return {state: pc.sum(pc.equal(table["state"], state)).as_py() or 0 for state in schema.STATES}


def published(catalog: Catalog, checkpoint: Checkpoint, benchmark: str | None = None) -> list[tuple[Path, Manifest]]:
    """Every table of scores of a checkpoint's weights (on a benchmark), the latest published last."""
    inputs = weights_identity(checkpoint)
    found = [item for item in catalog.manifests("scores", benchmark) if item[1].inputs == inputs]
    return sorted(found, key=lambda item: (catalog.provenance(item[0]).get("created_at", ""), item[1].fingerprint))


def read_scores(catalog: Catalog, checkpoint: Checkpoint, benchmark: str,
                conditions: dict[str, Any] | None = None) -> tuple[pa.Table, dict[str, Any]] | None:  # fmt: skip
    """Scores and their conditions, or None. Without `conditions`, those that were published last; two checkpoints are
    only comparable under equal conditions, so read the second one under the conditions of the first."""
    if conditions is not None:
        folder = scores_folder(catalog, checkpoint, benchmark, conditions)
        manifest = catalog.manifest(folder)
        found = [] if manifest is None else [(folder, manifest)]
    else:
        found = published(catalog, checkpoint, benchmark)
    if not found:
        return None
    folder, manifest = found[-1]
    return pq.read_table(folder / PART, schema=schema.SCORES), dict(manifest.parameters)


def read_beside(catalog: Catalog, checkpoint: Checkpoint, benchmark: str, conditions: dict[str, Any],
                name: str) -> pa.Table | None:  # fmt: skip
    """A further table of published scores by its file name, or None."""
    path = scores_folder(catalog, checkpoint, benchmark, conditions) / name
    return pq.read_table(path) if path.is_file() else None


def scored_conditions(catalog: Catalog, checkpoint: Checkpoint, benchmark: str) -> list[dict[str, Any]]:
    """The conditions under which a checkpoint has scores on a benchmark, the latest last."""
    return [dict(manifest.parameters) for _, manifest in published(catalog, checkpoint, benchmark)]


def scored_benchmarks(catalog: Catalog, checkpoint: Checkpoint) -> list[str]:
    """Names of the benchmarks that a checkpoint has scores on, in name order."""
    return sorted({manifest.name for _, manifest in published(catalog, checkpoint)})
