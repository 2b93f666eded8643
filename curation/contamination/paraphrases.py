"""The optional stage for paraphrases: chunks of rows against items by the cosine of their embeddings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from curation import schema
from curation.catalog import write_parquet
from curation.contamination.classes import PARAPHRASE
from curation.contamination.evidence import SNIPPET_CHARS
from curation.contamination.facts import EVIDENCE
from curation.contamination.index import Index, load_index
from curation.contamination.items import COMPONENTS
from curation.embedding import Encoder, load_encoder
from curation.join_work import JoinWork, RowPart
from curation.texts import PLAIN, SIDES, Segments, segments

CHUNK_WORDS, STEP_WORDS = 64, 48
ROWS_AT_ONCE = 512
COMPARED = ("question", "passage")
WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class ParaphraseJob:
    """A part, the index, the model and the embeddings of the items; `known` is what the alignment found."""

    part: RowPart
    index: Path
    model: str
    items: Path
    known: Path
    hits: Path
    benchmarks: tuple[str, ...]
    threshold: float
    nearest: int


def compared_references(index: Index) -> npt.NDArray[np.int64]:
    """The references that are compared: questions and passages of at least the least words."""
    kinds = [COMPONENTS.index(name) for name in COMPARED]
    return np.flatnonzero((index.reason_R != 1) & np.isin(index.component_R, kinds))


def find_paraphrases(work: JoinWork, folder: Path, known: Sequence[Path], benchmarks: tuple[str, ...], model: str,
                     model_digest: str, threshold: float, nearest: int) -> list[Path]:  # fmt: skip
    """The evidence of this stage per part. An item that the alignment found in a row is not reported there again."""
    index = load_index(folder)
    items = work.cache / f"items-{folder.name}-{model_digest[:16]}.npy"
    if not items.exists():
        encoder = load_encoder(model)
        draft = items.with_name(f".{items.name}")
        np.save(draft, encoder([index.text(int(ref)) for ref in compared_references(index)]))
        draft.replace(items)
    jobs = []
    for part, path in zip(work.parts, known, strict=True):
        hits = work.cache / f"paraphrases-{model_digest[:16]}-{path.name}"
        jobs.append(ParaphraseJob(part, folder, model, items, path, hits, benchmarks, threshold, nearest))
    for _ in work.run(compare_part, [job for job in jobs if not job.hits.exists()], "looking for paraphrases"):
        pass
    return [job.hits for job in jobs]


def compare_part(job: ParaphraseJob) -> None:
    """Write the evidence of one part."""
    import torch

    torch.set_num_threads(1)
    index, items = load_index(job.index), np.load(job.items)
    encoder = load_encoder(job.model)
    table = pq.read_table(job.known, columns=["row_id", "benchmark", "item"])
    known = set(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))
    file = pq.ParquetFile(job.part.path)
    columns = [name for name in SIDES[job.part.stage] if name in file.schema_arrow.names]
    rows: list[dict[str, Any]] = []
    for batch in file.iter_batches(ROWS_AT_ONCE, columns=["row_id", *columns]):
        table = pa.Table.from_batches([batch])
        texts = segments(table, columns, ("content",))
        for hit in _near(texts, table["row_id"].to_pylist(), index, items, encoder, job):
            if (hit["row_id"], hit["benchmark"], hit["item"]) not in known:
                rows.append(hit)
    draft = job.hits.with_name(f".{job.hits.name}")
    write_parquet(draft, pa.Table.from_pylist(rows, EVIDENCE))
    draft.replace(job.hits)


def chunks_of(text: str) -> Iterator[tuple[int, int]]:
    """Character ranges of CHUNK_WORDS words, STEP_WORDS apart; the last one ends with the text."""
    words = [found.span() for found in WORD.finditer(text)]
    for first in range(0, max(1, len(words) - CHUNK_WORDS + STEP_WORDS), STEP_WORDS):
        part = words[first : first + CHUNK_WORDS]
        if part:
            yield part[0][0], part[-1][1]


def _near(texts: Segments, row_ids: Sequence[Any], index: Index, items: npt.NDArray[np.float32], encoder: Encoder,
          job: ParaphraseJob) -> Iterator[dict[str, Any]]:  # fmt: skip
    of_row = np.repeat(np.arange(len(row_ids)), np.diff(texts.first_N1))
    chunks = [(int(of_row[place]), place, start, end, text[start:end]) for place in range(len(texts.start_S))
              for text in [texts.text(place)] for start, end in chunks_of(text)]  # fmt: skip
    if not chunks or not len(items):
        return
    cosine = np.round(encoder([chunk[4] for chunk in chunks]) @ items.T, 3)
    refs = compared_references(index)
    best: dict[tuple[int, int], tuple[float, int]] = {}
    for number, place in zip(*np.nonzero(cosine >= job.threshold), strict=True):
        key = (chunks[number][0], int(refs[place]))
        best[key] = max(best.get(key, (-1.0, 0)), (round(float(cosine[number, place]), 3), -int(number)))
    by_row: dict[int, list[tuple[float, int, int]]] = {}
    for (row, ref), (score, number) in best.items():
        by_row.setdefault(row, []).append((-score, ref, -number))
    for row, found in sorted(by_row.items()):
        for minus, ref, number in sorted(found)[: job.nearest]:
            yield _evidence(row_ids[row], -minus, ref, chunks[number], texts, index, job)


def _evidence(row_id: Any, score: float, ref: int, chunk: tuple[int, int, int, int, str], texts: Segments, index: Index,
              job: ParaphraseJob) -> dict[str, Any]:  # fmt: skip
    _, place, start, end, text = chunk
    turn, role = int(texts.turn_S[place]), int(texts.role_S[place])
    item = index.text(ref)
    return {"row_id": row_id, "source": job.part.source, "stage": job.part.stage,
            "benchmark": job.benchmarks[index.benchmark_R[ref]], "item": _uuid(index, ref),
            "component": COMPONENTS[index.component_R[ref]], "class": PARAPHRASE, "score": score, "method": "embedding",
            "text_column": texts.columns[texts.column_S[place]], "turn": None if turn == PLAIN else turn,
            "role": None if role == PLAIN else schema.ROLES[role], "field": "content", "start_char": start,
            "end_char": end, "snippet": text[:SNIPPET_CHARS], "further": [], "item_start": 0, "item_end": len(item),
            "item_snippet": item[:SNIPPET_CHARS], "item_words": int(index.words_R[ref]),
            "seeds": 0, "seed_idf": 0.0, "answer_nearby": None}  # fmt: skip


def _uuid(index: Index, ref: int) -> Any:
    import uuid

    return uuid.UUID(bytes=bytes(index.row_id_R[ref]))
