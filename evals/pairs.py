"""Preference pairs as a benchmark: their items, the token ids that are scored, and what became of every pair."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from curation import schema
from curation.catalog import Catalog
from curation.config import SHIPPED
from curation.console import say
from curation.errors import InstrumentError, Problem, UserError
from curation.fingerprint import hash_bytes
from evals.benchmarks import (
    Benchmark,
    data_of,
    field_of,
    identity_of,
    limited,
    load_benchmark,
    require_items,
)
from evals.prompting import Prompting
from evals.records import read_records
from evals.rows import row_of

PART = "pairs.parquet"
PROBE = "probe_"  # begins the names of the benchmarks that probe pairs are stored under
REWARD, LIKELIHOOD, MEAN_LIKELIHOOD = "reward", "log-likelihood", "log-likelihood per token"
# Beside the scores of a benchmark of pairs. `chosen` and `rejected` are what was compared: log-likelihoods in nats
# (summed, or the mean of a token's) or rewards; null where the pair is an error. Lengths are tokens of the answers.
PAIRS = pa.schema(
    [
        ("sample_id", pa.string()),
        ("cluster", pa.string()),
        ("source", pa.string()),
        ("policy_step", pa.int64()),  # step of the policy that wrote the answers; null where unknown
        ("known_margin", pa.float64()),  # the row's own margin; null where it has none
        ("chosen", pa.float64()),
        ("rejected", pa.float64()),
        ("margin", pa.float64()),  # chosen - rejected
        ("chosen_tokens", pa.int64()),
        ("rejected_tokens", pa.int64()),
    ]
)


@dataclass(frozen=True)
class PairItem:
    """One pair. `row` has the messages of prompt, chosen and rejected, and tools."""

    sample_id: str
    cluster: str
    row: dict[str, Any]
    source: str
    policy_step: int | None = None
    margin: float | None = None


@dataclass(frozen=True)
class PairTask:
    """A benchmark of pairs with its items, in file order; see benchmarks.Task for the fingerprint."""

    name: str
    benchmark: Benchmark
    items: tuple[PairItem, ...]
    fingerprint: str


class Given(NamedTuple):
    """Token ids to be scored: log-likelihoods from position `start` on, a reward at the end."""

    ids: list[int]
    start: int


class Side(NamedTuple):
    """One answer of a pair as it is put to the model. `problem` says why it cannot be scored."""

    sequence: Given
    text: str
    problem: str = ""

    @property
    def answer_tokens(self) -> int:
        return len(self.sequence.ids) - self.sequence.start


class Asked(NamedTuple):
    """A pair as it is put to the model: its prompt's text and length in tokens, and both sides."""

    prompt: str
    prompt_tokens: int
    sides: tuple[Side, Side]

    @property
    def problem(self) -> str:
        return next((side.problem for side in self.sides if side.problem), "")


def load_pairs(catalog: Catalog, name: str) -> PairTask:
    """A benchmark of kind `pairs` with its items. Raises UserError with every record that is no pair; rows with one
    side only (KTO) are left out and counted."""
    benchmark = load_benchmark(catalog, name)
    return _task(name, benchmark, data_of(catalog, name, benchmark))


def load_probe_pairs(catalog: Catalog) -> list[PairTask]:
    """The probe pairs for reward models, `catalogs/probes/reward/NAME.jsonl`, in name order; a project's own hide
    shipped ones of the same name. The chosen side is the one without what is probed."""
    paths = {path.stem: path for base in (SHIPPED, catalog.project.catalogs)
             for path in sorted((base / "probes" / "reward").glob("*.jsonl"))}  # fmt: skip
    return [_task(PROBE + name, Benchmark(data=str(path), kind="pairs", id="id"), [path])
            for name, path in sorted(paths.items())]  # fmt: skip


def _task(name: str, benchmark: Benchmark, files: list[Path]) -> PairTask:
    items: list[PairItem] = []
    problems: list[Problem] = []
    seen: Counter[str] = Counter()
    unpaired = 0
    for where, record in limited(read_records(files), benchmark.limit):
        try:
            item = _item(benchmark, record)
        except ValueError as error:
            problems.append(Problem(str(error), "mend the record, or give it prompt, chosen and rejected", where))
            continue
        unpaired += item is None
        if item is not None:
            seen[item.sample_id] += 1
            twin = benchmark.id is None and seen[item.sample_id] > 1  # the same pair again: the cluster counts it once
            items.append(replace(item, sample_id=f"{item.sample_id}-{seen[item.sample_id]}") if twin else item)
    require_items(name, [item.sample_id for item in items], problems)
    if unpaired:
        say(f"{name}: {unpaired:,} rows have one answer only and are no pairs; {len(items):,} pairs are left")
    return PairTask(name, benchmark, tuple(items), identity_of(benchmark, files))


def _item(benchmark: Benchmark, record: dict[str, Any]) -> PairItem | None:
    row = row_of(record, ("hh_rlhf", "preference"))
    if row.get("chosen") is None or row.get("rejected") is None:
        return None
    payload = {name: row.get(name) for name in ("prompt", "chosen", "rejected", "tools")}
    own = "row_id" if benchmark.id is None and record.get("row_id") else benchmark.id
    sample_id = _hash(payload) if own is None else str(field_of(record, own, "id"))
    if benchmark.cluster is not None:
        cluster = str(field_of(record, benchmark.cluster, "cluster"))
    else:
        cluster = _hash(payload["prompt"])  # pairs of one prompt are no independent evidence
    meta = _meta(record.get("meta"))
    step = record.get("policy_step", meta.get("policy_step"))
    if step is not None and (isinstance(step, bool) or not isinstance(step, int)):
        raise ValueError(f"policy_step is {step!r:.40}, not a whole number")
    source = record.get(benchmark.source, meta.get(benchmark.source))
    return PairItem(sample_id, cluster, payload, str(source) if source is not None else "all", step, row.get("margin"))


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return hash_bytes(text.encode("utf-8", "surrogatepass"))


