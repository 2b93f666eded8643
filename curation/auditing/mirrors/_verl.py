"""What the mirrors of verl 0.9.1 share: the options below `data.`, and why verl stops."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.auditing.mirrors import Mirror
from curation.errors import Problem

VERSIONS = ">=0.9.1,<0.10"
ABSENT: tuple[Any, ...] = (None, {}, {"path": None, "name": None})


class VerlMirror(Mirror):
    """A trainer of verl. Options are named as they stand below `data.` in verl's YAML; one with a dot in its name is a
    Hydra key elsewhere in it (`actor_rollout_ref.rollout.n`), does not touch rows and is left to verl, which refuses
    unknown ones. `data_options` are the names of that YAML, copied, because verl is installed in another
    environment."""

    package: ClassVar[str] = "verl"
    versions: ClassVar[str] = VERSIONS
    data_options: ClassVar[frozenset[str]]

    @classmethod
    def option_names(cls) -> frozenset[str]:
        return cls.data_options | cls.own_options | frozenset(cls.model_fields)

    @classmethod
    def option_problems(cls, options: dict[str, Any], where: str = "") -> list[Problem]:
        elsewhere = {name for name in options if "." in name}
        found = super().option_problems({name: options[name] for name in options if name not in elsewhere}, where)
        for name in sorted(elsewhere):
            if name.startswith("data."):
                found.append(Problem("the audit does not see an option under this name",
                                     f"write {name.removeprefix('data.')}", where, f"trainer.{name}"))  # fmt: skip
        if options.get("apply_chat_template_kwargs") not in ABSENT:
            found.append(Problem("kedge gives verl the template_kwargs of the run", "move it there: template_kwargs",
                                 where, "trainer.apply_chat_template_kwargs"))  # fmt: skip
        return found


def raised(anatomy: pa.Table) -> tuple[int, str]:
    """(rows on which the rendering raises, the first reason)."""
    count = pc.sum(pc.is_valid(anatomy["render_error"])).as_py() or 0
    first = next((text for text in anatomy["render_error"].to_pylist() if text), "") if count else ""
    return count, first


def too_few(num_rows: int, batch: int) -> Iterator[str]:
    """verl drops the last incomplete batch and divides by the steps of an epoch: less than one batch stops it."""
    if num_rows < batch:
        yield f"{num_rows:,} rows are less than one batch (train_batch_size {batch:,}), and verl divides by zero steps"


def longest(tokens: np.ndarray) -> int:
    """The longest of N sequences in tokens, 0 of none."""
    return int(tokens.max(initial=0))
