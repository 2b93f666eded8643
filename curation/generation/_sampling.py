"""Answers token by token, several samples of one prompt together, each drawn with its own chances."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from curation.generation import ERROR, LENGTH, STOP

Floats = npt.NDArray[np.float64]


class Written(NamedTuple):
    """Token ids of an answer without the end token, and how it ended."""

    ids: list[int]
    finish_reason: str


def write(model: Any, prompt: Sequence[int], seeds: Sequence[int | None], temperature: float, top_p: float,
          budget: int, stop_ids: Sequence[int]) -> list[Written | None]:  # fmt: skip
    """One answer for each seed, None for a None. All rows have the prompt's length and stay in the batch to the end, so
    that an answer depends on its own row and the number of rows, and not on what is drawn beside it."""
    import torch

    chances = [None if seed is None else random.Random(seed) for seed in seeds]
    ids: list[list[int]] = [[] for _ in seeds]
    ended: dict[int, str] = {}
    waited = [row for row, seed in enumerate(seeds) if seed is not None]
    given: Any = torch.tensor([list(prompt)] * len(seeds), device=model.device)
    cache: Any = None
    more = _only_last(model)
    for _ in range(budget):
        out = model(input_ids=given, past_key_values=cache, use_cache=True, **more)
        cache, logits = out.past_key_values, out.logits[:, -1].float().cpu().numpy()
        following = [stop_ids[0]] * len(seeds)
        for row in [row for row in waited if row not in ended]:
            chance = chances[row]
            assert chance is not None
            token = choose(logits[row].astype(np.float64), temperature, top_p, chance.random())
            if token is None or token in stop_ids:
                ended[row] = ERROR if token is None else STOP
            else:
                ids[row].append(token)
                following[row] = token
        if len(ended) == len(waited):
            break
        given = torch.tensor([[token] for token in following], device=model.device)
    return [Written(ids[row], ended.get(row, LENGTH)) if row in waited else None for row in range(len(seeds))]


def choose(logits: Floats, temperature: float, top_p: float, chance: float) -> int | None:
    """The token that `chance` (0 <= chance < 1) falls on among the likeliest tokens whose probabilities sum up to
    `top_p` or more (Holtzman et al. 2020, nucleus sampling), after division by `temperature`; the likeliest at 0, of
    equals the first. None where the logits are no numbers. logits float64[V]."""
    if np.isnan(logits).any() or not np.isfinite(logits.max()):
        return None
    if temperature == 0:
        return int(logits.argmax())
    weights = np.exp((logits - logits.max()) / temperature)
    shares = weights / weights.sum()
    places = np.arange(len(shares))
    if top_p < 1:  # what is less likely than this sums up to less than 1 - top_p, so it lies outside
        places = np.flatnonzero(shares >= (1 - top_p) / len(shares))
        places = places[np.argsort(-shares[places], kind="stable")]
    mass = np.cumsum(shares[places])
    if top_p < 1:
        mass = mass[: int(np.searchsorted(mass, top_p)) + 1]
    return int(places[min(int(np.searchsorted(mass, chance * mass[-1], side="right")), len(mass) - 1)])


def _only_last(model: Any) -> dict[str, int]:
    """Arguments that spare the logits of the prompt, where the model takes them."""
    import inspect

    return {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
