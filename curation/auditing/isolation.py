"""Check P2: what packed documents see of each other, probed on TRL's own packing and collator and the model's own code.

A model of the run's class with two narrow layers and random weights reads a document B behind a document A in one
sequence, and alone. Where attention, positions or a recurrent state reach over the border, the logits of B differ.
Isolation hangs on three things at once: positions that start anew, no attention mask, no cache.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from curation.auditing.checks import Check, Level
from curation.auditing.mirrors import Mirror
from curation.auditing.mirrors.trl_sft import TRLSFT
from curation.auditing.setting import Setting
from curation.auditing.setting_checks import installed_version

LIMIT = 1e-4  # of a difference in logits, fp32
VISIBLE = 1e-3  # what a probe must be able to see: the difference where nothing keeps documents apart
LAYERS, MOST_LAYERS = 2, 4
MOST_PARAMETERS, MOST_CHARS = 5_000_000, 200
A_TOKENS, B_TOKENS = 11, 9
BY_POSITIONS = ("packing_strategy: bfd (or neat_packing), which resets positions; for plain pre-training text waive "
                "this check with that reason")  # fmt: skip

# Sizes of the small model, and counts of which it has at most so many; everything else is the run's. Heads share keys
# as the run's do: all their own, all one, or two sets.
HEADS = 4
SIZES = {
    "hidden_size": 64, "num_attention_heads": HEADS, "head_dim": 16, "intermediate_size": 128, "vocab_size": 128,
    "moe_intermediate_size": 64, "shared_expert_intermediate_size": 64, "vocab_size_per_layer_input": 128,
    "hidden_size_per_layer_input": 16, "q_lora_rank": 32, "kv_lora_rank": 32, "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16, "qk_head_dim": 32, "v_head_dim": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_key_head_dim": 16, "linear_value_head_dim": 16, "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16,
    "n_group": 1, "topk_group": 1, "num_kv_shared_layers": 0,
}  # fmt: skip
AT_MOST = {
    "num_key_value_heads": 2, "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
}  # fmt: skip
WORDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
# What says where weights come from and how they are stored, and what belongs to single layers or to other modalities.
LEFT_OUT = (
    "model_type", "architectures", "auto_map", "quantization_config", "dtype", "torch_dtype", "transformers_version",
    "_name_or_path", "attn_implementation", "_attn_implementation", "per_layer_config", "vision_config", "text_config",
    "audio_config", *WORDS,
)  # fmt: skip


@dataclass(frozen=True)
class Probe:
    """What one probe saw: `difference`, the largest |logit of B behind A - logit of B alone| over B's tokens and the
    `attentions` (fp32); `unguarded`, the same where nothing keeps the two apart, the smallest over the attentions."""

    difference: float
    unguarded: float
    architecture: str
    attentions: tuple[str, ...]


def documents_apart(mirror: Mirror, setting: Setting) -> Check | None:
    """P2; None where no sequence of the trainer holds two documents. Probed for TRL where it is installed and the
    model's config.json is known, else what the mirror knows, with the reason why it was not probed."""
    if not mirror.packs and not getattr(mirror, "padding_free", False):
        return None
    if not isinstance(mirror, TRLSFT):
        return _known(mirror, "only TRL's collator is")
    missing = [name for name in ("trl", "torch") if importlib.util.find_spec(name) is None]
    if missing:
        return _known(mirror, f"{' and '.join(missing)} not installed")
    config = setting.config
    if not config.get("model_type"):
        return _known(mirror, "the model's config.json is not known here")
    strategy = mirror.packing_strategy if mirror.packing else None
    found = _outcome(json.dumps(config, sort_keys=True), strategy, mirror.padding_free)
    if isinstance(found, str):
        return _known(mirror, found, tried=True)
    return _judged(mirror, found, _attention(setting))


def _attention(setting: Setting) -> str | None:
    """The attention implementation that the options ask for; None where that is left to the model."""
    more = setting.options.get("model_init_kwargs")
    given = setting.options | (more if isinstance(more, dict) else {})
    return None if given.get("attn_implementation") is None else str(given["attn_implementation"])


def _known(mirror: Mirror, why: str, *, tried: bool = False) -> Check:
    """P2 without a probe: what the mirror knows of the attention over documents."""
    if mirror.isolates:
        return Check("P2", "documents apart", "warn" if tried else "ok", 0.0, LIMIT, "positions start anew with every "
                     f"document, and no mask is given (not probed: {why})",
                     "see how the model attends to packed positions, or turn packing off" if tried else "")  # fmt: skip
    return Check("P2", "documents apart", "error", 1.0, LIMIT, "documents of one sequence attend to each other "
                 f"(not probed: {why})", BY_POSITIONS)  # fmt: skip


