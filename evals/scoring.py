"""Pairs scored by a checkpoint in a process of its own, and published; what a killed one finished is kept."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.catalog import Catalog, write_parquet
from curation.checkpoints import Checkpoint
from curation.fingerprint import fingerprint
from curation.launching import model_environment, run_followed
from evals.pairs import LIKELIHOOD, MEAN_LIKELIHOOD, PART, REWARD, Asked, PairTask, ask, pair_tables
from evals.prompting import Prompting
from evals.scores import scores_fingerprint, scores_folder, write_scores
from evals.scoring_process import SEQUENCES_PER_PART, part_of

VERSION = 1
SEQUENCES = pa.schema([("ids", pa.list_(pa.int64())), ("start", pa.int64())])


def is_reward_model(catalog: Catalog, checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint gives an answer one score (AutoModelForSequenceClassification, or an adapter for one)."""
    folder = checkpoint.folder(catalog)
    if checkpoint.weights == "adapter":
        return json.loads((folder / "adapter_config.json").read_bytes()).get("task_type") == "SEQ_CLS"
    names = json.loads((folder / "config.json").read_bytes()).get("architectures") or []
    return any(str(name).endswith("ForSequenceClassification") for name in names)


def pair_conditions(task: PairTask, asked: Prompting, options: dict[str, Any], reward: bool) -> dict[str, Any]:
    """The conditions under which a checkpoint scores pairs. `scored_by` says what is compared inside a pair: two
    checkpoints of which one is a reward model may be compared by how many pairs they have right, never by margins."""
    by = REWARD if reward else MEAN_LIKELIHOOD if task.benchmark.normalise else LIKELIHOOD
    return {
        "template": None if asked.template is None else asked.template.fingerprint,
        "template_kwargs": asked.kwargs, "tokenizer": asked.tokenizer.fingerprint, "harness": "pairs",
        "harness_version": f"{VERSION} (transformers {installed('transformers')})",
        "benchmark_fingerprint": task.fingerprint, "sampling": options, "max_new_tokens": None, "repeats": 1,
        "scored_by": by,
    }  # fmt: skip


def is_scored(catalog: Catalog, checkpoint: Checkpoint, task: PairTask, conditions: dict[str, Any]) -> bool:
    """Whether a checkpoint's scores of a benchmark of pairs are published."""
    return catalog.manifest(scores_folder(catalog, checkpoint, task.name, conditions)) is not None


def score_pairs(catalog: Catalog, asked: Prompting, tasks: Sequence[tuple[PairTask, dict[str, Any]]],
                advance: Callable[[int], None]) -> None:  # fmt: skip
    """Score benchmarks of pairs by one checkpoint and publish them; `advance(n)` reports scored answers. Raises
    InstrumentError where the process fails."""
    checkpoint = asked.checkpoint
    reward = tasks[0][1]["scored_by"] == REWARD
    put = [ask(task, asked, whole=reward) for task, _ in tasks]
    names = [scores_fingerprint(checkpoint, task.name, conditions)[:16] for task, conditions in tasks]
    folders = [catalog.lake / ".scoring" / name for name in names]
    with contextlib.ExitStack() as locks:
        for name in names:  # the same weights may be judged for two runs at a time
            locks.enter_context(catalog.writing("scoring", name))
        _score_all(catalog, asked, tasks, put, folders, advance)


def _score_all(catalog: Catalog, asked: Prompting, tasks: Sequence[tuple[PairTask, dict[str, Any]]],
               put: list[list[Asked]], folders: list[Path], advance: Callable[[int], None]) -> None:  # fmt: skip
    reward = tasks[0][1]["scored_by"] == REWARD
    orders = [_write_sequences(folder, pairs) for folder, pairs in zip(folders, put, strict=True)]
    if any(orders):
        job = _job(catalog, asked, reward, tasks[0][1]["sampling"], folders)
        path = folders[0] / "job.json"
        path.write_text(json.dumps(job))
        run_process(path, lambda: sum(len(list(folder.glob("part-*.json"))) for folder in folders), advance)
    for (task, conditions), pairs, folder, order in zip(tasks, put, folders, orders, strict=True):
        values = _values(folder, order, pairs, mean=conditions["scored_by"] == MEAN_LIKELIHOOD)
        scores, beside = pair_tables(task, pairs, values)
        write_scores(catalog, asked.checkpoint, task.name, scores, conditions, beside={PART: beside})
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _write_sequences(folder: Path, pairs: Sequence[Asked]) -> list[tuple[int, int]]:
    """Write what is to be scored, ordered by length, and return (pair, side) of each; parts that were scored from other
    bytes are removed."""
    order = [(number, side) for number, pair in enumerate(pairs) if not pair.problem for side in (0, 1)]
    order.sort(key=lambda place: (len(pairs[place[0]].sides[place[1]].sequence.ids), place))
    rows = [pairs[number].sides[side].sequence._asdict() for number, side in order]
    folder.mkdir(parents=True, exist_ok=True)
    digest, mark = fingerprint(rows), folder / "sequences.txt"
    if not mark.exists() or mark.read_text() != digest:
        for part in folder.glob("part-*.json"):
            part.unlink()
        write_parquet(folder / "sequences.parquet", pa.Table.from_pylist(rows, schema=SEQUENCES))
        mark.write_text(digest)
    return order


def _job(catalog: Catalog, asked: Prompting, reward: bool, options: dict[str, Any],
         folders: Sequence[Path]) -> dict[str, Any]:  # fmt: skip
    folder, base = asked.checkpoint.folder(catalog), asked.checkpoint.base_folder(catalog)
    pad = asked.tokenizer.hf.pad_token_id
    return {
        "model": str((base or folder).resolve()), "adapter": None if base is None else str(folder.resolve()),
        "tokenizer": str(asked.folder.resolve()), "reward": reward, **options,
        "pad_id": asked.stop_ids[0] if pad is None else pad, "sets": [str(item.resolve()) for item in folders],
    }  # fmt: skip


def run_process(job: Path, num_parts: Callable[[], int], advance: Callable[[int], None]) -> None:
    """Run the scoring process of a job file to its end; its log lies beside the job. Raises InstrumentError with its
    last error where it fails."""
    settings = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
                "PYTHONHASHSEED": "0", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # fmt: skip
    if json.loads(job.read_text())["device"] == "cpu":
        settings["CUDA_VISIBLE_DEVICES"] = ""
    run_followed([sys.executable, "-m", "evals.scoring_process", str(job)], job.with_name("log.txt"),
                 model_environment(settings), "scoring pairs", lambda: num_parts() * SEQUENCES_PER_PART,
                 advance)  # fmt: skip


def _values(folder: Path, order: list[tuple[int, int]], pairs: Sequence[Asked], *,
            mean: bool) -> list[tuple[float, float] | None]:  # fmt: skip
    """(chosen, rejected) of every pair, None where it was not scored."""
    scored: list[float] = []
    for number in range(-(-len(order) // SEQUENCES_PER_PART)):
        scored += json.loads(part_of(folder, number).read_text())
    sides: dict[tuple[int, int], float] = {}
    for place, value in zip(order, scored, strict=True):
        sides[place] = value / pairs[place[0]].sides[place[1]].answer_tokens if mean else value
    return [(sides[number, 0], sides[number, 1]) if (number, 0) in sides else None for number in range(len(pairs))]
