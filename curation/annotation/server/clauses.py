"""Argilla's filters and orders as SQL over its own tables (SQLite)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from argilla_server.enums import ResponseStatusFilter, SortOrder
from argilla_server.models import Question, Record, Response, Suggestion
from argilla_server.search_engine.base import (
    AndFilter,
    MetadataFilterScope,
    RangeFilter,
    RecordFilterScope,
    ResponseFilterScope,
    SuggestionFilterScope,
    TermsFilter,
    TextQuery,
)
from sqlalchemy import Text, and_, cast, column, exists, false, func, not_, or_, select, true
from sqlalchemy.orm import aliased

TRUE = true()
MATCHES = "kedge_fields_match"  # text_query.fields_match, which every connection knows


def where(dataset: Any, query: Any = None, filter: Any = None) -> list[Any]:
    """The conditions on a Record that a search in a dataset sets."""
    conditions = [Record.dataset_id == dataset.id]
    if query is not None:
        text = TextQuery(q=query) if isinstance(query, str) else query
        conditions.append(getattr(func, MATCHES)(text.q, text.field, cast(Record.fields, Text)) == 1)
    if filter is not None:
        conditions.append(condition(filter))
    return conditions


def members(document: Any, *keys: str) -> Any:
    """The value below keys of a JSON document as a relation of `value`: one row, or one a member of a list."""
    path = "$" + "".join(f'."{key}"' for key in keys)
    return func.json_each(document, path).table_valued(column("value"), joins_implicitly=True)


def condition(filter: Any) -> Any:
    """A filter as a condition on a Record. Raises ValueError for a scope that Argilla has not."""
    if isinstance(filter, AndFilter):
        return and_(*map(condition, filter.filters))
    scope = filter.scope
    if isinstance(scope, ResponseFilterScope):
        return _response_condition(filter, scope)
    if isinstance(scope, SuggestionFilterScope):
        return _suggestion_condition(filter, scope)
    if isinstance(scope, MetadataFilterScope):
        item = members(Record.metadata_, scope.metadata_property)
        return exists(select(1).select_from(item).where(_fits(item.c.value, filter)).correlate(Record))
    if not isinstance(scope, RecordFilterScope):
        raise ValueError(f"Cannot process request for search scope {scope}")
    found = getattr(Record, str(scope.property))
    if scope.property == "id" and isinstance(filter, TermsFilter):
        return found.in_([known for known in map(_uuid, filter.values) if known is not None])
    return _fits(cast(found, Text), filter)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _fits(value: Any, filter: Any) -> Any:
    """Whether a scalar is one of the terms, or lies in the range; dates are compared as SQLite stores them."""
    if isinstance(filter, TermsFilter):
        return cast(value, Text).in_([str(getattr(term, "value", term)) for term in filter.values])
    if not isinstance(filter, RangeFilter):
        raise ValueError(f"Cannot process request for filter {filter}")
    bounds = [(value >= _bound(filter.ge)) if filter.ge is not None else None,
              (value <= _bound(filter.le)) if filter.le is not None else None]  # fmt: skip
    return and_(*[bound for bound in bounds if bound is not None])


def _bound(value: Any) -> Any:
    """A bound of a range; a date of ISO 8601 as it stands in SQLite's tables."""
    return value.replace("T", " ").removesuffix("Z") if isinstance(value, str) else value


def _response_condition(filter: Any, scope: Any) -> Any:
    response = aliased(Response)
    mine = [response.record_id == Record.id]
    if scope.user is not None:
        mine.append(response.user_id == scope.user.id)
    if scope.question:
        item = members(response.values, scope.question, "value")
        return exists(select(1).select_from(response).join(item, TRUE).where(*mine, _fits(item.c.value, filter)))
    if scope.property != "status" or not isinstance(filter, TermsFilter):
        raise ValueError(f"Cannot process filter scope {scope}")
    wanted = {str(getattr(value, "value", value)) for value in filter.values}
    pending = ResponseStatusFilter.pending.value
    parts = [not_(exists(select(1).where(*mine)))] if pending in wanted else []
    if wanted - {pending}:
        parts.append(exists(select(1).where(*mine, cast(response.status, Text).in_(sorted(wanted - {pending})))))
    return or_(*parts) if parts else false()


def _suggestion_condition(filter: Any, scope: Any) -> Any:
    suggestion, question = aliased(Suggestion), aliased(Question)
    mine = [suggestion.record_id == Record.id, suggestion.question_id == question.id, question.name == scope.question]
    name = str(scope.property or "value")
    if name in ("value", "score"):
        item = members(getattr(suggestion, name))
        base = select(1).select_from(suggestion).join(question, TRUE).join(item, TRUE)
        return exists(base.where(*mine, _fits(item.c.value, filter)))
    return exists(select(1).where(*mine, _fits(cast(getattr(suggestion, name), Text), filter)))


def order(order: Any) -> Any:
    """An order as an expression over a Record; records without the value come last."""
    scope = order.scope
    down = order.order == SortOrder.desc
    extreme = func.max if down else func.min
    if isinstance(scope, ResponseFilterScope):
        response = aliased(Response)
        mine = [response.record_id == Record.id]
        if scope.user is not None:
            mine.append(response.user_id == scope.user.id)
        value = func.json_extract(response.values, f'$."{scope.question}".value') if scope.question else response.status
        found = select(extreme(cast(value, Text) if not scope.question else value)).where(*mine).scalar_subquery()
    elif isinstance(scope, SuggestionFilterScope):
        suggestion, question = aliased(Suggestion), aliased(Question)
        name = str(scope.property or "value")
        stored = getattr(suggestion, name)
        value = func.json_extract(stored, "$") if name in ("value", "score") else cast(stored, Text)
        found = select(extreme(value)).where(suggestion.record_id == Record.id, suggestion.question_id == question.id,
                                             question.name == scope.question).scalar_subquery()  # fmt: skip
    elif isinstance(scope, MetadataFilterScope):
        found = func.json_extract(Record.metadata_, f'$."{scope.metadata_property}"')
    else:
        found = getattr(Record, str(scope.property))
    return (found.desc() if down else found.asc()).nulls_last()
