"""Rows whose payload stands elsewhere too, within and across sources."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa

from curation import schema
from curation.measures import JoinMeasure

if TYPE_CHECKING:
    from curation.joining import JoinWork


class ExactDuplicates(JoinMeasure):
    """Groups rows of one stage by content hash. The representative is the row of the first source by name, then the
    lowest row_id: never the one that arrived first. `duplicate_rank` is 0 for it and for rows without a twin,
    `duplicate_count` the size of the group."""

    version: ClassVar[int] = 1
    columns: ClassVar[pa.Schema] = pa.schema([("duplicate_rank", pa.int32()), ("duplicate_count", pa.int32())])
    evidence: ClassVar[pa.Schema] = schema.DUPLICATES
    evidence_kind: ClassVar[str] = "duplicates"

    def join(self, work: JoinWork) -> None:
        connection = work.connection
        connection.execute("""
            CREATE TEMP TABLE twins AS
            SELECT row_id, source, stage, content_hash,
                   row_number() OVER same - 1 AS place, count(*) OVER (PARTITION BY stage, content_hash) AS size,
                   first_value(row_id) OVER same AS representative,
                   first_value(source) OVER same AS representative_source
            FROM rows
            WHERE content_hash IN (SELECT content_hash FROM rows GROUP BY content_hash HAVING count(*) > 1)
            WINDOW same AS (PARTITION BY stage, content_hash ORDER BY source, row_id)
        """)
        connection.execute("""
            CREATE TEMP VIEW measured AS
            SELECT rows.row_id, rows.source, coalesce(place, 0)::INTEGER AS duplicate_rank,
                   coalesce(size, 1)::INTEGER AS duplicate_count
            FROM rows LEFT JOIN twins ON rows.row_id = twins.row_id
        """)
        connection.execute("""
            CREATE TEMP VIEW found AS
            SELECT row_id, representative, source, representative_source FROM twins WHERE place > 0
        """)