def _judged(mirror: Mirror, probe: Probe, asked: str | None) -> Check:
    """P2 of what was seen, where the run asks for an attention or None. One that needs a GPU (FlashAttention reads the
    borders from the batch itself) is not run here, so that what others show of such a run only warns."""
    unseen = asked is not None and asked not in probe.attentions
    said = (f"{probe.architecture} with random weights, {' and '.join(probe.attentions)} attention in fp32, TRL "
            f"{installed_version('trl')}; {probe.unguarded:.2g} where nothing keeps documents apart"
            f"{f'; {asked} is not run here' if unseen else ''}")  # fmt: skip
    if probe.difference <= LIMIT:
        seen = f"documents of one sequence do not attend to each other: logits differ by {probe.difference:.1e}"
        return Check("P2", "documents apart", "ok", probe.difference, LIMIT, f"{seen} ({said})")
    seen = f"documents of one sequence attend to each other: logits change by {probe.difference:.2g} behind another"
    step = f"turn packing off: {probe.architecture} does not keep packed documents apart in this attention"
    grade: Level = "warn" if unseen and mirror.isolates else "error"
    return Check("P2", "documents apart", grade, probe.difference, LIMIT, f"{seen} ({said})",
                 step if mirror.isolates else BY_POSITIONS)  # fmt: skip


def probe(model_config: Mapping[str, Any], packing_strategy: str | None, padding_free: bool) -> Probe:
    """Whether a document depends on the one before it under TRL's packing (`bfd`, `bfd_split`, `wrapped`, or None: no
    packing, each document an example), for a config.json (flat, with `model_type`). Takes a tenth of a second once TRL
    is imported; global random state, threads and files stay as they are. Raises ValueError, with the reason, where the
    class cannot be built so small, called so, or would show no difference whatever is done."""
    found = _outcome(json.dumps(model_config, sort_keys=True), packing_strategy, padding_free)
    if isinstance(found, str):
        raise ValueError(found)
    return found


@functools.lru_cache(maxsize=64)
def _outcome(config: str, packing_strategy: str | None, padding_free: bool) -> Probe | str:
    """The probe of a canonical config.json, or why there is none: once a process, whose versions do not change."""
    try:
        with _undisturbed():
            return _probed(json.loads(config), packing_strategy, padding_free)
    except Exception as error:  # whatever a model class of any age raises on sizes that nobody foresaw
        return f"{type(error).__name__}: {' '.join(str(error).split())[:MOST_CHARS]}"


def _probed(given: dict[str, Any], packing_strategy: str | None, padding_free: bool) -> Probe:
    documents = words(A_TOKENS, B_TOKENS)
    batch = collated(documents, packing_strategy, padding_free)
    joined = _tensor([[token for document in documents for token in document]])
    models = {"eager": small_model(given, "eager")}
    if getattr(models["eager"], "_supports_sdpa", False):
        models["sdpa"] = small_model(given, "sdpa")
    differences = [probe_batch(model, batch, documents[1:]) for model in models.values()]
    unguarded = [probe_batch(model, {"input_ids": joined}, documents[1:]) for model in models.values()]
    name = type(models["eager"]).__name__
    if not all(map(math.isfinite, differences + unguarded)):
        raise ValueError(f"a small {name} gives logits that are no numbers")
    if min(unguarded) < VISIBLE:
        raise ValueError(f"a small {name} shows no difference even where nothing keeps documents apart")
    return Probe(max(differences), min(unguarded), name, tuple(models))


def probe_batch(model: Any, batch: Mapping[str, Any], documents: Sequence[Sequence[int]]) -> float:
    """The largest |logit in the batch - logit alone| over the tokens of documents (token ids, each whole and once in
    the rows of `batch["input_ids"]`), the model called as SFTTrainer.compute_loss does: without labels, without a cache
    unless the batch names `use_cache`. Raises ValueError for a document that is not there."""
    import torch

    differences = []
    with torch.no_grad():
        packed = model(**({"use_cache": False} | {name: value for name, value in batch.items() if name != "labels"}))
        for document in documents:
            row, first = _place(batch["input_ids"].tolist(), list(document))
            alone = model(input_ids=_tensor([list(document)]), use_cache=False).logits[0]
            differences.append((packed.logits[row, first : first + len(document)] - alone).abs().max())
    return float(torch.stack(differences).max())


def _place(rows: list[list[int]], document: list[int]) -> tuple[int, int]:
    """(row, first position) of a document."""
    for number, row in enumerate(rows):
        for first in range(len(row) - len(document) + 1):
            if row[first : first + len(document)] == document:
                return number, first
    raise ValueError(f"the batch does not hold the document {document} in one piece")


def words(*lengths: int) -> list[list[int]]:
    """Documents of these lengths; no token occurs twice in them."""
    import torch

    drawn = torch.randperm(SIZES["vocab_size"] - len(WORDS), generator=torch.Generator().manual_seed(0))
    return [part.tolist() for part in (drawn + len(WORDS))[: sum(lengths)].split(list(lengths))]


