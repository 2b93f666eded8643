"""Models and tokenizers of a training process; weights are safetensors alone."""

from __future__ import annotations

from typing import Any

from trainers.process import Job


def tokenizer(job: Job) -> Any:
    """The job's tokenizer under the audited template."""
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(job["tokenizer"], trust_remote_code=job["trust_remote_code"])
    if job["template"] is not None:
        found.chat_template = job["template"]
    return found


def causal(job: Job) -> Any:
    """The policy: the weights that the stage starts from."""
    return _load("AutoModelForCausalLM", job, job["model"])


def scoring(job: Job) -> Any:
    """The same weights under a new head of one output, the reward; the pad token is the tokenizer's."""
    model = _load("AutoModelForSequenceClassification", job, job["model"], num_labels=1)
    model.config.pad_token_id = tokenizer(job).pad_token_id
    return model


def other(job: Job, folder: str) -> Any:
    """A reference or teacher."""
    return _load("AutoModelForCausalLM", job, folder)


def _load(cls: str, job: Job, folder: str, **more: Any) -> Any:
    import transformers

    quantized = (job["lora"] or {}).get("bits")
    if quantized:
        import torch

        more["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16)  # fmt: skip
    more |= job["config"].get("model_init_kwargs") or {}
    return getattr(transformers, cls).from_pretrained(folder, dtype=job["dtype"], use_safetensors=True,
                                                      trust_remote_code=job["trust_remote_code"], **more)  # fmt: skip


def lora(job: Job) -> Any:
    """The run's peft.LoraConfig, None for full training."""
    if job["lora"] is None:
        return None
    from peft import LoraConfig

    return LoraConfig(**lora_arguments(job))


def lora_arguments(job: Job) -> dict[str, Any]:
    """The arguments of peft.LoraConfig under the run's `lora`; `bits` is said of the base."""
    task = "SEQ_CLS" if job["trainer"] == "trl_reward" else "CAUSAL_LM"
    return {"task_type": task} | {name: value for name, value in job["lora"].items() if name != "bits"}
