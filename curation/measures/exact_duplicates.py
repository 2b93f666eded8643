"""Rows whose payload stands elsewhere too, within and across sources."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa

from curation import schema
from curation.measures import JoinMeasure

if TYPE_CHECKING:
    from curation.join_work import JoinWork


class ExactDuplicates(JoinMeasure):
    """Groups rows of one stage by content hash. The representative is a held-out row, else the row of the first source
    by `source_priority` and name, then the lowest row_id: never the one that arrived first. `duplicate_rank` is 0 for
    it, for every held-out row and for rows without a twin, `duplicate_count` the size of the group."""

    version: ClassVar[int] = 2
    depends_on: ClassVar[tuple[str, ...]] = ("curation/duplicates/order.py",)
    columns: ClassVar[pa.Schema] = pa.schema([("duplicate_rank", pa.int32()), ("duplicate_count", pa.int32())])
    evidence: ClassVar[pa.Schema] = schema.DUPLICATES
    evidence_kind: ClassVar[str] = "duplicates"

    def join(self, work: JoinWork) -> None:
        from curation.duplicates.order import RANK, bind_source_ranks, order_by

        connection = work.connection
        bind_source_ranks(work)
        connection.execute(f"""
            CREATE TEMP TABLE twins AS
            SELECT row_id, source, {RANK} AS rank, row_number() OVER same AS position,
                   count(*) OVER (PARTITION BY stage, content_hash) AS size,
                   first_value(row_id) OVER same AS representative,
                   first_value(source) OVER same AS representative_source
            FROM rows JOIN source_ranks USING (source)
            WHERE content_hash IN (SELECT content_hash FROM rows GROUP BY content_hash HAVING count(*) > 1)
            WINDOW same AS (PARTITION BY stage, content_hash ORDER BY {order_by()})
        """)
        connection.execute("""
            CREATE TEMP VIEW measured AS
            SELECT rows.row_id, coalesce(rank, 0)::INTEGER AS duplicate_rank,
                   coalesce(size, 1)::INTEGER AS duplicate_count
            FROM rows LEFT JOIN twins ON rows.row_id = twins.row_id
        """)
        connection.execute("""
            CREATE TEMP VIEW found AS
            SELECT row_id, representative, source, representative_source FROM twins WHERE position > 1
        """)
        work.counts["distinct"] = dict(
            connection.execute(
                "SELECT stage, count(DISTINCT content_hash) FROM rows GROUP BY ALL ORDER BY ALL"
            ).fetchall()
        )