def collated(documents: Sequence[Sequence[int]], packing_strategy: str | None, padding_free: bool) -> dict[str, Any]:
    """The batch that TRL's SFTTrainer makes of documents, all in one: its own packing into one sequence, and its own
    collator with the arguments that SFTTrainer.__init__ gives it."""
    from datasets import Dataset
    from trl import pack_dataset
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    ids = [list(document) for document in documents]
    # Streamed: a map over a dataset in memory would draw a progress bar and leave its thread.
    rows = Dataset.from_dict({"input_ids": ids, "labels": ids}).to_iterable_dataset()
    if packing_strategy is not None:
        rows = pack_dataset(rows, sum(map(len, ids)), packing_strategy)
    flat = padding_free or packing_strategy in ("bfd", "bfd_split")
    batch: dict[str, Any] = DataCollatorForLanguageModeling(WORDS["pad_token_id"], padding_free=flat)(list(rows))
    return batch


def small_model(given: Mapping[str, Any], attention: str) -> Any:
    """A random model of the class of a config.json, narrow and of few layers, in fp32 and ready to evaluate. Raises
    ValueError where it would not be small; whatever the class raises passes through."""
    import torch
    from transformers import AutoModelForCausalLM

    def make() -> Any:
        config = small_config(given)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attention)

    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in make().parameters())
    if size > MOST_PARAMETERS:
        raise ValueError(f"a small {given['model_type']} still has {size:,} parameters")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would seed other devices too
        return make().eval()


def small_config(given: Mapping[str, Any]) -> Any:
    """The transformers configuration of a config.json with small sizes: one layer of each kind that it has (kinds
    differ in some list with an entry per layer, such as `layer_types`), at least LAYERS, at most MOST_LAYERS. Raises
    ValueError for a model type that the installed transformers does not know."""
    from transformers import CONFIG_MAPPING, AutoConfig

    kind = given["model_type"]
    if kind not in CONFIG_MAPPING:
        raise ValueError(f"transformers {installed_version('transformers')} has no model type '{kind}'")
    whole = AutoConfig.for_model(kind, **{name: value for name, value in given.items() if name not in LEFT_OUT})
    values = {name: value for name, value in whole.to_dict().items() if name not in LEFT_OUT}
    lists = {name: value for name, value in values.items()
             if isinstance(value, list) and len(value) == whole.num_hidden_layers}  # fmt: skip
    layers = _one_of_each(list(zip(*lists.values(), strict=True)))
    small: dict[str, Any] = {name: [SIZES.get(name, value[index]) for index in layers] for name, value in lists.items()}
    small |= _sizes(values, whole.attribute_map) | WORDS
    if isinstance(values.get("rope_parameters"), dict):
        small["rope_parameters"] = _narrowed(values["rope_parameters"])
    return AutoConfig.for_model(kind, **(values | small | {"num_hidden_layers": len(layers)}))


def _sizes(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, int]:
    """The small sizes of what a configuration has, under its own `names` (`n_embd` for `hidden_size`)."""
    given = {name: values.get(names.get(name, name)) for name in (*SIZES, *AT_MOST)}
    known = {name: value for name, value in given.items() if isinstance(value, int)}
    found = {name: SIZES.get(name) or min(value, AT_MOST.get(name, 0)) for name, value in known.items()}
    if known.get("num_key_value_heads") == known.get("num_attention_heads"):
        found["num_key_value_heads"] = HEADS
    return {names.get(name, name): found[name] for name in known}


def _one_of_each(kinds: list[tuple[Any, ...]]) -> list[int]:
    """The first layer of each kind, in order; the last of them again where they are too few."""
    firsts = {str(kind): index for index, kind in reversed(list(enumerate(kinds)))}
    layers = sorted(firsts.values())[:MOST_LAYERS] or [0]
    return layers + layers[-1:] * (LAYERS - len(layers))


def _narrowed(rope: dict[str, Any]) -> dict[str, Any]:
    """RoPE parameters whose lists, of one value per rotated pair of a head's dimensions, fit the small head."""
    pairs = int(SIZES["head_dim"] * rope.get("partial_rotary_factor", 1.0)) // 2
    found = {name: _narrowed(value) if isinstance(value, dict) else value for name, value in rope.items()}
    found |= {name: rope[name][:pairs] for name in ("short_factor", "long_factor") if name in rope}
    if "mrope_section" in rope:
        third = pairs // 3
        found["mrope_section"] = [pairs - 2 * third, third, third]
    return found


def _tensor(ids: list[list[int]]) -> Any:
    import torch

    return torch.tensor(ids)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Python's random state as it was (importing transformers draws from it), one thread (the same sums on every
    machine, and no pool that stays), and no warnings of libraries, which speak of a training that does not take
    place."""
    state = random.getstate()
    import torch
    from transformers.utils import logging

    threads, verbosity = torch.get_num_threads(), logging.get_verbosity()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        logging.set_verbosity(verbosity)
        random.setstate(state)
