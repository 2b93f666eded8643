"""What the mirrors of TRL 1.16 share: pairs and prompts, options, and why a trainer stops."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curation.auditing.fates import CUT, DROPPED, WHOLE, Fates
from curation.auditing.mirrors import Mirror
from curation.measures.pair_anatomy import complete

VERSIONS = ">=1.16,<1.17"
# Options that recipes still have and no configuration of TRL 1.16 (or transformers 5 below it) takes.
GONE = {
    "max_seq_length": "max_length", "tokenizer": "the run's tokenizer", "group_by_length": "train_sampling_strategy: "
    "group_by_length", "warmup_ratio": "warmup_steps, which is a share where it is below 1", "evaluation_strategy":
    "eval_strategy", "per_gpu_train_batch_size": "per_device_train_batch_size", "per_gpu_eval_batch_size":
    "per_device_eval_batch_size", "adafactor": "optim: adafactor", "use_liger": "use_liger_kernel", "use_liger_loss":
    "use_liger_kernel", "torchdynamo": "torch_compile_backend", "fsdp_min_num_params": "fsdp_config",
    "fsdp_transformer_layer_cls_to_wrap": "fsdp_config", "logging_dir": "report_to; kedge keeps a log of every run",
    "no_cuda": "nothing: kedge takes the CPU where there is no accelerator", "overwrite_output_dir": "nothing: kedge "
    "decides where a run lies", "save_safetensors": "nothing: weights are always saved so", "dataset_batch_size":
    "nothing", "fp16_backend": "nothing", "half_precision_backend": "nothing", "use_mps_device": "nothing",
    "jit_mode_eval": "nothing", "past_index": "nothing", "ray_scope": "nothing",
}  # fmt: skip
GONE_PROMPTS = GONE | {"max_prompt_length": "a rule on the length of prompts: TRL passes every prompt as it is",
                       "wandb_log_unique_prompts": "log_unique_prompts"} | dict.fromkeys(
    ("max_seq_length", "max_length", "response_length", "max_new_tokens"), "max_completion_length")  # fmt: skip
GONE_GROUPS = GONE_PROMPTS | {"rloo_k": "num_generations", "kl_coef": "beta", "cliprange": "epsilon", "num_ppo_epochs":
                              "num_iterations", "missing_eos_penalty": "the reward length"}  # fmt: skip
GONE_PAIRS = GONE | {"max_prompt_length": "max_length (TRL 1.x cuts prompt and answer together)",
                     "max_completion_length": "max_length", "label_pad_token_id": "nothing", "padding_value": "nothing",
                     "is_encoder_decoder": "nothing", "generate_during_eval": "nothing"}  # fmt: skip


def trl_options(name: str) -> tuple[tuple[str, str], ...]:
    """The files that list every option of one of TRL's configurations (`sft`, `dpo`, ...)."""
    return (
        ("trl", f"trainer/{name}_config.py"),
        ("trl", "trainer/base_config.py"),
        ("transformers", "training_args.py"),
    )


class PairMirror(Mirror):
    """A trainer of preference rows, whose sides are rendered over their prompt."""

    stages: ClassVar[tuple[str, ...]] = ("preference",)
    package: ClassVar[str] = "trl"
    versions: ClassVar[str] = VERSIONS
    dead_options: ClassVar[dict[str, str]] = GONE_PAIRS
    only_at: ClassVar[dict[str, tuple[Any, ...]]] = {"dataset_num_proc": (None, 1)}
    own_options: ClassVar[frozenset[str]] = frozenset({"dtype", "lora"})

    def rendering_path(self, stage: str, columns: list[str]) -> str:
        return "trl_prompt_completion"

    def refuses(self, anatomy: pa.Table) -> list[str]:
        missing = anatomy.num_rows - complete(anatomy)
        lacking = [f"{missing:,} rows lack their chosen or rejected side (they suit KTO)"] if missing else []
        return lacking + raising(anatomy)


class PromptMirror(Mirror):
    """A trainer that generates: prompts are passed as they are, whatever their length; completions have a limit."""

    stages: ClassVar[tuple[str, ...]] = ("rlvr",)
    limits: ClassVar[str] = "vllm_max_model_length"
    rewarded: ClassVar[bool] = True  # whether a reward of groups of completions is what trains
    package: ClassVar[str] = "trl"
    versions: ClassVar[str] = VERSIONS
    dead_options: ClassVar[dict[str, str]] = GONE_PROMPTS
    only_at: ClassVar[dict[str, tuple[Any, ...]]] = {"dataset_num_proc": (None, 1)}
    own_options: ClassVar[frozenset[str]] = frozenset({"dtype", "lora"})

    max_completion_length: int | None = Field(default=512, ge=1)
    vllm_max_model_length: int | None = Field(default=None, ge=1)
    mask_truncated_completions: bool = False

    @property
    def response_length(self) -> int | None:
        """Tokens that a completion may have."""
        return self.max_completion_length

    def rendering_path(self, stage: str, columns: list[str]) -> str:
        return "whole"

    def refuses(self, anatomy: pa.Table) -> list[str]:
        return raising(anatomy)

    def fates(self, anatomy: pa.Table) -> Fates:
        tokens = anatomy["tokens"].to_numpy().astype(np.int64)
        return Fates.prefixes(np.full(len(tokens), WHOLE), tokens, np.zeros(len(tokens), np.int64))


def right_cut(tokens: np.ndarray, prompt: np.ndarray, limit: int | None, dropped: np.ndarray) -> Fates:
    """Sequences [M] that keep their first `limit` tokens and train what follows the prompt."""
    kept = tokens.copy() if limit is None else np.minimum(tokens, limit)
    kept[dropped] = 0
    fate = np.where(dropped, DROPPED, np.where(kept < tokens, CUT, WHOLE))
    return Fates.prefixes(fate, kept, np.clip(kept - prompt, 0, None))


def raising(anatomy: pa.Table) -> list[str]:
    """Why a trainer stops: rows on which the template raises."""
    count = pc.sum(pc.is_valid(anatomy["render_error"])).as_py() or 0
    first = next((text for text in anatomy["render_error"].to_pylist() if text), "") if count else ""
    return [f"the template raises on {count:,} rows, and TRL with it ({first})"] if count else []
