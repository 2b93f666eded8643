"""The training process of trl_sft: load, prepare with TRL, compare with the audit, train, register checkpoints."""

from __future__ import annotations

import json
import os
import shutil
import sys
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
    problems = differences(trainer.train_dataset, job, tokenizer)
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

    def rows() -> Iterator[dict[str, Any]]:
        import pyarrow.parquet as pq

        from curation.rendering import template_messages

        for part in job["parts"]:
            for batch in pq.ParquetFile(part).iter_batches(1024):
                for row in batch.to_pylist():
                    if row.get("messages") is None:
                        yield {"text": row["text"]}
                    else:
                        tools = {"tools": row["tools"]} if row.get("tools") else {}
                        yield {"messages": template_messages(row["messages"])} | tools

    return datasets.Dataset.from_list(list(rows()))


def differences(prepared: Any, job: dict[str, Any], tokenizer: Any) -> list[str]:
    """What TRL prepared against the audit's fates: rows, lengths, trained tokens, id hashes; empty where all agree."""
    import numpy as np
    import pyarrow.parquet as pq
    import xxhash

    fates = pq.read_table(job["fates"]).to_pylist()
    wanted = [row for row in fates if row["fate"] != "dropped"]
    found = []
    for row in _documents(prepared):
        ids, labels = np.asarray(row["input_ids"], "<i4"), np.asarray(row["labels"])
        found.append((len(ids), int((labels != -100).sum()), xxhash.xxh3_64_intdigest(ids.tobytes())))
    if any(row["bin"] >= 0 for row in wanted):  # packed: compare what lies in the bins, whatever their order
        key = lambda item: (item[0], item[1], item[2])  # noqa: E731
        expected = sorted(((row["kept_tokens"], row["kept_trained_tokens"], row["ids_hash"]) for row in wanted
                           if row["fate"] == "whole"), key=key)  # fmt: skip
        missing = len(expected) - len(set(expected) & set(found)) if len(set(found)) == len(found) else 0
        problems = [] if len(found) == len(wanted) else [f"TRL packed {len(found)} rows, the audit {len(wanted)}"]
        return problems + ([f"{missing} whole rows of the audit are not in TRL's bins"] if missing > 0 else [])
    if len(found) != len(wanted):
        return [f"TRL prepared {len(found)} rows, the audit {len(wanted)}"]
    problems = []
    for position, (seen, row) in enumerate(zip(found, wanted, strict=True)):
        expected_lengths = (row["kept_tokens"], row["kept_trained_tokens"])
        if seen[:2] != expected_lengths:
            problems.append(f"row {row['row_id']} at {position}: TRL has {seen[0]} tokens and trains {seen[1]}, the "
                            f"audit says {expected_lengths[0]} and {expected_lengths[1]}")  # fmt: skip
        elif row["fate"] == "whole" and seen[2] != row["ids_hash"]:
            problems.append(f"row {row['row_id']} at {position}: the token ids differ from the audited ones")
    return problems[:SHOWN] + ([f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else [])


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