def _meta(value: Any) -> dict[str, Any]:
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def ask(task: PairTask, asked: Prompting, *, whole: bool) -> list[Asked]:
    """The pairs as TRL 1.16 prepares them under the run's template: prompt and answer tokenised together, the answer
    being what follows their common prefix with the prompt. `whole`: for a reward model. A pair that the template
    raises on, or that needs more positions than the model has, carries the reason; nothing is ever cut."""
    from curation.rendering import Rendering

    if asked.template is None:
        raise UserError(f"{asked.checkpoint.id} has no chat template", "set 'template' in its run file")
    rendering = Rendering(asked.tokenizer, asked.template, "whole", asked.kwargs)
    rows = [item.row for item in task.items]
    config = json.loads((asked.model / "config.json").read_text())
    positions = config.get("max_position_embeddings") or config.get("n_positions") or math.inf
    found = []
    for prompt, pair in zip(rendering.render_prompts(rows), rendering.render_pairs(rows), strict=True):
        sides = []
        for side in (pair.chosen, pair.rejected):
            if side is None or pair.error:
                sides.append(Side(Given([], 0), "", f"the template raises: {pair.error}"))
                continue
            ids, start = side.ids.tolist(), int(len(side.ids) - side.mask.sum())
            sides.append(Side(Given(ids, start), side.text, _problem(len(ids), start, positions, whole)))
        found.append(Asked(prompt.text, len(pair.prompt), (sides[0], sides[1])))
    return found


def _problem(length: int, start: int, positions: float, whole: bool) -> str:
    if length > positions:
        return f"needs {length:,} tokens, the model has {int(positions):,} positions"
    if start >= length:
        return "the answer adds no token to its prompt"
    return "no token stands before the answer" if start == 0 and not whole else ""


def pair_tables(task: PairTask, asked: Sequence[Asked], values: Sequence[tuple[float, float] | None],
                ) -> tuple[pa.Table, pa.Table]:  # fmt: skip
    """(rows of schema.SCORES, rows of PAIRS), one per pair in the task's order; `values` are what was compared, None
    where a pair was not scored. Right is chosen > rejected; a tie is wrong. Raises InstrumentError where a value is no
    number in more than one of a hundred pairs, or nothing could be scored."""
    scores, pairs = [], []
    for item, put, value in zip(task.items, asked, values, strict=True):
        problem = put.problem
        if value is not None and not all(map(math.isfinite, value)):
            problem, value = "the model's score is no finite number", None
        scores.append(_score_row(task.name, item, put, value, problem))
        chosen, rejected = value if value is not None else (None, None)
        pairs.append({
            "sample_id": item.sample_id, "cluster": item.cluster, "source": item.source,
            "policy_step": item.policy_step, "known_margin": item.margin, "chosen": chosen, "rejected": rejected,
            "margin": None if chosen is None or rejected is None else chosen - rejected,
            "chosen_tokens": put.sides[0].answer_tokens, "rejected_tokens": put.sides[1].answer_tokens,
        })  # fmt: skip
    errors = [row for row in scores if row["state"] == "error"]
    failed = [row for row, put in zip(scores, asked, strict=True) if row["state"] == "error" and not put.problem]
    if len(errors) == len(scores) or len(failed) > 0.01 * len(scores):
        worst = (failed or errors)[0]
        raise InstrumentError(f"{task.name}: {len(failed or errors)} of {len(scores)} pairs are errors (first: "
                              f"{worst['sample_id']}: {worst['detail']})", "mend the cause; no score is "
                              "stored")  # fmt: skip
    order = sorted(range(len(pairs)), key=lambda index: str(pairs[index]["sample_id"]))
    return (pa.Table.from_pylist(scores, schema=schema.SCORES),
            pa.Table.from_pylist([pairs[index] for index in order], schema=PAIRS))  # fmt: skip


def _score_row(benchmark: str, item: PairItem, put: Asked, value: tuple[float, float] | None,
               problem: str) -> dict[str, Any]:  # fmt: skip
    state, answer, response = "error", None, None
    if value is not None:
        chosen, rejected = value
        state = "right" if chosen > rejected else "wrong"
        answer = "tie" if chosen == rejected else "chosen" if chosen > rejected else "rejected"
        response = f"chosen {chosen:.6g}, rejected {rejected:.6g}, margin {chosen - rejected:+.6g}"
    shown = [side.text[len(put.prompt) :] if side.text.startswith(put.prompt) else side.text for side in put.sides]
    prompt = f"{put.prompt}\n--- chosen\n{shown[0]}\n--- rejected\n{shown[1]}"
    return {
        "benchmark": benchmark, "sample_id": item.sample_id, "repeat": 0, "cluster": item.cluster, "state": state,
        "score": float(state == "right"), "answer": answer, "gold": "chosen", "response": response,
        "output_tokens": None, "prompt_tokens": put.prompt_tokens, "refused": False,
        "finish_reason": "error" if state == "error" else "stop",
        "prompt_hash": hash_bytes(prompt.encode("utf-8", "surrogatepass")), "prompt": prompt,
        "detail": problem or None,
    }  # fmt: skip


def mean_margin(pairs: pa.Table) -> float | None:
    """Mean of chosen - rejected over the pairs that were scored."""
    found = pairs["margin"].drop_null().to_pylist()
    return sum(found) / len(found) if found else None
