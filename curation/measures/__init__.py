"""Measures: typed columns beside the rows, never a decision."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa

from curation import schema
from curation.registry import Plugin

if TYPE_CHECKING:
    from curation.join_work import JoinWork


class PartMeasure(Plugin):
    """A pure function from one row part to one signal part. `columns` are the signal columns it returns (names unique
    over all measures); `reads` the row columns that it wants, so that no others are loaded."""

    kind: ClassVar[str] = "measures"
    stages: ClassVar[tuple[str, ...]] = schema.STAGES
    columns: ClassVar[pa.Schema]

    def reads(self, stage: str) -> tuple[str, ...]:
        """The row columns that `measure` needs for a stage."""
        return tuple(name for name, _ in schema.PAYLOAD[stage])

    @abstractmethod
    def measure(self, rows: pa.Table, stage: str) -> pa.Table:
        """A table with `columns`, N rows in the order of `rows` (N rows with the columns of `reads`)."""


class JoinMeasure(Plugin):
    """A measure over all sources of `stages` at once. It writes evidence (many facts per row) and one value per row.
    `against` are further stages whose rows it reads (benchmark items); `needs` part measures whose signals it reads,
    which are measured first."""

    kind: ClassVar[str] = "measures"
    stages: ClassVar[tuple[str, ...]] = schema.STAGES
    against: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ()
    columns: ClassVar[pa.Schema]
    evidence: ClassVar[pa.Schema]
    evidence_kind: ClassVar[str]

    def least(self) -> dict[str, float]:
        """Columns that know nothing below a value, by name: under a threshold below it a rule catches no more rows than
        at it, though there may be more."""
        return {}

    @abstractmethod
    def join(self, work: JoinWork) -> None:
        """Create the tables or views `measured` (row_id and `columns`, one row per row of `stages`) and `found` (the
        columns of `evidence`) on `work.connection`. Both must depend on the set of rows alone: never on their order,
        their split into parts, the number of workers, or what an earlier run left in `work.cache` and
        `work.previous`."""
