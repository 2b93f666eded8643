"""A function of the user's, in a file of the user's."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator

from curation.fingerprint import hash_file
from trainers.rewards import Reward, Sample, Score


class Function(Reward):
    """`path` is `FILE.py:NAME`, relative to the project. NAME is called in the way that its parameters tell:

    - `samples`: with all rollouts (see Sample); it returns a number or None for each
    - `solution_str`: as verl calls it, once for each rollout (data_source, solution_str, ground_truth, extra_info); it
      returns a number or a mapping with `score`
    - else as TRL calls it: prompts, completions (text), completion_ids (None) and the columns row_id, ground_truth,
      verifier, step; it returns a number or None for each.

    `options` are passed on by name. What it raises, and what is no finite number, is an outcome of its own."""

    version: ClassVar[int] = 1
    path: str
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("path")
    @classmethod
    def _is_there(cls, value: str) -> str:
        file, _, name = value.rpartition(":")
        if not file.endswith(".py") or not name.isidentifier():
            raise ValueError("is not FILE.py:NAME; name the file and the function in it")
        if not Path(file).is_file():
            raise ValueError(f"there is no file {file}; give its path from the project's folder")
        return value

    def identity(self) -> dict[str, Any]:
        """Covers the bytes of the file."""
        return super().identity() | {"file": hash_file(Path(self.path.rpartition(":")[0]))}

    def score(self, samples: Sequence[Sample]) -> list[Score]:
        found = _called(_function(self.path), samples, self.options)
        values = list(found) if isinstance(found, list | tuple) or hasattr(found, "tolist") else found
        if not isinstance(values, list):
            raise TypeError(f"{self.path} returned {type(values).__name__} and no list")
        return [Score(value, "none" if value is None else "scored") for value in values]


def _called(function: Callable[..., Any], samples: Sequence[Sample], options: dict[str, Any]) -> Any:
    taken = inspect.signature(function).parameters
    if "samples" in taken:
        return function(samples=list(samples), **options)
    if "solution_str" in taken:
        one_by_one = [function(data_source=sample.meta.get("data_source") or sample.verifier,
                               solution_str=sample.completion, ground_truth=sample.ground_truth,
                               extra_info=dict(sample.meta) | {"row_id": sample.row_id}, **options)
                      for sample in samples]  # fmt: skip
        return [item["score"] if isinstance(item, dict) else item for item in one_by_one]
    columns = {name: [getattr(sample, name) for sample in samples]
               for name in ("row_id", "ground_truth", "verifier", "step")}  # fmt: skip
    return function(prompts=[list(sample.prompt) or sample.prompt_text for sample in samples],
                    completions=[sample.completion for sample in samples],
                    completion_ids=[None] * len(samples), **columns, **options)  # fmt: skip


@functools.cache
def _function(path: str) -> Callable[..., Any]:
    """The function, from its file, read once. Raises TypeError where it is none."""
    import importlib.util

    file, _, name = path.rpartition(":")
    spec = importlib.util.spec_from_file_location(f"kedge_reward_{Path(file).stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        raise TypeError(f"{file} defines no function {name}")
    return function  # type: ignore[no-any-return]
