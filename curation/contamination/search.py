"""The search over all rows: index, seeds, boilerplate, verification, and the tables that the measure gives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curation.contamination.facts import EVIDENCE
from curation.contamination.figures import checkability, findings
from curation.contamination.index import build_index, index_name, load_index, save_index
from curation.contamination.items import component_texts
from curation.contamination.seeds import find_seeds, frequencies, load_seeds, uncheckable
from curation.contamination.verification import VerifyJob, verify_part
from curation.fingerprint import fingerprint, hash_bytes
from curation.join_work import JoinWork
from curation.relations import empty_relation, parquet_list

if TYPE_CHECKING:
    from curation.measures.contamination import Contamination


def search(work: JoinWork, measure: Contamination) -> None:
    """Create `found` and `measured` on the connection, and fill `work.counts`."""
    items = component_texts(work.against)
    paths: list[Path] = []
    work.counts["paraphrase"] = "unchecked"
    if items.num_rows and work.parts:
        benchmarks = tuple(sorted(set(items["benchmark"].unique().to_pylist())))
        work.cache.mkdir(parents=True, exist_ok=True)
        folder = work.cache / f"index-{index_name(items, measure.item_cap, measure.version)}"
        if not folder.exists():
            save_index(build_index(items, measure.item_cap), folder)
        paths = verified_parts(work, measure, folder, benchmarks)
        if measure.embedding_model is not None:
            from curation.contamination.paraphrases import find_paraphrases

            digest = measure.model_digest()
            paths += find_paraphrases(work, folder, paths, benchmarks, measure.embedding_model, digest,
                                      measure.embedding_threshold, measure.candidates)  # fmt: skip
            work.counts["paraphrase"] = f"checked with the model {digest[:16]}"
    _tables(work, paths, compared=bool(items.num_rows))
    work.counts.update(findings(work))


def verified_parts(work: JoinWork, measure: Contamination, folder: Path, benchmarks: tuple[str, ...]) -> list[Path]:
    """The evidence of every part; a part with the same seeds and the same boilerplate among them keeps its own."""
    index = load_index(folder)
    seeds = find_seeds(work, work.parts, folder)
    frequency = frequencies(work.parts, seeds, len(index.idf_G), measure.common_rows, measure.common_share,
                            measure.common_share_of_source)  # fmt: skip
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
                                  benchmarks, measure.threshold, measure.long_agreement,
                                  measure.candidates))  # fmt: skip
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
