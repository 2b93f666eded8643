"""Sizes and exact parameter counts of dense decoders, from their config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from curation.errors import Problem, UserError, did_you_mean

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Family(NamedTuple):
    """How a model type differs from Llama, and the config keys that its published files leave out."""

    biased_qkv: bool = False
    reads_biases: tuple[str, ...] = ()
    norms: int = 2
    query_key_norm: bool = False
    wide_norm: bool = False
    softcap: bool = False
    defaults: Mapping[str, Any] = {}


_ATTENTION = ("attention_bias",)
FAMILIES = {
    "llama": Family(reads_biases=("attention_bias", "mlp_bias")),
    "mistral": Family(),
    "qwen2": Family(biased_qkv=True),
    "qwen3": Family(reads_biases=_ATTENTION, query_key_norm=True, defaults={"head_dim": 128}),
    "smollm3": Family(reads_biases=("attention_bias", "mlp_bias"), defaults={"tie_word_embeddings": True}),
    "gemma": Family(
        reads_biases=_ATTENTION, wide_norm=True, defaults={"head_dim": 256, "tie_word_embeddings": True}),
    "gemma2": Family(
        reads_biases=_ATTENTION, norms=4, wide_norm=True, softcap=True,
        defaults={"head_dim": 256, "tie_word_embeddings": True}),
    "gemma3_text": Family(
        reads_biases=_ATTENTION, norms=4, query_key_norm=True, wide_norm=True,
        defaults={"head_dim": 256, "tie_word_embeddings": True, "num_attention_heads": 8, "num_key_value_heads": 4,
                  "vocab_size": 262_208}),
}  # fmt: skip
_KEYS = {"layers": "num_hidden_layers", "hidden": "hidden_size", "heads": "num_attention_heads",
         "kv_heads": "num_key_value_heads", "intermediate": "intermediate_size",
         "vocabulary": "vocab_size"}  # fmt: skip


class Tensor(NamedTuple):
    """`times` parameters of one shape; `columns` is 0 for a vector."""

    rows: int
    columns: int
    times: int = 1
    embedding: bool = False

    @property
    def numel(self) -> int:
        """Elements of one of them."""
        return self.rows * max(1, self.columns)


@dataclass(frozen=True)
class Shape:
    """A dense decoder: sizes in units, `tied` where head and embedding are one tensor, `family` a key of FAMILIES."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool = False
    family: str = "llama"
    attention_bias: bool = False
    mlp_bias: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any], where: str = "config.json") -> Shape:
        """From the mapping of a config.json; a nested `text_config` is the decoder. Raises UserError with every key
        that is missing or no positive whole number, and for a model type that the formula does not cover."""
        nested = config.get("text_config")
        text = {**config, **(nested if isinstance(nested, Mapping) else {})}
        kind = str(text.get("model_type", ""))
        family = FAMILIES.get(kind)
        problems = [] if family else [_unknown(kind, where)]
        known = dict(family.defaults if family else {})
        known |= {key: value for key, value in text.items() if value is not None}
        if kind == "llama" and "num_attention_heads" in known:
            known.setdefault("num_key_value_heads", known["num_attention_heads"])
        problems += [problem for key in _KEYS.values() if (problem := _wrong(known, key, where))]
        if not problems and "head_dim" not in known:
            known["head_dim"] = known["hidden_size"] // known["num_attention_heads"]
        if "head_dim" in known and (problem := _wrong(known, "head_dim", where)):
            problems.append(problem)
        if problems or not family:
            raise UserError(problems)
        return cls(
            **{name: known[key] for name, key in _KEYS.items()}, head_dim=known["head_dim"], family=kind,
            tied=bool(known.get("tie_word_embeddings", False)),
            **{key: key in family.reads_biases and bool(known.get(key)) for key in ("attention_bias", "mlp_bias")},
        )  # fmt: skip

    @property
    def query(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head_dim

    @property
    def key(self) -> int:
        """Width of all key heads, which is that of all value heads."""
        return self.kv_heads * self.head_dim

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Input and output width of the linear maps of a layer."""
        hidden, wide = self.hidden, self.intermediate
        return {"q_proj": (hidden, self.query), "k_proj": (hidden, self.key), "v_proj": (hidden, self.key),
                "o_proj": (self.query, hidden), "gate_proj": (hidden, wide), "up_proj": (hidden, wide),
                "down_proj": (wide, hidden)}  # fmt: skip

    @property
    def linear_parameters(self) -> int:
        """Parameters of the linear maps of one layer, without biases."""
        return sum(wide * narrow for wide, narrow in self.linears.values())

    @property
    def biases(self) -> tuple[str, ...]:
        """The linear maps of a layer that have a bias."""
        query_key_value = LINEARS[:3] if FAMILIES[self.family].biased_qkv or self.attention_bias else ()
        return query_key_value + LINEARS[3 : 3 + self.attention_bias] + (LINEARS[4:] if self.mlp_bias else ())

    def tensors(self) -> list[Tensor]:
        """Every parameter tensor; the head is listed only where it is not tied."""
        family = FAMILIES[self.family]
        found = [Tensor(self.vocabulary, self.hidden, embedding=True)]
        found += [] if self.tied else [Tensor(self.vocabulary, self.hidden)]
        found += [Tensor(out, into, self.layers) for into, out in self.linears.values()]
        found += [Tensor(self.linears[name][1], 0, self.layers) for name in self.biases]
        found += [Tensor(self.head_dim, 0, 2 * self.layers)] if family.query_key_norm else []
        return [*found, Tensor(self.hidden, 0, family.norms * self.layers + 1)]

    @property
    def num_parameters(self) -> int:
        """Exact number of parameters, a tied head counted once."""
        return sum(tensor.numel * tensor.times for tensor in self.tensors())


def _unknown(kind: str, where: str) -> Problem:
    if not kind:
        return Problem("the key is missing", f"give one of {', '.join(FAMILIES)}", where, "model_type")
    return Problem(f"memory is not foreseen for '{kind}'", did_you_mean(kind, FAMILIES), where, "model_type")


def _wrong(known: Mapping[str, Any], key: str, where: str) -> Problem | None:
    if key not in known:
        return Problem("the key is missing", "take config.json from the model's repository", where, key)
    value = known[key]
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return None
    return Problem(f"{value!r} is no positive whole number", "correct it", where, key)
