"""Memory per device of a training run of a dense decoder, by formula, and what to set before any data is cut.

Everything is in bytes on the fullest of N devices, with P parameters of which p are trained (all, or the adapters):
- weights, gradients, optimizer: the accounting of ZeRO (Rajbhandari et al., arXiv 1910.02054, section 3). AdamW in
  mixed precision is 2 P + 2 p + 12 p (fp32 master weights and two moments); stage 1 divides the optimizer, stage 2
  also the gradients, stage 3 also the weights by N.
- activations: the tensors that a layer keeps for its backward pass, counted operation by operation as Korthikanti et
  al. (arXiv 2205.05198, section 4) do for GPT, here for RMSNorm, rotary positions, grouped keys and the gated MLP as
  the transformers library runs them. Checkpointing keeps the input of every layer and recomputes one layer at a time.
- logits: with the loss in tiles (TRL >= 1.16 always; tiles of 4,096 tokens x 32,768 words) one tile, the gradient of
  the hidden states and, where the head is trained, its gradient in fp32; else 12 bytes a token and word: fp32 logits,
  log-softmax and its gradient at once.
- overhead: what the fullest moment needs besides: the recomputed layer and the temporaries of the backward pass as far
  as they exceed the logits (the two never live at once); under autocast with checkpointing the bf16 copies of all
  weights, which torch caches until the forward pass ends (18 bytes a parameter, not 16); the gradient buckets of DDP;
  the layers that ZeRO stage 3 gathers; `reserved_bytes`.

Left out: CUDA context, NCCL buffers and fragmentation (the margin of a preset stands for them), DeepSpeed's buckets,
temporaries of the optimizer step (activations are gone by then), dropout, offloading, tensor, context and pipeline
parallelism, generation (a colocated vLLM: `reserved_bytes`), vision towers, mixtures of experts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal, get_args

from curation.auditing.model_shape import FAMILIES, LINEARS, Shape, Tensor
from curation.errors import Problem, UserError, did_you_mean

TILE_TOKENS, TILE_WORDS = 4_096, 32_768
NF4_BYTES = 0.5 + 4 / 64  # 4 bits a weight and an fp32 scale a block of 64 (QLoRA, arXiv 2305.14314), not nested

Precision = Literal["autocast", "mixed", "bf16", "fp32"]
Optimizer = Literal["adamw", "adamw_8bit", "adafactor", "sgd"]
Attention = Literal["flash", "sdpa", "eager"]
Reference = Literal["none", "same", "sharded", "precomputed", "adapter_off"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a step is trained. `micro_batch` examples a device (per_device_train_batch_size) of `sequences` sequences
    (1; 2 for preference pairs; 1 for GRPO, whose batch counts completions) of `length` tokens, padding included.

    precision: autocast = fp32 weights under bf16 autocast (TRL's default), mixed = bf16 weights with fp32 master
    weights (DeepSpeed), bf16 = bf16 weights, gradients and moments, fp32. attention: flash = no mask (FlashAttention,
    packed rows or a batch of one), sdpa = a padded batch, which keeps a mask a layer and repeats keys and values,
    eager = the score matrix. quantized = 4-bit base (QLoRA). reference: same = whole on each device, sharded over the
    devices (TRL under ZeRO stage 3), precomputed, adapter_off (the base without its adapter). fused_layers: Liger's
    RMSNorm and gated MLP, by their source, not measured. `accumulation` costs nothing and is only handed on. Raises
    UserError with every value that is out of range or contradicts another."""

    length: int
    micro_batch: int = 1
    accumulation: int = 1
    sequences: int = 1
    precision: Precision = "autocast"
    optimizer: Optimizer = "adamw"
    zero: int = 0
    num_devices: int = 1
    lora_rank: int = 0
    lora_targets: tuple[str, ...] = LINEARS
    quantized: bool = False
    checkpointing: bool = True
    attention: Attention = "sdpa"
    fused_logits: bool = True
    fused_layers: bool = False
    reference: Reference = "none"
    reserved_bytes: int = 0

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise UserError(problems)

    def _problems(self) -> Iterator[Problem]:
        for name in ("length", "micro_batch", "accumulation", "sequences", "num_devices"):
            if getattr(self, name) < 1:
                yield Problem(f"{getattr(self, name)} is less than 1", "give a positive number", key=name)
        for name in ("lora_rank", "reserved_bytes"):
            if getattr(self, name) < 0:
                yield Problem(f"{getattr(self, name)} is negative", "give 0 or more", key=name)
        for name, kind in (("precision", Precision), ("optimizer", Optimizer), ("attention", Attention),
                           ("reference", Reference)):  # fmt: skip
            if getattr(self, name) not in get_args(kind):
                yield Problem(f"'{getattr(self, name)}' is unknown", did_you_mean(getattr(self, name), get_args(kind)),
                              key=name)  # fmt: skip
        if self.zero not in range(4):
            yield Problem(f"{self.zero} is no stage of ZeRO", "give 0, 1, 2 or 3", key="zero")
        for name in self.lora_targets:
            if name not in LINEARS:
                yield Problem(f"'{name}' is no linear map of a layer", did_you_mean(name, LINEARS), key="lora_targets")
        if not self.lora_rank and self.quantized:
            yield Problem("a 4-bit base cannot be trained itself", "give lora_rank", key="quantized")
        if not self.lora_rank and self.reference == "adapter_off":
            yield Problem("there is no adapter to switch off", "give lora_rank", key="reference")

    @property
    def tokens(self) -> int:
        """Tokens in one forward pass of one device, padding included."""
        return self.micro_batch * self.sequences * self.length

    @property
    def weight_bytes(self) -> int:
        """Bytes of a weight as it is kept on the device, 4-bit bases aside; also of the residual stream."""
        return 4 if self.precision in ("autocast", "fp32") else 2

    @property
    def compute_bytes(self) -> int:
        """Bytes of a value inside a layer."""
        return 4 if self.precision == "fp32" else 2

    def shard(self, amount: float, stage: int) -> int:
        """The part of `amount` bytes on one device, where ZeRO divides it from `stage` on; rounded up."""
        return -int(-amount // (self.num_devices if self.zero >= stage else 1))


@dataclass(frozen=True)
class Memory:
    """Bytes on the fullest device; `total` is their sum, the parts are told in the head of this module."""

    weights: int
    gradients: int
    optimizer: int
    reference: int
    activations: int
    logits: int
    overhead: int

    @property
    def total(self) -> int:
        return sum(getattr(self, part.name) for part in fields(self))


def estimate(shape: Shape, setting: Setting) -> Memory:
    """Memory of one step with gradients accumulated from the steps before (the fullest moment of the backward pass)."""
    adapters = _adapters(shape, setting)
    trained = adapters or shape.tensors()
    width = _adapter_bytes(setting) if adapters else setting.weight_bytes
    num_trained = _numel(trained)
    whole = _base_bytes(shape, setting) + (num_trained * width if adapters else 0)
    weights, gradients = setting.shard(whole, 3), setting.shard(num_trained * width, 2)
    reference = _base_bytes(shape, setting) if setting.reference in ("same", "sharded") else 0
    logits = _logits(shape, setting)
    backward = _temporaries(shape, setting) + (_layer(shape, setting) if setting.checkpointing else 0)
    overhead = setting.reserved_bytes + max(0, backward - logits, _cached_copies(shape, setting))
    overhead += gradients if setting.zero == 0 and setting.num_devices > 1 else 0
    if setting.zero == 3:
        gathered = (2 * shape.linear_parameters + shape.vocabulary * shape.hidden) * setting.weight_bytes
        overhead += min(int(whole) - weights, gathered)
    return Memory(
        weights=weights, gradients=gradients, optimizer=setting.shard(_optimizer(trained, width, setting), 1),
        reference=-int(-reference // (setting.num_devices if setting.reference == "sharded" else 1)),
        activations=_kept(shape, setting), logits=logits, overhead=overhead,
    )  # fmt: skip


def _numel(tensors: list[Tensor]) -> int:
    return sum(tensor.numel * tensor.times for tensor in tensors)


def _adapters(shape: Shape, setting: Setting) -> list[Tensor]:
    """The A (rank x input) and B (output x rank) of every adapted linear map; none without LoRA."""
    if not setting.lora_rank:
        return []
    pairs = [shape.linears[name] for name in dict.fromkeys(setting.lora_targets)]
    return [Tensor(*sides, shape.layers) for into, out in pairs
            for sides in ((setting.lora_rank, into), (out, setting.lora_rank))]  # fmt: skip


def _adapter_bytes(setting: Setting) -> int:
    """peft keeps adapters in fp32; TRL casts them to bf16 on a 4-bit base, under ZeRO stage 3 to the base's type."""
    half = setting.quantized or setting.precision == "mixed" or (setting.zero == 3 and setting.precision == "bf16")
    return 2 if half else 4


def _base_bytes(shape: Shape, setting: Setting) -> int:
    linear = shape.layers * shape.linear_parameters if setting.quantized else 0
    return int(linear * NF4_BYTES) + (shape.num_parameters - linear) * setting.weight_bytes


def _optimizer(tensors: list[Tensor], width: int, setting: Setting) -> int:
    """Master weights and states before sharding. torch's AdamW keeps moments in the type of the weights it updates;
    bitsandbytes keeps two bytes and two fp32 scales a block of 256, but fp32 moments for tensors below 4,096 elements
    and, by the Trainer's wish, for embeddings; Adafactor keeps row and column sums. ZeRO flattens the parameters, so
    that there is neither row, column nor embedding for these two."""
    if setting.zero:
        tensors = [Tensor(_numel(tensors), 0)]
    states = sum(_states(tensor, width, setting) * tensor.times for tensor in tensors)
    return states + (4 * _numel(tensors) if setting.precision == "mixed" else 0)


def _states(tensor: Tensor, width: int, setting: Setting) -> int:
    if setting.optimizer == "adamw":
        return 2 * (4 if setting.precision == "mixed" else width) * tensor.numel
    if setting.optimizer == "adafactor":
        return 4 * (tensor.rows + tensor.columns)
    if setting.optimizer == "adamw_8bit":
        exact = tensor.embedding or tensor.numel < 4_096
        return 8 * tensor.numel if exact else 2 * tensor.numel + 8 * -(-tensor.numel // 256)
    return 0


def _attention(shape: Shape, setting: Setting) -> int:
    """Bytes a token that attention keeps: q, k, v, output, and log-sum-exp or mask or scores."""
    family, wide = FAMILIES[shape.family], setting.compute_bytes
    keys = shape.key if setting.attention == "flash" else shape.query
    kept = wide * (2 * shape.query + 2 * keys)
    if setting.attention == "eager":
        scores = 4 + (wide if wide == 2 else 0) + (wide if family.softcap else 0)
        kept += scores * shape.heads * setting.length
    else:
        kept += 4 * shape.heads + (wide * setting.length if setting.attention == "sdpa" else 0)
    if family.query_key_norm:
        normed = 0 if setting.lora_rank else 4 if family.wide_norm else wide
        kept += (4 + normed) * (shape.query + shape.key) + 4 * (shape.heads + shape.kv_heads)
    return kept


def _norm(shape: Shape, setting: Setting) -> int:
    """Bytes a token of one RMSNorm: its input in fp32, the inverse root, and the normed input where it is trained."""
    if setting.fused_layers:
        return setting.weight_bytes * shape.hidden + 4
    wide = setting.weight_bytes == 4 or FAMILIES[shape.family].wide_norm
    return 4 * shape.hidden + 4 + (0 if setting.lora_rank else (4 if wide else 2) * shape.hidden)


def _inputs(shape: Shape, setting: Setting) -> int:
    """Bytes a token of what the linear maps keep of their inputs. Trained maps share an input, but under autocast each
    makes its own copy; an adapter keeps a copy of its own input and its output of rank width."""
    wide = setting.compute_bytes
    if not setting.lora_rank:
        copies = 5 if setting.precision == "autocast" else 2
        return wide * (copies * shape.hidden + shape.intermediate)
    targets = set(setting.lora_targets)
    ranks = wide * setting.lora_rank * len(targets)
    if wide == 2:
        return ranks + wide * sum(shape.linears[name][0] for name in targets)
    shared = sum(bool(targets & set(group)) for group in (LINEARS[:3], LINEARS[4:6]))
    return ranks + wide * (shared * shape.hidden + shape.intermediate * ("down_proj" in targets))


def _layer(shape: Shape, setting: Setting) -> int:
    """Bytes that one layer keeps for its backward pass."""
    wide, norms = setting.compute_bytes, FAMILIES[shape.family].norms
    gated = (2 if setting.fused_layers else 3) * wide * shape.intermediate
    token = norms * _norm(shape, setting) + _attention(shape, setting) + gated + _inputs(shape, setting)
    copies = 2 * shape.linear_parameters if setting.precision == "autocast" and not setting.quantized else 0
    if setting.lora_rank and wide == 2:
        copies += 2 * sum(tensor.numel for tensor in _adapters(shape, setting))
    return token * setting.tokens + copies


def _cached_copies(shape: Shape, setting: Setting) -> int:
    """Bytes of the weights in bf16 that autocast holds at the end of the forward pass beside checkpointed layers
    (without checkpointing the layers keep them)."""
    if setting.precision != "autocast" or not setting.checkpointing or setting.lora_rank:
        return 0
    return 2 * shape.layers * shape.linear_parameters


def _kept(shape: Shape, setting: Setting) -> int:
    """Bytes between the forward and the backward pass: all layers, or their inputs and the mask they share, the last
    norm, the rotary positions and the token ids."""
    last = (_norm(shape, setting) + 8) * setting.tokens + 2 * shape.head_dim * setting.weight_bytes * setting.length
    if setting.checkpointing:
        mask = {"flash": 0, "sdpa": 1, "eager": setting.weight_bytes}[setting.attention] * setting.length
        return last + (shape.layers * setting.weight_bytes * shape.hidden + mask) * setting.tokens
    return last + shape.layers * _layer(shape, setting)


def _logits(shape: Shape, setting: Setting) -> int:
    """Bytes at the fullest moment of the loss, the head's kept input included."""
    words, hidden, tokens = shape.vocabulary, shape.hidden, setting.tokens
    kept = setting.weight_bytes * hidden * tokens
    copy = 2 * hidden if setting.precision == "autocast" else 0
    if not setting.fused_logits:
        return kept + 12 * words * tokens + copy * words
    tile = setting.compute_bytes * min(tokens, TILE_TOKENS) * min(words, TILE_WORDS) + copy * min(words, TILE_WORDS)
    head = 0 if setting.lora_rank else (4 + (2 if setting.weight_bytes == 2 else 0)) * words * hidden
    return kept + (4 * hidden + 64) * tokens + tile + head


def _temporaries(shape: Shape, setting: Setting) -> int:
    """Bytes of the backward pass at its fullest, measured as an upper bound over shapes: two gradients of MLP width or
    the last norm in fp32, with adapters one MLP width more (peft casts to fp32), and one weight gradient (or, with a
    4-bit base, one weight brought back to bf16)."""
    adapted = setting.lora_rank and setting.compute_bytes == 2
    token = max(2 * shape.intermediate, 9 * shape.hidden) + (shape.intermediate if adapted else 0)
    return setting.compute_bytes * (token * setting.tokens + shape.hidden * shape.intermediate)
