"""A generation job from its file to its evidence: what is missing is asked for, and all of it is published."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow as pa

from curation.annotation.records import GENERATION_KIND
from curation.catalog import Catalog, write_parquet
from curation.console import progress
from curation.fingerprint import fingerprint
from curation.generation import ERROR, FINISH_REASONS, Ask, Writer, _kept
from curation.generation._jobs import GenerationJob, load_generation
from curation.generation._prompts import Found, Prompt, prompts_of
from curation.generation._records import GENERATION
from curation.outputs import Manifest

VERSION = 1


@dataclass(frozen=True)
class Generated:
    """What a job has now. `num_there` answers were there before, `num_generated` are new, `output_tokens` of the new
    ones took `seconds`. `finish_reasons` counts all answers; `detail` is what went wrong most often, and `num_asked`
    the answers that were asked for now."""

    job: str
    model: str
    weights: str
    folder: Path
    fingerprint: str
    num_rows: int
    num_repeated: int
    num_without: int
    num_prompts: int
    num_samples: int
    num_there: int
    num_asked: int
    num_generated: int
    finish_reasons: dict[str, int]
    output_tokens: int
    seconds: float
    detail: str


class Wanted(NamedTuple):
    """An ask and the prompt that it is about."""

    ask: Ask
    prompt: Prompt


def generate(catalog: Catalog, name: str) -> Generated:
    """Ask for every answer of a job that is not there yet, keep each as it is finished, and publish them all as
    evidence in place of what the job published before. Raises UserError; InstrumentError where nothing can answer."""
    job = load_generation(catalog, name)
    with catalog.writing(GENERATION_KIND, job.name):
        found = prompts_of(catalog, job)
        writer = job.generator.writer(catalog)
        identity = identity_of(job, writer)
        wanted = list(_wanted(job, found.prompts, identity))
        folder = catalog.lake / ".cache" / "generation" / identity[:16]
        answers = _kept.read(folder)
        missing = [item.ask for item in wanted if item.ask.id not in answers]
        started = time.monotonic()
        new = _ask(catalog, job, missing, folder, writer)
        seconds = time.monotonic() - started
        table = _table(job, wanted, answers | new, writer)
        target, digest = _publish(catalog, job, table, writer, found)
        return _counted(job, writer, found, table, new, len(missing), seconds, target, digest)


def identity_of(job: GenerationJob, writer: Writer) -> str:
    """32 hex characters over who answers and how: the generator, its version, the weights, the conditions, what all
    answers have in common, and the seed. Neither the prompts nor their number, nor that of the answers."""
    generator = job.generator
    return fingerprint([VERSION, generator.plugin_name(), generator.version, writer.weights, dict(writer.conditions),
                        job.sampling._asdict(), job.file.seed])  # fmt: skip


def _wanted(job: GenerationJob, prompts: Sequence[Prompt], identity: str) -> Iterator[Wanted]:
    """Every answer of a job. Its id and its seed follow from its prompt, its number and its temperature alone."""
    for prompt in prompts:
        for temperature in job.file.temperatures:
            for sample in range(job.samples(temperature)):
                digest = fingerprint([identity, prompt.key, sample, temperature])
                seed = int(fingerprint([job.file.seed, prompt.key, sample, temperature])[:8], 16) >> 1
                yield Wanted(Ask(digest, prompt.key, prompt.messages, prompt.tools, sample, temperature, seed), prompt)


def _ask(catalog: Catalog, job: GenerationJob, missing: list[Ask], folder: Path, writer: Writer) -> _kept.Kept:
    """The answers to what is missing by id, errors too; each batch is kept before the next is waited for."""
    new: _kept.Kept = {}
    if not missing:
        return new
    with progress(f"{job.name}: {writer.model}", len(missing)) as advance:
        for batch in job.generator.generate(catalog, missing, job.sampling):
            new |= _kept.keep(folder, batch, writer.software)
            new |= {item.id: dict(_kept.as_error(item, writer.software)) for item in batch
                    if item.finish_reason == ERROR}  # fmt: skip
            advance(len(batch))
    lost = [ask.id for ask in missing if ask.id not in new]
    if lost:
        raise RuntimeError(f"the generator '{job.generator.plugin_name()}' left {len(lost)} asks without an answer")
    return new


def _table(job: GenerationJob, wanted: Sequence[Wanted], answers: _kept.Kept, writer: Writer) -> pa.Table:
    """GENERATION of every answer of a job, ordered by source, row, temperature and sample."""
    settings = {"generator": job.generator.plugin_name(), "version": job.generator.version, "seed": job.file.seed,
                "conditions": dict(writer.conditions)} | job.sampling._asdict()  # fmt: skip
    rows = []
    for ask, prompt in sorted(wanted, key=_place):
        answer = answers[ask.id]
        told = orjson.dumps(settings | {"software": answer["software"]}, option=orjson.OPT_SORT_KEYS).decode()
        rows.append({
            "generation_id": ask.id, "job": job.name, "row_id": prompt.row_id.bytes, "source": prompt.source,
            "prompt": prompt.messages, "prompt_hash": prompt.prompt_hash.bytes, "tools": prompt.tools,
            "sample": ask.sample, "temperature": ask.temperature, "seed": ask.seed,
            "messages": None if answer["message"] is None else [answer["message"]], "text": answer["text"],
            "finish_reason": answer["finish_reason"], "prompt_tokens": answer["prompt_tokens"],
            "output_tokens": answer["output_tokens"], "model": writer.model, "weights": writer.weights,
            "settings": told, "detail": answer["detail"] or None,
        })  # fmt: skip
    return pa.Table.from_pylist(rows, schema=GENERATION)


def _place(item: Wanted) -> tuple[Any, ...]:
    return item.prompt.source, item.prompt.row_id.bytes, item.ask.temperature, item.ask.sample


def _publish(catalog: Catalog, job: GenerationJob, table: pa.Table, writer: Writer, found: Found) -> tuple[Path, str]:
    """Publish the answers of a job under the hash of what they are, and remove what it published before."""
    held = table.select([name for name in table.column_names if name not in ("row_id", "prompt_hash")]).to_pylist()
    rows = [value.as_py().hex for value in table["row_id"]]
    digest = fingerprint([VERSION, job.name, rows, held])
    target = catalog.folder("evidence", GENERATION_KIND, digest[:16])
    if catalog.manifest(target) is None:
        with catalog.publishing(target) as draft:
            part = write_parquet(draft.folder / "part-00000.parquet", table)
            asked = {name: getattr(job.file, name) for name in ("n", "temperatures", "seed", "top_p", "max_tokens")}
            parameters = {"plugin": job.name, "generator": job.generator.plugin_name()} | asked
            draft.manifest = Manifest(
                kind="evidence", name=GENERATION_KIND, fingerprint=digest, parts=[part], parameters=parameters,
                inputs={"model": writer.model, "weights": writer.weights, "conditions": dict(writer.conditions)},
                counts={"prompts": len(found.prompts), "finish_reasons": _reasons(table)},
            )  # fmt: skip
    for folder, manifest in catalog.manifests("evidence", GENERATION_KIND):
        if folder != target and manifest.parameters.get("plugin") == job.name:
            shutil.rmtree(folder, ignore_errors=True)
    return target, digest


def _reasons(table: pa.Table) -> dict[str, int]:
    counts = Counter(table["finish_reason"].to_pylist())
    return {reason: counts[reason] for reason in FINISH_REASONS}


def _counted(job: GenerationJob, writer: Writer, found: Found, table: pa.Table, new: _kept.Kept, num_asked: int,
             seconds: float, target: Path, digest: str) -> Generated:  # fmt: skip
    good = [answer for answer in new.values() if answer["finish_reason"] != ERROR]
    wrong = Counter(answer["detail"] for answer in new.values() if answer["finish_reason"] == ERROR)
    return Generated(
        job=job.name, model=writer.model, weights=writer.weights, folder=target, fingerprint=digest,
        num_rows=found.num_rows, num_repeated=found.num_repeated, num_without=found.num_without,
        num_prompts=len(found.prompts), num_samples=table.num_rows, num_there=table.num_rows - num_asked,
        num_asked=num_asked, num_generated=len(good), finish_reasons=_reasons(table),
        output_tokens=sum(answer["output_tokens"] or 0 for answer in good), seconds=seconds,
        detail=min(wrong, key=lambda text: (-wrong[text], text), default=""),
    )  # fmt: skip
