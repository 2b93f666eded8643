"""What training, scoring and generating cost, by formula: floating-point operations and seconds of devices.

A forward pass of a decoder with N parameters in matrix products takes 2 N operations a token, and 2 x layers x width of
attention x length more for a causal sequence of `length` tokens (Kaplan et al. 2020, arXiv 2001.08361, table 1). A
backward pass takes twice that, so training takes 6 N; recomputing every layer adds a forward pass: 8 N (Korthikanti et
al. 2022, arXiv 2205.05198, section 5). With adapters the gradients of the frozen weights are not needed: 4 N and 6 N.
Decoding reads all weights once a step of a batch, and the keys and values of every sequence in it (Pope et al. 2022,
arXiv 2211.05102, section 2.1): its rate follows the memory's bandwidth until the batch is large.
"""

from __future__ import annotations

from dataclasses import dataclass

from curation.auditing.model_shape import Shape

BYTES = 2  # of a weight or cached value in bf16
SEQUENCES = 256  # of one engine at a time: vLLM's max_num_seqs
ROOM = 0.9  # of a device's memory that an engine takes


@dataclass(frozen=True)
class Size:
    """A dense decoder as its cost sees it: `parameters` in matrix products (the head once, the embedding not),
    `attention` = layers x width of all query heads, `cache_bytes` of the keys and values of a token."""

    parameters: float
    attention: float = 0.0
    cache_bytes: float = 0.0

    @classmethod
    def of(cls, shape: Shape) -> Size:
        """From a model's shape."""
        return cls(shape.layers * shape.linear_parameters + shape.vocabulary * shape.hidden,
                   shape.layers * shape.query, 2 * BYTES * shape.layers * shape.key)  # fmt: skip

    def forward(self, tokens: float, length: float) -> float:
        """Operations of a forward pass over `tokens` in causal sequences of `length` tokens."""
        return tokens * (2 * self.parameters + 2 * self.attention * length)


@dataclass(frozen=True)
class Device:
    """An accelerator: dense bf16 operations a second, bytes of memory, bytes a second, price."""

    bf16_flops: float
    memory_bytes: float
    bandwidth_bytes: float
    dollars_per_hour: float


@dataclass(frozen=True)
class Decoding:
    """Shares (0..1) that generation reaches; see catalogs/hardware.yaml."""

    bandwidth_utilisation: float
    compute_utilisation: float
    cache_share: float
    busy_share: float


@dataclass(frozen=True)
class Work:
    """What a run asks of its devices: operations of updates and of scoring passes, generated tokens, and the mean
    context in tokens at which they are generated."""

    training: float
    scoring: float = 0.0
    generated_tokens: float = 0.0
    context: float = 0.0

    def __add__(self, other: Work) -> Work:
        tokens = self.generated_tokens + other.generated_tokens
        context = (self.generated_tokens * self.context + other.generated_tokens * other.context) / max(tokens, 1)
        return Work(self.training + other.training, self.scoring + other.scoring, tokens, context)


def training_flops(size: Size, tokens: float, length: float, *, recomputed: bool = False, lora: bool = False) -> float:
    """Operations of forward and backward passes over `tokens`."""
    return (2 + (not lora) + recomputed) * size.forward(tokens, length)


def preference_work(size: Size, tokens: float, length: float, *, reference: Size | None, recomputed: bool = False,
                    lora: bool = False) -> Work:  # fmt: skip
    """Training on both sides of pairs, `tokens` in all, and the reference's forward pass over them."""
    scoring = 0.0 if reference is None else reference.forward(tokens, length)
    return Work(training_flops(size, tokens, length, recomputed=recomputed, lora=lora), scoring)


def rl_work(
    size: Size, samples: float, prompt: float, completion: float, *, scoring_passes: int = 0, critic: bool = False,
    recomputed: bool = False, lora: bool = False, updates: float = 1.0,
) -> Work:  # fmt: skip
    """Reinforcement learning on `samples` completions of `completion` tokens behind prompts of `prompt`: `updates`
    passes of training (with a critic of the same size twice the work), `scoring_passes` forward passes
    (log-probabilities before the update, reference; the critic's values are added), and generation."""
    tokens, length = samples * (prompt + completion), prompt + completion
    training = updates * training_flops(size, tokens, length, recomputed=recomputed, lora=lora)
    scoring = (scoring_passes + critic) * size.forward(tokens, length)
    return Work(training * (1 + critic), scoring, samples * completion, prompt + completion / 2)


def tokens_per_second(size: Size, context: float, device: Device, decoding: Decoding) -> float:
    """Tokens that one device of an engine generates in a second, at a mean `context` in tokens. The engine has as few
    devices (a power of two) as leave `cache_share` of its memory to keys and values."""
    weights = BYTES * size.parameters
    num_devices = 1
    while num_devices < 1024 and weights > (1 - decoding.cache_share) * ROOM * device.memory_bytes * num_devices:
        num_devices *= 2
    cached = max(1.0, size.cache_bytes * context)
    room = ROOM * device.memory_bytes * num_devices - weights
    batch = max(1.0, min(SEQUENCES, room / cached))
    reading = (weights + batch * cached) / (num_devices * device.bandwidth_bytes * decoding.bandwidth_utilisation)
    computing = batch * size.forward(1, context) / (num_devices * device.bf16_flops * decoding.compute_utilisation)
    return decoding.busy_share * batch / max(reading, computing) / num_devices


def device_hours(work: Work, size: Size, device: Device, utilisation: float, decoding: Decoding) -> float:
    """Hours of one device that the work takes, whatever the number of devices that share it."""
    seconds = (work.training + work.scoring) / (device.bf16_flops * utilisation)
    if work.generated_tokens:
        seconds += work.generated_tokens / tokens_per_second(size, work.context, device, decoding)
    return seconds / 3600


def utilisation_of(work: Work, seconds: float, device: Device, num_devices: int = 1) -> float:
    """The share of the peak that work without generation reached in measured seconds: what to write into a project's
    hardware.yaml."""
    return (work.training + work.scoring) / (seconds * device.bf16_flops * num_devices)
