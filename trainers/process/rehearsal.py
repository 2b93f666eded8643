"""The last act of a rehearsal: what three steps took, whether the checkpoint is the model, whether answers end."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from trainers.process import Job

NUM_ANSWERS = 5
NEW_TOKENS = 256  # where the run has no limit of its own
TOLERANCE = 1e-5


def clock() -> Any:
    """A callback that notes when each optimiser step ended; `times` are seconds of each step."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.times: list[float] = []
            self.began = 0.0

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.times.append(time.perf_counter() - self.began)

    return Clock()


def report(trainer: Any, times: list[float], job: Job) -> None:
    """Write rehearsal.json: seconds of each step, peak memory of this process in bytes (of the device where there is
    one), whether the saved checkpoint loads and gives the same logits, and how its answers end."""
    import torch

    gpu = torch.cuda.is_available()
    peak = torch.cuda.max_memory_allocated() if gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024)  # fmt: skip
    logs = [line for line in trainer.state.log_history if "loss" in line]
    found: dict[str, Any] = {"seconds": times, "peak_memory_bytes": int(peak), "device": "cuda" if gpu else "cpu",
                             "losses": [line["loss"] for line in logs], "num_processes": trainer.args.world_size,
                             "num_rows": len(trainer.train_dataset)}  # fmt: skip
    folder = Path(trainer.args.output_dir) / f"checkpoint-{trainer.state.global_step}"
    model = reloaded(folder, job)
    found["checkpoint_difference"] = difference(trainer.accelerator.unwrap_model(trainer.model), model, job)
    found["checkpoint_same"] = found["checkpoint_difference"] <= TOLERANCE
    found["answers"] = [] if job["trainer"] == "trl_reward" else answers(model, job)
    Path(job["rehearsal"]["report"]).write_text(json.dumps(found, indent=1, sort_keys=True))


def reloaded(folder: Path, job: Job) -> Any:
    """The model of the saved checkpoint, loaded as a later stage would."""
    import transformers

    cls = transformers.AutoModelForSequenceClassification if job["trainer"] == "trl_reward" else \
        transformers.AutoModelForCausalLM  # fmt: skip
    more: dict[str, Any] = {"num_labels": 1} if job["trainer"] == "trl_reward" else {}
    if not (folder / "adapter_config.json").is_file():
        return cls.from_pretrained(folder, dtype=job["dtype"], use_safetensors=True, **more).eval()
    from peft import PeftModel

    base = cls.from_pretrained(job["model"], dtype=job["dtype"], use_safetensors=True, **more)
    return PeftModel.from_pretrained(base, folder).eval()


def difference(trained: Any, loaded: Any, job: Job) -> float:
    """The largest difference of logits between the model in memory and the one that was saved, as a share of the
    largest logit, on the ids of the first prompt."""
    import torch

    ids = prompts(job)[:1]
    trained.eval()
    with torch.inference_mode():
        one = trained(input_ids=ids[0].to(trained.device)).logits.float().cpu()
        other = loaded(input_ids=ids[0]).logits.float()
    return float((one - other).abs().max() / max(1e-9, float(one.abs().max())))


def prompts(job: Job) -> list[Any]:
    """The ids of up to five prompts, of held-out rows where there are any, each [1, T]."""
    import itertools

    from curation.rendering import template_messages
    from trainers.process.models import tokenizer
    from trainers.process.rows import frozen

    loaded = tokenizer(job)
    found = []
    for row in itertools.islice(frozen(job["held_out"] or job["parts"]), NUM_ANSWERS):
        turns = row.get("prompt") or (row.get("messages") or [])[:-1]
        if turns:
            chat = loaded.apply_chat_template(template_messages(turns), add_generation_prompt=True, return_tensors="pt",
                                              return_dict=True, **job["kwargs"])  # fmt: skip
            found.append(chat["input_ids"])
        else:
            found.append(
                loaded(str(row.get("text") or row["messages"][0]["content"])[:200], return_tensors="pt")["input_ids"]
            )
    return found


def answers(model: Any, job: Job) -> list[dict[str, Any]]:
    """Greedy answers to five prompts: text, tokens, and whether they ended by themselves."""
    import torch

    from trainers.process.models import tokenizer

    loaded = tokenizer(job)
    stops = model.generation_config.eos_token_id
    ends = set(stops if isinstance(stops, list) else [stops]) | {loaded.eos_token_id}
    limits = (job["config"].get(name) for name in ("max_completion_length", "data.max_response_length"))
    room = next((int(limit) for limit in limits if limit), NEW_TOKENS)
    found = []
    for ids in prompts(job):
        with torch.inference_mode():
            out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=room,
                                 do_sample=False, pad_token_id=loaded.pad_token_id)[0, ids.shape[1] :]  # fmt: skip
        found.append({"text": loaded.decode(out), "tokens": len(out), "ended": int(out[-1]) in ends})
    return found
