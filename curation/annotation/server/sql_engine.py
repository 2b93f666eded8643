"""A search engine for argilla-server that answers from Argilla's own tables in SQLite.

The server asks its search engine for pages, text, filters, orders, figures of metadata, similar records and progress.
All of it stands in the tables that the server keeps anyway: there is no index, so nothing drifts from the truth and a
restart rebuilds nothing. Every query is a scan of one dataset.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any
from uuid import UUID

import clauses
from argilla_server.database import AsyncSessionLocal
from argilla_server.enums import MetadataPropertyType, SimilarityOrder
from argilla_server.models import Record, Response, Vector
from argilla_server.search_engine.base import (
    FloatMetadataMetrics,
    IntegerMetadataMetrics,
    SearchEngine,
    SearchResponseItem,
    SearchResponses,
    TermsMetrics,
)
from sqlalchemy import func, select

NAME = "sql"


class SqlEngine(SearchEngine):
    """Argilla's interface of a search engine; an instance is made for every request and holds nothing."""

    @classmethod
    async def new_instance(cls) -> SqlEngine:
        return cls()

    async def close(self) -> None:
        pass

    async def ping(self) -> bool:
        return bool(await _rows(select(1)))

    async def info(self) -> dict[str, Any]:
        return {"name": NAME, "version": {"number": "1"}, "tagline": "answers from Argilla's own tables"}

    # ---- the index, of which there is none

    async def create_index(self, dataset: Any) -> None:
        pass

    async def delete_index(self, dataset: Any) -> None:
        pass

    async def configure_metadata_property(self, dataset: Any, metadata_property: Any) -> None:
        pass

    async def configure_index_vectors(self, vector_settings: Any) -> None:
        pass

    async def index_records(self, dataset: Any, records: Any) -> None:
        pass

    async def partial_record_update(self, record: Any, **update: Any) -> None:
        pass

    async def delete_records(self, dataset: Any, records: Any) -> None:
        pass

    async def update_record_response(self, response: Any) -> None:
        pass

    async def delete_record_response(self, response: Any) -> None:
        pass

    async def update_record_suggestion(self, suggestion: Any) -> None:
        pass

    async def delete_record_suggestion(self, suggestion: Any) -> None:
        pass

    # ---- progress

    async def get_dataset_progress(self, dataset: Any) -> dict[str, int]:
        """Records by status, and `total`."""
        if dataset.is_draft:
            return {}
        return _counted(await _rows(select(Record.status, func.count()).where(Record.dataset_id == dataset.id)
                                    .group_by(Record.status)))  # fmt: skip

    async def get_dataset_user_progress(self, dataset: Any, user: Any) -> dict[str, int]:
        """A person's responses by status, and `total`."""
        if dataset.is_draft:
            return {}
        return _counted(await _rows(select(Response.status, func.count()).join(Record)
                                    .where(Record.dataset_id == dataset.id, Response.user_id == user.id)
                                    .group_by(Response.status)))  # fmt: skip

    # ---- search

    async def search(self, dataset: Any, query: Any = None, filter: Any = None, sort: Any = None, offset: int = 0,
                     limit: int = 100, user_id: Any = None) -> SearchResponses:  # fmt: skip
        """A page of the records that match. For a person they come in an order of that person's own, which stays the
        same from page to page and day to day: what stands late for one stands early for another."""
        where = clauses.where(dataset, query, filter)
        if user_id and not sort:
            found = sorted((row[0] for row in await _rows(select(Record.id).where(*where))),
                           key=lambda record: _place(record, user_id))  # fmt: skip
            total, page = len(found), found[offset : offset + limit]
        else:
            total = (await _rows(select(func.count(Record.id)).where(*where)))[0][0]
            order = [*map(clauses.order, sort or []), Record.inserted_at.asc(), Record.id.asc()]
            rows = await _rows(select(Record.id).where(*where).order_by(*order).offset(offset).limit(limit))
            page = [row[0] for row in rows]
        items = [SearchResponseItem(record_id=record, score=1.0) for record in page]
        return SearchResponses(items=items, total=total)

    async def compute_metrics_for(self, metadata_property: Any) -> Any:
        """The terms of a metadata property with their counts, the most frequent first; of a number its extremes."""
        item = clauses.members(Record.metadata_, metadata_property.name)
        mine = Record.dataset_id == metadata_property.dataset_id
        rows = await _rows(select(item.c.value).select_from(Record).join(item, clauses.TRUE)
                           .where(mine, item.c.value.is_not(None)))  # fmt: skip
        values = [row[0] for row in rows]
        if metadata_property.type == MetadataPropertyType.terms:
            counts = sorted(Counter(map(str, values)).items(), key=lambda pair: (-pair[1], pair[0]))
            return TermsMetrics(total=len(values), values=[TermsMetrics.TermCount(term=term, count=count)
                                                           for term, count in counts])  # fmt: skip
        whole = metadata_property.type == MetadataPropertyType.integer
        metrics = IntegerMetadataMetrics if whole else FloatMetadataMetrics
        return metrics(min=min(values, default=None), max=max(values, default=None))

    async def similarity_search(self, dataset: Any, vector_settings: Any, value: Any = None, record: Any = None,
                                query: Any = None, filter: Any = None, max_results: int = 100,
                                order: Any = SimilarityOrder.most_similar, threshold: float | None = None
                                ) -> SearchResponses:  # fmt: skip
        """The records nearest to a vector or to a record, or farthest from it; the score is (1 + cosine) / 2 with the
        vector, or with its opposite for the farthest."""
        import numpy as np

        if bool(value) == bool(record):
            raise ValueError("Must provide either vector value or record to compute the similarity search")
        target = value or record.vector_value_by_vector_settings(vector_settings)
        if not target:
            raise ValueError("Cannot find a vector value to apply with provided info")
        where = [*clauses.where(dataset, query, filter), Vector.vector_settings_id == vector_settings.id]
        if record is not None:
            where.append(Record.id != record.id)
        rows = await _rows(select(Record.id, Vector.value).join(Vector).where(*where).order_by(Record.id))
        sign = -1.0 if order == SimilarityOrder.least_similar else 1.0
        vectors, wanted = np.array([row[1] for row in rows] or [target], float), sign * np.array(target, float)
        lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(wanted)
        scores = (1 + vectors @ wanted / np.where(lengths == 0, 1, lengths)) / 2
        best = [(rows[place][0], float(scores[place])) for place in np.argsort(-scores, kind="stable")[: len(rows)]]
        items = [SearchResponseItem(record_id=found, score=score) for found, score in best[:max_results]
                 if threshold is None or score >= threshold]  # fmt: skip
        return SearchResponses(items=items, total=len(items))


async def _rows(statement: Any) -> list[Any]:
    async with AsyncSessionLocal() as db:
        return list((await db.execute(statement)).all())


def _counted(rows: list[Any]) -> dict[str, int]:
    return {"total": sum(count for _, count in rows), **{str(status.value): count for status, count in rows}}


def _place(record: UUID, user_id: Any) -> bytes:
    return hashlib.blake2b(record.bytes, key=str(user_id).encode()[:64], digest_size=8).digest()
