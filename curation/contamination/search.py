"""The search over all rows: index, seeds, boilerplate, verification, and the tables that the measure gives."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curation.contamination.facts import EVIDENCE
from curation.contamination.figures import checkability, findings
from curation.contamination.index import LAYOUT, build_index, index_name, load_index, save_index
from curation.contamination.items import component_texts
from curation.contamination.seeds import find_seeds, frequencies, load_seeds, uncheckable
from curation.contamination.verification import VerifyJob, verify_part
from curation.fingerprint import fingerprint, hash_bytes
from curation.join_work import JoinWork
from curation.relations import empty_relation, parquet_list


@dataclass(frozen=True)
class Options:
    """What a search goes by: the version and the fields of the measure `contamination`, and the digest of its model."""

    version: int
    model_digest: str
    threshold: float
    item_cap: int
    common_rows: int
    common_share: float
    common_share_of_source: float
    long_agreement: int
    candidates: int
    embedding_model: str | None
    embedding_threshold: float


def search(work: JoinWork, options: Options) -> None:
    """Create `found` and `measured` on the connection, and fill `work.counts`."""
    folder, benchmarks = index_of(work, options) if work.parts else (work.cache, ())
    paths: list[Path] = []
    work.counts["paraphrase"] = "unchecked"
    if benchmarks:
        paths = verified_parts(work, options, folder, benchmarks)
        if options.embedding_model is not None:
            from curation.contamination.paraphrases import find_paraphrases

            digest = options.model_digest
            paths += find_paraphrases(work, folder, paths, benchmarks, options.embedding_model, digest,
                                      options.embedding_threshold, options.candidates)  # fmt: skip
            work.counts["paraphrase"] = f"checked with the model {digest[:16]}"
    _tables(work, paths, compared=bool(benchmarks))
    work.counts.update(findings(work))


def index_of(work: JoinWork, options: Options) -> tuple[Path, tuple[str, ...]]:
    """The folder of the index of the items, built where there is none, and the names of the benchmarks that have items,
    sorted: none where there are no items, and then no index. The index is named by its items, however they are cut into
    parts; a file beside it remembers the name for these parts, so that their texts are read once."""
    parts = sorted((part.source, part.hash) for part in work.against)
    known = work.cache / f"benchmarks-{fingerprint([options.version, LAYOUT, options.item_cap, parts])}.json"
    if known.exists():
        name, benchmarks = json.loads(known.read_text())
        if (work.cache / name).exists():
            return work.cache / name, tuple(benchmarks)
    items = component_texts(work.against)
    if not items.num_rows:
        return work.cache, ()
    benchmarks = sorted(set(items["benchmark"].unique().to_pylist()))
    name = f"index-{index_name(items, options.item_cap, options.version)}"
    work.cache.mkdir(parents=True, exist_ok=True)
    if not (work.cache / name).exists():
        save_index(build_index(items, options.item_cap), work.cache / name)
    draft = known.with_name(f".{known.name}")
    draft.write_text(json.dumps([name, benchmarks]))
    draft.replace(known)
    return work.cache / name, tuple(benchmarks)


def verified_parts(work: JoinWork, options: Options, folder: Path, benchmarks: tuple[str, ...]) -> list[Path]:
    """The evidence of every part; a part with the same seeds and the same boilerplate among them keeps its own."""
    index = load_index(folder)
    seeds = find_seeds(work, work.parts, folder)
    frequency = frequencies(work.parts, seeds, len(index.keys_G), options.common_rows, options.common_share,
                            options.common_share_of_source)  # fmt: skip
    work.counts.update(checkability(index, uncheckable(index, frequency), benchmarks))
    saved = {source: work.folder / f"frequency-{number}.npy" for number, source in enumerate(frequency)}
    for source, values in frequency.items():
        np.save(saved[source], values)
    jobs, paths = [], []
    for part, mine in zip(work.parts, seeds, strict=True):
        known = hash_bytes(frequency[part.source][load_seeds(mine).gram_D].tobytes())
        path = work.cache / f"hits-{fingerprint([folder.name, part.source, part.stage, part.hash, known])}.parquet"
        paths.append(path)
        if not path.exists():
            jobs.append(VerifyJob(part.source, part.stage, part.path, mine, folder, saved[part.source], path,
                                  benchmarks, options.threshold, options.long_agreement,
                                  options.candidates))  # fmt: skip
    for _ in work.run(verify_part, jobs, "verifying candidates"):
        pass
    return paths


def _tables(work: JoinWork, paths: list[Path], *, compared: bool) -> None:
    found = f"SELECT * FROM {parquet_list(paths)}" if paths else empty_relation(EVIDENCE)
    work.connection.execute(f"CREATE TEMP TABLE found AS {found}")
    none, nothing = ("0.0", "0") if compared else ("NULL::DOUBLE", "NULL::INTEGER")
    work.connection.execute(f"""
        CREATE TEMP TABLE measured AS
        WITH hits AS (
            SELECT row_id, max(score) FILTER (class <> 'twin') AS best,
                   arg_max(class, (score, class)) FILTER (class <> 'twin') AS of_class,
                   count(DISTINCT (benchmark, item)) FILTER (class <> 'twin') AS items,
                   max(item_words) FILTER (class <> 'twin') AS words,
                   coalesce(bool_or(answer_nearby) FILTER (class <> 'twin'), false) AS answered,
                   max(score) FILTER (class = 'twin') AS twin
            FROM found GROUP BY row_id)
        SELECT rows.row_id, coalesce(best, {none}) AS contamination_score, of_class AS contamination_class,
               coalesce(items, {nothing})::INTEGER AS contamination_items,
               words AS contamination_words, answered AS contamination_answered,
               coalesce(twin, {none}) AS benchmark_twin_score
        FROM rows LEFT JOIN hits USING (row_id)
    """)
