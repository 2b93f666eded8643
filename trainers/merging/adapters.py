"""Merging an adapter onto its base with PEFT's own merge, verified by logits before anything is published."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curation import checkpoints
from curation.errors import InstrumentError, Problem, UserError
from trainers.likeness import group_of, read
from trainers.merging.linear import copy_beside, publishing, write_record
from trainers.merging.tensor_stream import Tensor, tensors_of

SEQUENCES, LENGTH = 4, 32
# Unmerged, a layer's input meets W and the adapter apart and every product is rounded; merged, W + BA was rounded once.
# Both errors are of the order of the dtype's epsilon in every layer and independent of each other, so that they grow
# slowly with depth: 1 epsilon was measured over 2 layers and 2 over 24, in bfloat16 and float16, for LoRA and DoRA. An
# adapter that is lost or merged twice differs by its own effect.
TOLERATED_EPSILONS = 8
LEAST_TOLERANCE = 1e-5  # float32: sums of thousands of products in another order (6 epsilons were measured)


@dataclass(frozen=True)
class Agreement:
    """How far the merged model is from base and adapter: root mean square of the difference of logits over that of the
    logits themselves, mean per position removed (0: equal). `adapter_effect` is the same figure between base with
    adapter and base alone: an effect below the tolerance is not told apart from none by this."""

    difference: float
    tolerance: float
    adapter_effect: float
    dtype: str


def merge_adapter(
    base: Path, adapter: Path, target: Path, *, base_hash: str | None = None
) -> tuple[str, str, Agreement]:  # fmt: skip
    """Merge an adapter onto its base on the CPU in the base's dtype and write the model to `target`, whole or not at
    all; returns kind, hash and how well the logits agree.

    `base_hash` is the weights hash of the base that the adapter was trained on. Tokenizer, template and generation
    settings are the adapter's own where it has them, else the base's. Memory is that of the model. Raises UserError
    where the base is another one (by hash, by the folder that the adapter's configuration names, or by shapes), and
    InstrumentError where the logits of the model that was written do not agree with those of base and adapter."""
    digest = check_base(base, adapter, base_hash)
    size = sum(item.num_bytes for item in tensors_of(base).values())
    with publishing(target, size) as draft:
        expected, alone, dtype = _merged(base, adapter, draft)
        agreement = _agreement(expected, alone, _logits(_load(draft, adapter), adapter), dtype)
        if not agreement.difference <= agreement.tolerance:
            raise InstrumentError(
                f"the merged model's logits differ by {agreement.difference:.2g} from those of base and adapter, where "
                f"rounding in {dtype} explains {agreement.tolerance:.2g}",
                "nothing was written; check the versions of peft and transformers, and report it",
            )
        for folder in (base, adapter):
            _copy(folder, draft)
        own = checkpoints.weights_of(adapter)[1]
        write_record(draft, {"method": "adapter", "base": digest, "adapter": own} | asdict(agreement))
    return *checkpoints.weights_of(target), agreement


def check_base(base: Path, adapter: Path, base_hash: str | None) -> str:
    """The weights hash of the base. Raises UserError with every reason why the adapter is not this base's."""
    kinds = checkpoints.weights_of(base), checkpoints.check_weights(adapter)
    (kind, digest), adapter_kind = kinds
    if kind != "full" or adapter_kind != "adapter":
        wrong = (base, "is an adapter, no base") if kind != "full" else (adapter, "has full weights: nothing to merge")
        raise UserError(wrong[1], "merge an adapter onto full weights", where=str(wrong[0]))
    problems = []
    if base_hash is not None and base_hash != digest:
        problems.append(Problem(f"is another base than the adapter's: its weights are {digest[:12]}, the adapter was "
                                f"trained on {base_hash[:12]}", "put the right weights there, or register the adapter "
                                "again with the right --base", where=str(base)))  # fmt: skip
    named = Path(str(read(adapter, "adapter_config.json").get("base_model_name_or_path") or ""))
    if base_hash is None and named.is_absolute() and named.is_dir() and checkpoints.weights_of(named)[1] != digest:
        problems.append(Problem(f"was trained on {named}, which has other weights than this base",
                                "merge it onto that one", where=str(adapter)))  # fmt: skip
    problems += [Problem(what, "merge it onto the base that it was trained on", where=str(adapter))
                 for what in _misfits(tensors_of(base), tensors_of(adapter))]  # fmt: skip
    if problems:
        raise UserError(problems)
    return digest


def _misfits(base: dict[str, Tensor], adapter: dict[str, Tensor]) -> list[str]:
    """Low-rank matrices whose inputs or outputs are not those of the base's weight, or that meet none. Weights that
    take [in, out] (Conv1D) fit either way round; what is no matrix pair is left to PEFT."""
    stems = {name.removeprefix("base_model.model.").removesuffix(".lora_A.weight"): name
             for name in adapter if name.endswith(".lora_A.weight")}  # fmt: skip
    found = []
    for stem, name in stems.items():
        weight = base.get(f"{stem}.weight")
        other = adapter.get(name.replace(".lora_A.", ".lora_B."))
        if other is None:
            found.append(f"has {name} without its lora_B")
        elif weight is None:
            if stem.rpartition(".")[2] not in ("lm_head", "score"):  # heads may be tied, or new
                found.append(f"has {stem}, which the base lacks")
        elif len(weight.shape) == 2:
            sides = (other.shape[0], adapter[name].shape[1])
            if sides not in (weight.shape, weight.shape[::-1]):
                found.append(f"has {stem} for a weight of {list(sides)}, the base's is {list(weight.shape)}")
    return found


def _load(folder: Path, adapter: Path) -> Any:
    """The model of a folder on the CPU in its own dtype, of the kind that the adapter is for."""
    import transformers

    classifier = read(adapter, "adapter_config.json").get("task_type") == "SEQ_CLS"
    more: dict[str, Any] = {}
    if classifier:
        heads = [item.shape[0] for name, item in tensors_of(adapter).items() if name.endswith("score.weight")]
        more = {"num_labels": heads[0]} if heads else {}
    transformers.utils.logging.disable_progress_bar()
    name = "AutoModelForSequenceClassification" if classifier else "AutoModelForCausalLM"
    return getattr(transformers, name).from_pretrained(folder, dtype="auto", use_safetensors=True, **more).eval()


def _merged(base: Path, adapter: Path, draft: Path) -> tuple[Any, Any, str]:
    """Merge and save to `draft`; (logits of base and adapter unmerged, logits of the base alone, dtype)."""
    from peft import PeftModel

    model = _load(base, adapter)
    _untie(model, adapter)
    dtype = str(model.dtype).removeprefix("torch.")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = PeftModel.from_pretrained(model, adapter).eval()
        except (RuntimeError, ValueError) as error:
            raise UserError(f"does not fit the base: {(str(error).strip().splitlines() or ['no message'])[-1].strip()}",
                            "merge it onto the base that it was trained on", where=str(adapter)) from error  # fmt: skip
    missing = [str(item.message) for item in caught if "missing adapter keys" in str(item.message)]
    if missing:
        raise UserError(f"lacks weights that its configuration asks for: {missing[0][:300]}", "copy or save it again",
                        where=str(adapter))  # fmt: skip
    expected = _logits(model, adapter)
    with model.disable_adapter():
        alone = _logits(model, adapter)
    merged = model.merge_and_unload(safe_merge=True)
    merged.save_pretrained(draft)
    return expected, alone, dtype


def _untie(model: Any, adapter: Path) -> None:
    """Give the head weights of its own where it shares the embedding's and the adapter moves one of the two alone:
    merged into shared weights the move would reach both (github.com/huggingface/peft/issues/2777)."""
    import torch

    settings = read(adapter, "adapter_config.json")
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or head.weight is not embedding.weight or settings.get("ensure_weight_tying"):
        return
    moved = {group_of(name) for name in tensors_of(adapter) if ".lora_" in name}
    if len(moved & {"embed", "head"}) == 1:
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
        model.config.tie_word_embeddings = False


def _logits(model: Any, adapter: Path) -> list[Any]:
    """Logits (float32) of a few sequences of random tokens, one at a time: the same for a vocabulary and adapter. The
    tokens that an adapter trains are among them."""
    import torch

    size = int(model.config.get_text_config().vocab_size)
    draws = np.random.Generator(np.random.PCG64(0)).integers(0, size, (SEQUENCES, LENGTH)).tolist()
    trained = read(adapter, "adapter_config.json").get("trainable_token_indices") or []
    indices = [item for group in trained.values() for item in group] if isinstance(trained, dict) else trained
    if indices:
        draws.append([int(item) for item in indices[:LENGTH]])
    with torch.inference_mode():
        return [model(input_ids=torch.tensor([row])).logits.float() for row in draws]


def _agreement(expected: list[Any], alone: list[Any], found: list[Any], dtype: str) -> Agreement:
    import torch

    tolerance = max(LEAST_TOLERANCE, TOLERATED_EPSILONS * torch.finfo(getattr(torch, dtype)).eps)
    return Agreement(_distance(expected, found), tolerance, _distance(expected, alone), dtype)


def _distance(expected: list[Any], found: list[Any]) -> float:
    """Root mean square of the differences over that of the logits about their mean; a constant is no difference
    between distributions over many tokens. Infinite where the shapes differ or a number is not finite."""
    import torch

    if any(one.shape != other.shape for one, other in zip(expected, found, strict=True)):
        return float("inf")
    one, other = (
        torch.cat([item.flatten(0, -2) for item in expected]),
        torch.cat([item.flatten(0, -2) for item in found]),
    )
    if one.shape[-1] > 1:
        one, other = one - one.mean(-1, keepdim=True), other - other.mean(-1, keepdim=True)
    scale = one.square().mean().sqrt()
    ratio = float((one - other).square().mean().sqrt() / scale) if scale else float((one - other).abs().max())
    return ratio if np.isfinite(ratio) else float("inf")


def _copy(source: Path, draft: Path) -> None:
    """What lies beside the weights of a folder; the configuration that the merge saved stays."""
    config = (draft / "config.json").read_bytes()
    copy_beside(source, draft)
    (draft / "config.json").write_bytes(config)
