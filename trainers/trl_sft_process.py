"""The training process of trl_sft: load, prepare with TRL, compare with the audit, train, register checkpoints."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curation.errors import EXIT_INSTRUMENT
from curation.launching import die_with_command

SHOWN = 5


def main(job_path: str) -> int:
    """Run one job file. Exit code 4 where TRL's rows are not those of the audit."""
    job: dict[str, Any] = json.loads(Path(job_path).read_text())
    die_with_command()
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    torch.use_deterministic_algorithms(True, warn_only=True)
    gpu = torch.cuda.is_available()
    tokenizer = AutoTokenizer.from_pretrained(job["tokenizer"], trust_remote_code=job["trust_remote_code"])
    if job["template"] is not None:
        tokenizer.chat_template = job["template"]
    model = AutoModelForCausalLM.from_pretrained(
        job["model"], dtype=job["dtype"], use_safetensors=True, trust_remote_code=job["trust_remote_code"])  # fmt: skip
    if job["adapter"] is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, job["adapter"]).merge_and_unload()
    device = {} if gpu else {"use_cpu": True, "bf16": False}
    config = {"gradient_checkpointing": False} | job["config"] | device
    args = SFTConfig(output_dir=job["output"], report_to="none", disable_tqdm=True, save_strategy="steps", **config)
    trainer = SFTTrainer(model=model, args=args, train_dataset=dataset(job), processing_class=tokenizer,
                         peft_config=_lora(job["lora"]), callbacks=_callbacks(job))  # fmt: skip
    problems = differences(trainer.train_dataset, job)
    if problems:
        Path(job["failure"]).write_text("\n".join(problems))
        return EXIT_INSTRUMENT
    trainer.train(resume_from_checkpoint=job["resume"])
    return 0


def _lora(options: dict[str, Any] | None) -> Any:
    if options is None:
        return None
    from peft import LoraConfig

    return LoraConfig(task_type="CAUSAL_LM", **options)


def dataset(job: dict[str, Any]) -> Any:
    """The frozen rows as TRL takes them: `messages` (and `tools`) or `text`."""
    import datasets

    from curation.rendering import template_messages

    def taken() -> Iterator[dict[str, Any]]:
        for row in _rows(job):
            if row.get("messages") is None:
                yield {"text": row["text"]}
            else:
                tools = {"tools": row["tools"]} if row.get("tools") else {}
                kwargs = {"chat_template_kwargs": job["kwargs"]} if job["kwargs"] else {}
                yield {"messages": template_messages(row["messages"])} | tools | kwargs

    return datasets.Dataset.from_list(list(taken()))


def _rows(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The frozen rows in training order."""
    import pyarrow.parquet as pq

    for part in job["parts"]:
        for batch in pq.ParquetFile(part).iter_batches(1024):
            yield from batch.to_pylist()


Document = tuple[int, int, int]  # tokens, trained tokens, hash of the ids


def differences(prepared: Any, job: dict[str, Any]) -> list[str]:
    """What TRL prepared against the audit: number of rows and, row by row, length, trained tokens and the hash of the
    ids that are kept; packed rows are compared whatever bin they lie in. Empty where all agree."""
    import numpy as np

    found = []
    for row in _documents(prepared):
        labels = np.asarray(row["labels"])
        found.append((len(labels), int((labels != -100).sum()), hash_ids(row["input_ids"])))
    names, wanted = expected(job)
    if len(found) != len(wanted):
        return [f"TRL prepared {len(found)} rows, the audit {len(wanted)}"]
    if job["config"].get("packing"):
        lost, new = Counter(wanted) - Counter(found), Counter(found) - Counter(wanted)
        problems = [f"{_told(item)}: in the audit and in no bin of TRL" for item in sorted(lost)]
        problems += [f"{_told(item)}: in a bin of TRL and not in the audit" for item in sorted(new)]
    else:
        problems = [f"row {name}: TRL has {_told(seen)}, the audit {_told(item)}"
                    for name, seen, item in zip(names, found, wanted, strict=True) if seen != item]  # fmt: skip
    return problems[:SHOWN] + ([f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else [])


def _told(item: Document) -> str:
    return f"{item[0]} tokens, {item[1]} trained, ids {item[2]:016x}"


def hash_ids(ids: Any) -> int:
    """xxh3-64 of token ids as little-endian int32, as the anatomy measures it."""
    import numpy as np
    import xxhash

    return xxhash.xxh3_64_intdigest(np.asarray(ids, "<i4").tobytes())


def expected(job: dict[str, Any]) -> tuple[list[str], list[Document]]:
    """Row ids and documents that the audit says the trainer keeps, in order. The anatomy hashes whole rows, so rows
    that are cut are rendered once more for the hash of what stays."""
    import pyarrow.parquet as pq

    from curation.fingerprint import hash_bytes
    from curation.rendering import Rendering, Template, load_tokenizer

    fates = pq.read_table(job["fates"]).to_pylist()
    text = job["template"]
    template = None if text is None else Template("audited", text, hash_bytes(text.encode()))
    rendering = Rendering(load_tokenizer(None, job["tokenizer"]), template, job["path"], job["kwargs"])
    cut = {row["position"] for row in fates if row["fate"] == "cut"}
    kept: dict[int, int] = {}
    if cut:
        for position, row in enumerate(_rows(job)):
            if position in cut:
                ids = rendering.render(row, job["stage"]).ids
                kept[position] = hash_ids(ids[: fates[position]["kept_tokens"]])
    wanted = [row for row in fates if row["fate"] != "dropped"]
    return [row["row_id"] for row in wanted], [
        (row["kept_tokens"], row["kept_trained_tokens"], kept.get(row["position"], row["ids_hash"])) for row in wanted
    ]


def _documents(prepared: Any) -> Iterator[dict[str, Any]]:
    for row in prepared:
        if "seq_lengths" not in row:
            yield row
            continue
        start = 0
        for length in row["seq_lengths"]:
            yield {name: row[name][start : start + length] for name in ("input_ids", "labels")}
            start += length


def _callbacks(job: dict[str, Any]) -> list[Any]:
    from transformers import TrainerCallback

    class Recorder(TrainerCallback):  # type: ignore[misc]
        """Writes losses as JSON lines and registers every checkpoint once its files are complete."""

        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
        ) -> None:
            if state.is_world_process_zero:
                line = {"step": state.global_step, "max_steps": state.max_steps} | {
                    name: value for name, value in (logs or {}).items() if isinstance(value, int | float)}  # fmt: skip
                with Path(job["progress"]).open("a") as stream:
                    stream.write(json.dumps(line) + "\n")

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.is_world_process_zero:
                complete(Path(job["output"]) / f"checkpoint-{state.global_step}", state.global_step, job)

    return [Recorder()]


def complete(folder: Path, step: int, job: dict[str, Any]) -> None:
    """Put beside the weights what generation needs, and enter the checkpoint."""
    from curation import checkpoints
    from curation.catalog import Catalog
    from curation.config import find_project

    catalog = Catalog(find_project(Path(job["project"])))
    generation = Path(job["model"]) / "generation_config.json"
    if generation.is_file() and not (folder / generation.name).exists():
        shutil.copyfile(generation, folder / generation.name)
    kind, digest = checkpoints.weights_of(folder)
    record = job["record"] | {"step": step, "path": catalog.project.relative(folder), "weights": kind,
                              "weights_hash": digest}  # fmt: skip
    if kind == "full":
        record |= {"base_path": None, "base_hash": None}
    checkpoints.register(catalog, checkpoints.Checkpoint(**record))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
