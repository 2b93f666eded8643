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
from trainers.comparing import differences, rows_of


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
    """The frozen rows as TRL takes them: `messages` (and `tools`), `prompt` and `completion`, or `text`."""
    import datasets

    from curation.rendering import template_messages
    from curation.rendering.render import split_completion

    def taken() -> Iterator[dict[str, Any]]:
        for row in rows_of(job):
            if row.get("messages") is None:
                yield {"text": row["text"]}
                continue
            more = {"tools": row["tools"]} if row.get("tools") else {}
            more |= {"chat_template_kwargs": job["kwargs"]} if job["kwargs"] else {}
            if job["path"] == "trl_prompt_completion":
                prompt, completion = map(template_messages, split_completion(row["messages"]))
                yield {"prompt": prompt, "completion": completion} | more
            else:
                yield {"messages": template_messages(row["messages"])} | more

    return datasets.Dataset.from_list(list(taken()))


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
