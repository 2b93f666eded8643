"""Rollouts come back to the lake: what training saw of each row, for `kedge sql`, rules and the next mixture.

`rollouts` holds every rollout, `pass_rates` one line per run and row; both are views of the newest that each run
published. Rows that are sometimes solved: SELECT row_id FROM pass_rates WHERE pass_rate > 0 AND pass_rate < 1.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import polars as pl
import pyarrow as pa

from curation.catalog import Catalog, write_parquet
from curation.fingerprint import fingerprint, hash_bytes
from curation.outputs import Manifest

VERSION = 1
KINDS = ("rollouts", "pass_rates")
# Outcomes that judge the answer; all others say nothing of the row.
JUDGED = ("right", "wrong", "unparsed", "verifier_timeout")
ROLLOUTS = pa.schema(
    [
        ("run", pa.string()),
        ("row_id", pa.uuid()),
        ("split", pa.string()),  # train | val
        ("step", pa.int64()),  # of the trainer; null where it does not tell its reward
        ("sample", pa.int32()),  # 0-based number among the rollouts of this row at this step
        ("reward", pa.float64()),  # the sum that the trainer got; null where no component said anything
        ("outcome", pa.string()),
        ("solved", pa.bool_()),  # the answer is right; null where it was not judged
        ("components", pa.string()),  # JSON: name -> value or null
        ("outcomes", pa.string()),  # JSON: name -> outcome
        ("num_tokens", pa.int64()),
        ("finished", pa.bool_()),
    ]
)
PASS_RATES = pa.schema(
    [
        ("run", pa.string()),
        ("row_id", pa.uuid()),
        ("num_rollouts", pa.int64()),
        ("num_judged", pa.int64()),
        ("num_solved", pa.int64()),
        ("pass_rate", pa.float64()),  # num_solved / num_judged, null where nothing was judged
        ("mean_reward", pa.float64()),
        ("first_step", pa.int64()),
        ("last_step", pa.int64()),
    ]
)


def publish(catalog: Catalog, run: str, folder: Path) -> dict[str, int]:
    """Publish the rollouts below `folder` (`rollouts-*.jsonl`, as client.Journal writes them) as the evidence of a run,
    in place of what it published before, and return {rollouts, rows, broken_lines}. The same files give the same
    bytes; a line that a killed process left half-written is counted and left out."""
    files = sorted(folder.glob("rollouts-*.jsonl"))
    contents = [path.read_bytes() for path in files]
    hashes = [[path.name, hash_bytes(data)] for path, data in zip(files, contents, strict=True)]
    digest = fingerprint({"version": VERSION, "run": run, "files": hashes})
    records: list[dict[str, Any]] = []
    broken = 0
    for data in contents:
        for line in data.splitlines():
            record = _record(line, run)
            broken += record is None
            records += [record] if record is not None else []
    rollouts = _numbered(records)
    rates = pass_rates(rollouts)
    counts = {"rollouts": rollouts.num_rows, "rows": rates.num_rows, "broken_lines": broken}
    with catalog.writing("evidence", f"rollouts-{run}"):
        for kind, table in zip(KINDS, (rollouts, rates), strict=True):
            _publish(catalog, kind, run, digest, table, counts)
    return counts


def _publish(catalog: Catalog, kind: str, run: str, digest: str, table: pa.Table, counts: Mapping[str, int]) -> None:
    parameters = {"plugin": f"rewards of {run}", "version": VERSION}
    target = catalog.folder("evidence", kind, digest[:16])
    if catalog.manifest(target) is None:
        with catalog.publishing(target) as draft:
            part = write_parquet(draft.folder / "part-00000.parquet", table)
            draft.manifest = Manifest(kind="evidence", name=kind, fingerprint=digest, parts=[part],
                                      inputs={"run": run}, parameters=parameters, counts=dict(counts))  # fmt: skip
    for folder, manifest in catalog.manifests("evidence", kind):
        if manifest.parameters.get("plugin") == parameters["plugin"] and folder != target:
            shutil.rmtree(folder, ignore_errors=True)


def _record(line: bytes, run: str) -> dict[str, Any] | None:
    """A line as a row of ROLLOUTS without its number; None where it is no rollout."""
    try:
        given = orjson.loads(line)
        outcome = str(given["outcome"])
        said = str(given["outcomes"].get("answer", outcome))
        return {"run": run, "row_id": _uuid(given["row_id"]), "split": str(given.get("split") or "train"),
                "step": _whole(given.get("step")), "reward": _number(given["reward"]), "outcome": outcome,
                "solved": said == "right" if said in JUDGED else None, "components": _json(given["components"]),
                "outcomes": _json(given["outcomes"]), "num_tokens": _whole(given.get("num_tokens")),
                "finished": given.get("finished") if isinstance(given.get("finished"), bool) else None}  # fmt: skip
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _uuid(value: Any) -> bytes | None:
    return UUID(str(value)).bytes if value else None


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _numbered(records: list[dict[str, Any]]) -> pa.Table:
    """Rollouts with their number among those of the same row and step, in a total order."""
    counted: dict[tuple[Any, ...], int] = {}
    for record in records:
        key = (record["row_id"], record["split"], record["step"])
        record["sample"] = counted[key] = counted.get(key, -1) + 1
    records.sort(key=_place)
    return pa.Table.from_pylist(records, schema=ROLLOUTS)


def _place(record: Mapping[str, Any]) -> tuple[Any, ...]:
    step = record["step"]
    return (-1 if step is None else step, record["split"], record["row_id"] or b"", record["sample"])


def pass_rates(rollouts: pa.Table) -> pa.Table:
    """PASS_RATES of the rollouts that trained, one row per run and row_id in order; rollouts without a row_id, and
    those of validation, are left out."""
    ids = rollouts["row_id"].combine_chunks()
    frame = pl.DataFrame({
        "row_id": pl.Series(pl.from_arrow(ids.storage if isinstance(ids, pa.ExtensionArray) else ids), dtype=pl.Binary),
        **{name: pl.Series(pl.from_arrow(rollouts[name])) for name in ("run", "split", "step", "reward", "solved")},
    })  # fmt: skip
    kept = frame.filter(pl.col("row_id").is_not_null() & (pl.col("split") == "train"))
    judged = pl.col("solved").count()
    rates = kept.group_by("run", "row_id").agg(
        num_rollouts=pl.len().cast(pl.Int64), num_judged=judged.cast(pl.Int64),
        num_solved=pl.col("solved").sum().cast(pl.Int64), pass_rate=pl.col("solved").mean(),
        mean_reward=pl.col("reward").mean(), first_step=pl.col("step").min(), last_step=pl.col("step").max(),
    ).sort("run", "row_id")  # fmt: skip
    columns = {name: rates[name].to_arrow() for name in rates.columns if name != "row_id"}
    storage = pa.array(rates["row_id"].to_list(), pa.binary(16))
    arrays = [pa.ExtensionArray.from_storage(pa.uuid(), storage) if item.name == "row_id"
              else columns[item.name].cast(item.type) for item in PASS_RATES]  # fmt: skip
    return pa.Table.from_arrays(arrays, schema=PASS_RATES)
