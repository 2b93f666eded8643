"""The process that scores answers: `python -m evals.scoring_process JOB.json`. Log-likelihoods of answers under a
causal model, or the rewards of a reward model.

A job holds `model`, `adapter` (or null), `tokenizer`, `reward`, `device`, `dtype`, `batch_size`, `pad_id` and `sets`:
folders with `sequences.parquet` (ids, start), ordered by length. Of every SEQUENCES_PER_PART sequences one part is
written whole, `part-NNNNN.json`, so that a killed process goes on with the next; batches never cross parts, so that a
score does not depend on where it was killed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curation.launching import compute_deterministically, die_with_command
from curation.outputs import write_atomically

SEQUENCES_PER_PART = 64
BATCH_TOKENS = 16_384  # tokens of a padded batch at most, unless one sequence is longer
Job = dict[str, Any]


def main(path: Path) -> None:
    """Write the parts that are missing of every set of the job."""
    die_with_command()
    job: Job = json.loads(path.read_text())
    open_parts = [(folder, number, rows) for folder in map(Path, job["sets"]) for number, rows in _parts(folder)
                  if not part_of(folder, number).exists()]  # fmt: skip
    if not open_parts:
        return
    import torch

    compute_deterministically()
    model = load(job)
    with torch.inference_mode():
        for folder, number, rows in open_parts:
            values = [value for batch in _batches(rows, job["batch_size"]) for value in _scores(model, batch, job)]
            write_atomically(part_of(folder, number), json.dumps(values).encode())


def part_of(folder: Path, number: int) -> Path:
    """The part of a set with its scores; sums in nats, or rewards."""
    return folder / f"part-{number:05d}.json"


def _parts(folder: Path) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    import pyarrow.parquet as pq

    rows = pq.read_table(folder / "sequences.parquet").to_pylist()
    for number, first in enumerate(range(0, len(rows), SEQUENCES_PER_PART)):
        yield number, rows[first : first + SEQUENCES_PER_PART]


def _batches(rows: list[dict[str, Any]], batch_size: int) -> Iterator[list[dict[str, Any]]]:
    """Rows in order, so many that neither the batch size nor BATCH_TOKENS is exceeded (the last is the longest)."""
    batch: list[dict[str, Any]] = []
    for row in rows:
        if batch and (len(batch) == batch_size or (len(batch) + 1) * len(row["ids"]) > BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(row)
    yield batch


def load(job: Job) -> Any:
    """The model of a job in evaluation mode, adapters merged in float32. Raises SystemExit with the reason where a
    reward model has not exactly one output."""
    import torch
    import transformers

    name = "AutoModelForSequenceClassification" if job["reward"] else "AutoModelForCausalLM"
    dtype = getattr(torch, job["dtype"])
    more: dict[str, Any] = {"num_labels": 1} if job["reward"] and job["adapter"] is not None else {}
    model: Any = getattr(transformers, name).from_pretrained(
        job["model"], dtype=torch.float32 if job["adapter"] else dtype, use_safetensors=True, **more)  # fmt: skip
    if job["adapter"] is not None:
        from peft import PeftModel

        vocabulary = len(transformers.AutoTokenizer.from_pretrained(job["tokenizer"]))
        if vocabulary > model.get_input_embeddings().num_embeddings:  # tokens that were added for the adapter
            model.resize_token_embeddings(vocabulary)
        model = PeftModel.from_pretrained(model, job["adapter"]).merge_and_unload().to(dtype)
    if job["reward"]:
        if model.config.num_labels != 1:
            raise SystemExit(f"Error: the model has {model.config.num_labels} outputs, a reward model has one")
        config = model.config.get_text_config()
        if config.pad_token_id is None:  # where a batch ends for the head; a checkpoint of TRL names it
            config.pad_token_id = job["pad_id"]
    return model.to(job["device"]).eval()


def _scores(model: Any, batch: list[dict[str, Any]], job: Job) -> list[float]:
    import torch

    pad = model.config.get_text_config().pad_token_id if job["reward"] else None
    pad = job["pad_id"] if pad is None else pad
    width = max(len(row["ids"]) for row in batch)
    ids = torch.tensor([row["ids"] + [pad] * (width - len(row["ids"])) for row in batch], device=job["device"])
    mask = torch.tensor([[1] * len(row["ids"]) + [0] * (width - len(row["ids"])) for row in batch],
                        device=job["device"])  # fmt: skip
    if job["reward"]:
        return [float(value) for value in model(input_ids=ids, attention_mask=mask).logits[:, 0].float()]
    first = min(row["start"] for row in batch) - 1  # the logits there say how likely the first answer token is
    return _log_likelihoods(_logits(model, ids, mask, width - first), ids[:, first:], [
        (row["start"] - first, len(row["ids"]) - first) for row in batch])  # fmt: skip


def _logits(model: Any, ids: Any, mask: Any, keep: int) -> Any:
    """Logits of the last `keep` positions."""
    import inspect

    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        return model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=keep).logits
    return model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, -keep:]


def _log_likelihoods(logits: Any, ids: Any, spans: list[tuple[int, int]]) -> list[float]:
    import torch

    found = []
    for row, tokens, (start, end) in zip(logits, ids, spans, strict=True):
        known = torch.log_softmax(row[start - 1 : end - 1].float(), -1)
        found.append(float(known.gather(1, tokens[start:end, None]).sum(dtype=torch.float64)))
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
