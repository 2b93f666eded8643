"""Generator `transformers_local`: a checkpoint in this process, with the template of its run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from importlib.metadata import version as installed
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from curation.errors import UserError
from curation.generation import ERROR, Answer, Ask, Generator, Sampling, Writer, _local, stable

if TYPE_CHECKING:
    from curation.catalog import Catalog
    from curation.generation._local import Local
    from curation.rendering import Rendered

RENDERED_TOGETHER = 64


class TransformersLocal(Generator):
    """Weights of a `checkpoint` (`RUN@STEP`, a tag, or `RUN` for its last) or of a `model` (a folder, or a hub id
    `ID@REVISION`), safetensors alone, and no code of theirs. `template` is by default that of the checkpoint's run,
    else the tokenizer's own.

    Answers to one prompt at one temperature are written in blocks of `batch_size` samples, 0..3, 4..7 and so on, a
    block always that wide however many are wanted: the bytes of an answer depend neither on `n` nor on where a run was
    killed, but on `batch_size`, as on dtype and device (and for a mixture of experts on the answers beside it).
    Temperature 0 has blocks of one. Special tokens other than the end stay in the text. For many prompts, serve the
    checkpoint and use `openai_endpoint`."""

    version: ClassVar[int] = 2
    depends_on: ClassVar[tuple[str, ...]] = ("curation/generation/_local.py", "curation/generation/_sampling.py")
    checkpoint: str | None = None
    model: str | None = None
    tokenizer: str | None = None
    template: str | None = None
    template_kwargs: dict[str, Any] | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    batch_size: int = Field(default=4, ge=1, le=1024)

    @model_validator(mode="after")
    def _names_one(self) -> TransformersLocal:
        if (self.checkpoint is None) == (self.model is None):
            raise ValueError("needs either 'checkpoint' or 'model'; for example: checkpoint: RUN@STEP")
        return self

    @field_validator("template_kwargs")
    @classmethod
    def _is_stable(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if value is None else stable(value)

    def _find(self, catalog: Catalog) -> Local:
        return _local.find(catalog, self.checkpoint, self.model, self.tokenizer, self.template, self.template_kwargs)

    def writer(self, catalog: Catalog) -> Writer:
        if find_spec("torch") is None:
            raise UserError("torch is not installed", 'install it: pip install "kedge[train]"', key=self.plugin_name())
        local = self._find(catalog)
        more = {"device": self.device, "dtype": self.dtype, "batch_size": self.batch_size}
        software = ", ".join(f"{name} {installed(name)}" for name in ("transformers", "torch"))
        return Writer(local.name, local.weights, _local.conditions(catalog, local) | more, software)

    def generate(self, catalog: Catalog, asks: Sequence[Ask], sampling: Sampling) -> Iterator[list[Answer]]:
        local = self._find(catalog)
        how = _local.rendering(catalog, local)
        stops = _local.stop_ids(how, local)
        with _deterministic(self.device):
            model = self._load(local)
            blocks = _blocks(asks, self.batch_size)
            for number in range(0, len(blocks), RENDERED_TOGETHER):
                some = blocks[number : number + RENDERED_TOGETHER]
                for prompt, block in zip(_local.render(how, [block[0] for block in some]), some, strict=True):
                    yield self._answers(model, how.tokenizer.hf, prompt, block, sampling, stops, local.positions)

    def _answers(self, model: Any, hf: Any, prompt: Rendered, block: list[Ask], sampling: Sampling,
                 stops: Sequence[int], positions: int | None) -> list[Answer]:  # fmt: skip
        """The answers of one block, whose asks have prompt and temperature in common."""
        import torch

        from curation.generation._sampling import write

        room = sampling.max_tokens if positions is None else min(sampling.max_tokens, positions - len(prompt.ids))
        if prompt.error or room < 1:
            why = f"the template raises: {prompt.error}" if prompt.error else \
                  f"the prompt has {len(prompt.ids):,} tokens, the model {positions:,} positions"  # fmt: skip
            return [Answer(ask.id, None, "", ERROR, detail=why) for ask in block]
        temperature = block[0].temperature
        width = self.batch_size if temperature else 1
        seeds: list[int | None] = [None] * width
        for ask in block:
            seeds[ask.sample % width] = ask.seed
        try:
            with torch.inference_mode():
                written = write(model, prompt.ids.tolist(), seeds, temperature, sampling.top_p, room, stops)
        except torch.OutOfMemoryError as error:
            raise UserError("the device has no memory left", "lower batch_size or max_tokens",
                            key=self.plugin_name()) from error  # fmt: skip
        found = []
        for ask in block:
            ids, reason = written[ask.sample % width] or ([], ERROR)
            text = hf.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            detail = "the model's logits are no numbers" if reason == ERROR else ""
            found.append(Answer(ask.id, {"role": "assistant", "content": text}, text, reason, len(prompt.ids), len(ids),
                                detail))  # fmt: skip
        return found

    def _load(self, local: Local) -> Any:
        """The model in evaluation mode, an adapter merged in float32. Raises UserError where it cannot be loaded."""
        import torch
        import transformers

        if self.device == "cuda" and not torch.cuda.is_available():
            raise UserError("there is no CUDA device", "set device: cpu", key=self.plugin_name())
        dtype = getattr(torch, self.dtype)
        transformers.utils.logging.disable_progress_bar()  # it would be drawn into kedge's own
        try:
            model: Any = transformers.AutoModelForCausalLM.from_pretrained(
                local.base or local.folder, dtype=torch.float32 if local.base else dtype, use_safetensors=True,
                trust_remote_code=False, local_files_only=True)  # fmt: skip
            if local.base is not None:
                model = _merged(model, local.folder, local.tokenizer).to(dtype)
            return model.to(self.device).eval()
        except torch.OutOfMemoryError as error:
            raise UserError("the device has no memory for the weights", "use another dtype or device",
                            key=self.plugin_name()) from error  # fmt: skip
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            what = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"the model cannot be loaded: {what:.300}", "name a causal language model that the "
                            "installed transformers knows", where=str(local.folder)) from error  # fmt: skip


def _merged(model: Any, adapter: Path, tokenizer: str) -> Any:
    """Base and adapter as one; tokens that were added for the adapter get their rows first."""
    from peft import PeftModel
    from transformers import AutoTokenizer

    vocabulary = len(AutoTokenizer.from_pretrained(tokenizer))
    if vocabulary > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(vocabulary)
    return PeftModel.from_pretrained(model, adapter).merge_and_unload()


def _blocks(asks: Sequence[Ask], width: int) -> list[list[Ask]]:
    """Asks that are written together: of one prompt, one temperature, and one block of samples."""
    found: dict[tuple[str, float, int], list[Ask]] = {}
    for ask in asks:
        place = ask.sample // (width if ask.temperature else 1)
        found.setdefault((ask.prompt_key, ask.temperature, place), []).append(ask)
    return list(found.values())


@contextlib.contextmanager
def _deterministic(device: str) -> Iterator[None]:
    """Let torch take kernels whose results repeat while answers are written."""
    import torch

    from curation.launching import compute_deterministically

    if device == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first kernel starts
    before, filling = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    compute_deterministically()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)
        torch.utils.deterministic.fill_uninitialized_memory = filling  # type: ignore[attr-defined]
