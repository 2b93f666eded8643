"""The search engine that answers from Argilla's own tables, asked through the real server's REST API."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import pytest

from curation.annotation.server import text_query
from tests.argilla_server import PREFERENCE, TEXT_FIELD, Server

pytest_plugins = ["tests.argilla_fixtures"]
argilla = pytest.mark.argilla

RATING = {"name": "rating", "title": "How good?", "required": False, "settings": {
    "type": "rating", "options": [{"value": value} for value in range(1, 6)]}}  # fmt: skip
FLAGS = {"name": "flags", "title": "Flags", "required": False, "settings": {
    "type": "multi_label_selection", "visible_options": 3,
    "options": [{"value": value, "text": value} for value in ("unsafe", "code", "long")]}}  # fmt: skip
CHAT = {"name": "chat", "title": "Chat", "required": False, "settings": {"type": "chat", "use_markdown": True}}
METADATA = [
    {"name": "topic", "title": "Topic", "settings": {"type": "terms"}, "visible_for_annotators": True},
    {"name": "chars", "title": "Chars", "settings": {"type": "integer"}, "visible_for_annotators": True},
    {"name": "margin", "title": "Margin", "settings": {"type": "float"}, "visible_for_annotators": False},
]
TEXTS = ["The café is open", "Der Bär schläft (don't wake him)", "sort a list in Python", "SORT a tuple in Python",
         "日本語の文章", "empty % of _ 'quotes' \"here\" \\ back"]  # fmt: skip


def record(number: int) -> dict[str, Any]:
    chat = [{"role": "user", "content": f"question number {number}"}, {"role": "assistant", "content": "I see"}]
    topic = [["math"], ["math", "code"], ["code"], ["talk"], None, ['ta"lk']][number]
    metadata = {
        "topic": topic,
        "chars": [10, 2, 30, 4, 50, None][number],
        "margin": [0.5, -1.0, 0.25, 3.0, 0.0, 1.5][number],
    }
    return {"external_id": f"r{number}", "fields": {"text": TEXTS[number], "chat": chat},
            "metadata": {name: value for name, value in metadata.items() if value is not None}}  # fmt: skip


class Set(NamedTuple):
    """A dataset of six records, `ids` their server ids."""

    server: Server
    id: str
    ids: list[str]

    def found(self, login: str = "", **body: Any) -> set[str]:
        return set(self.server.search(self.id, login, **body))


@pytest.fixture(scope="module")
def kept(argilla_server: Server) -> Set:
    """Six records; annotator1 answered r0, r1, discarded r2 and drafted r3, annotator2 answered r0."""
    server = argilla_server
    vectors = [{"name": "v", "title": "V", "dimensions": 2}]
    dataset = server.make_dataset(min_submitted=2, questions=[PREFERENCE, RATING, FLAGS], fields=[TEXT_FIELD, CHAT],
                                  metadata=METADATA, vectors=vectors)  # fmt: skip
    values = {one["name"]: one["id"] for one in server.call("GET", f"/datasets/{dataset}/questions")["items"]}
    records = [record(number) for number in range(6)]
    points = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.6, 0.8], [0.0, 0.0]]
    for one, point in zip(records[:5], points, strict=True):
        one["vectors"] = {"v": point}
    records[0]["suggestions"] = [{"question_id": values["preference"], "value": "a", "score": 0.9, "agent": "judge"}]
    records[1]["suggestions"] = [
        {"question_id": values["preference"], "value": "b", "score": 0.2, "agent": "other"},
        {"question_id": values["flags"], "value": ["code", "long"], "type": "model"},
    ]
    server.call("POST", f"/datasets/{dataset}/records/bulk", json={"items": records})
    by_name = {one["external_id"]: one["id"] for one in server.records(dataset)}
    ids = [by_name[f"r{number}"] for number in range(6)]
    server.answer("annotator1", {ids[0]: {"preference": "a", "rating": 5, "flags": ["unsafe", "code"]},
                                 ids[1]: {"preference": "b", "rating": 2}, ids[2]: None})  # fmt: skip
    server.answer("annotator1", {ids[3]: {"preference": "tie"}}, status="draft")
    server.answer("annotator2", {ids[0]: {"preference": "tie", "rating": 1}})
    return Set(server, dataset, ids)


def terms(scope: dict[str, Any], *values: Any) -> dict[str, Any]:
    return {"filters": {"and": [{"type": "terms", "scope": scope, "values": list(values)}]}}


def between(scope: dict[str, Any], ge: Any = None, le: Any = None) -> dict[str, Any]:
    return {"filters": {"and": [{"type": "range", "scope": scope, "ge": ge, "le": le}]}}


def metadata(name: str) -> dict[str, Any]:
    return {"entity": "metadata", "metadata_property": name}


def response(question: str | None = None) -> dict[str, Any]:
    return {"entity": "response"} | ({"question": question} if question else {"property": "status"})


def suggestion(name: str, question: str = "preference") -> dict[str, Any]:
    return {"entity": "suggestion", "question": question, "property": name}


def numbered(*numbers: int) -> set[str]:
    return {f"r{number}" for number in numbers}


@argilla
@pytest.mark.parametrize(("query", "field", "numbers"), [
    ("café", None, (0,)), ("CAFÉ", None, (0,)), ("bär", None, (1,)), ("don't", None, (1,)),
    ("python sort", None, (2, 3)), ("python -tuple", None, (2,)), ('"list in"', None, (2,)), ('"in list"', None, ()),
    ("tup*", None, (3,)),
    ("tup", None, ()), ("list | tuple", None, (2, 3)), ("日本", None, (4,)), ("本日", None, ()), ("user", None, ()),
    ("number 4", None, (4,)), ("number 4", "text", ()), ("number 4", "chat", (4,)), ("café", "chat", ()),
    ("quotes here back", None, (5,)), ("%", None, (0, 1, 2, 3, 4, 5)), ("python question", None, (2, 3)),
])  # fmt: skip
def test_texts_are_searched_by_words(kept: Set, query: str, field: str | None, numbers: tuple[int, ...]):
    text = {"q": query} | ({"field": field} if field else {})
    assert kept.found(query={"text": text}) == kept.found("annotator2", query={"text": text}) == numbered(*numbers)


@argilla
@pytest.mark.parametrize(("body", "numbers"), [
    (terms(metadata("topic"), "math"), (0, 1)), (terms(metadata("topic"), "code", "talk"), (1, 2, 3)),
    (terms(metadata("topic"), "ma"), ()), (terms(metadata("topic"), 'ta"lk'), (5,)),
    (terms(metadata("chars"), 4), (3,)), (between(metadata("chars"), 4, 30), (0, 2, 3)),
    (between(metadata("margin"), ge=0.5), (0, 3, 5)), (between(metadata("margin"), le=0), (1, 4)),
    (terms({"entity": "record", "property": "external_id"}, "r1", "r5", "none"), (1, 5)),
    (terms({"entity": "record", "property": "status"}, "completed"), (0,)),
    (terms({"entity": "record", "property": "status"}, "pending"), (1, 2, 3, 4, 5)),
    (between({"entity": "record", "property": "inserted_at"}, ge="2020-01-01T00:00:00"), (0, 1, 2, 3, 4, 5)),
    (between({"entity": "record", "property": "inserted_at"}, le="2020-01-01T00:00:00"), ()),
    (terms(suggestion("value"), "a"), (0,)), (terms(suggestion("agent"), "judge", "other"), (0, 1)),
    (between(suggestion("score"), ge=0.5), (0,)), (terms(suggestion("value", "flags"), "long"), (1,)),
    (terms(suggestion("type", "flags"), "model"), (1,)), (terms(suggestion("value", "flags"), "a"), ()),
])  # fmt: skip
def test_records_are_filtered_by_metadata_and_suggestions(kept: Set, body: dict[str, Any], numbers: tuple[int, ...]):
    assert kept.found(**body) == numbered(*numbers)


@argilla
@pytest.mark.parametrize(("login", "body", "numbers"), [
    ("annotator1", terms(response(), "pending"), (4, 5)), ("annotator1", terms(response(), "submitted"), (0, 1)),
    ("annotator1", terms(response(), "discarded"), (2,)),
    ("annotator1", terms(response(), "draft", "pending"), (3, 4, 5)),
    ("annotator2", terms(response(), "pending"), (1, 2, 3, 4, 5)), ("annotator3", terms(response(), "submitted"), ()),
    ("", terms(response(), "submitted"), (0, 1)), ("", terms(response(), "pending"), (4, 5)),
    ("", terms(response("preference"), "tie"), (0, 3)), ("annotator1", terms(response("preference"), "tie"), (3,)),
    ("annotator1", between(response("rating"), ge=3), (0,)), ("annotator2", between(response("rating"), ge=3), ()),
    ("annotator1", terms(response("rating"), "2"), (1,)), ("", terms(response("flags"), "code"), (0,)),
    ("", terms(response("flags"), "cod"), ()),
])  # fmt: skip
def test_records_are_filtered_by_responses_of_a_person_or_of_all(kept: Set, login: str, body: dict[str, Any], numbers):
    assert kept.found(login, **body) == numbered(*numbers)


@argilla
def test_filters_and_texts_hold_together(kept: Set):
    both = terms(metadata("topic"), "code")
    both["filters"]["and"] += between(metadata("chars"), ge=3)["filters"]["and"]
    assert kept.found(**both) == numbered(2)
    assert kept.found(**both, query={"text": {"q": "café"}}) == set()


@argilla
@pytest.mark.parametrize(("scope", "down", "numbers"), [
    (metadata("chars"), False, (1, 3, 0, 2, 4, 5)), (metadata("chars"), True, (4, 2, 0, 3, 1, 5)),
    (metadata("margin"), True, (3, 5, 0, 2, 4, 1)), (response("rating"), False, (0, 1, 2, 3, 4, 5)),
    (response("rating"), True, (0, 1, 2, 3, 4, 5)), (suggestion("score"), False, (1, 0, 2, 3, 4, 5)),
    ({"entity": "record", "property": "external_id"}, True, (5, 4, 3, 2, 1, 0)),
    ({"entity": "record", "property": "status"}, True, (1, 2, 3, 4, 5, 0)),
])  # fmt: skip
def test_records_come_in_the_order_asked_for_and_those_without_a_value_last(kept: Set, scope, down, numbers):
    order = [{"scope": scope, "order": "desc" if down else "asc"}]
    assert kept.server.search(kept.id, sort=order) == [f"r{number}" for number in numbers]


@argilla
def test_everyone_has_an_own_order_that_stays_from_page_to_page(kept: Set, argilla_server: Server):
    records = [{"external_id": f"r{number}", "fields": {"text": f"{number}"}} for number in range(30)]
    dataset = argilla_server.make_dataset(records)
    orders = [argilla_server.search(dataset, login) for login in argilla_server.logins]
    assert len({tuple(order) for order in orders}) == 3 and {len(set(order)) for order in orders} == {30}
    paged: list[str] = []
    for offset in range(0, 30, 7):
        page = argilla_server.call("POST", f"/me/datasets/{dataset}/records/search", "annotator1", json={},
                                   params={"limit": 7, "offset": offset})  # fmt: skip
        assert page["total"] == 30
        paged += [one["record"]["external_id"] for one in page["items"]]
    assert paged == orders[0] == argilla_server.search(dataset, "annotator1")
    argilla_server.answer("annotator1", {argilla_server.queue("annotator1", dataset)[0]["id"]: {"preference": "a"}})
    rest = [one["external_id"] for one in argilla_server.queue("annotator1", dataset)]
    assert rest == orders[0][1:]


@argilla
def test_similar_records_are_found_by_a_vector_and_by_a_record(kept: Set):
    def near(**vector: Any) -> list[tuple[str, float]]:
        body = {"query": {"vector": {"name": "v"} | vector}}
        found = kept.server.call("POST", f"/datasets/{kept.id}/records/search", json=body)["items"]
        return [(one["record"]["external_id"], round(one["query_score"], 6)) for one in found]

    assert dict(near(value=[2.0, 0.0])) == {"r0": 1.0, "r3": 0.8, "r1": 0.5, "r4": 0.5, "r2": 0.0}
    assert [score for _, score in near(value=[2.0, 0.0])] == [1.0, 0.8, 0.5, 0.5, 0.0]
    nearest = near(record_id=kept.ids[0])
    assert nearest[0][0] == "r3" and "r0" not in dict(nearest)
    assert near(value=[2.0, 0.0], order="least_similar")[0] == ("r2", 1.0)
    filtered = {"query": {"vector": {"name": "v", "value": [1.0, 0.0]}}} | terms(metadata("topic"), "code")
    assert kept.server.search(kept.id, **filtered) == ["r1", "r2"]


@argilla
def test_figures_of_metadata_are_counted(kept: Set):
    ids = {
        one["name"]: one["id"]
        for one in kept.server.call("GET", f"/me/datasets/{kept.id}/metadata-properties")["items"]
    }
    figures = {name: kept.server.call("GET", f"/metadata-properties/{one}/metrics") for name, one in ids.items()}
    assert figures["topic"]["total"] == 6
    assert [(one["term"], one["count"]) for one in figures["topic"]["values"]] == [
        ("code", 2), ("math", 2), ('ta"lk', 1), ("talk", 1)]  # fmt: skip
    assert (figures["chars"]["min"], figures["chars"]["max"]) == (2, 50)
    assert (figures["margin"]["min"], figures["margin"]["max"]) == (-1.0, 3.0)


@argilla
def test_progress_is_counted_by_record_and_by_person(kept: Set):
    progress = kept.server.call("GET", f"/datasets/{kept.id}/progress")
    assert (progress["total"], progress["completed"], progress["pending"]) == (6, 1, 5)
    mine = kept.server.call("GET", f"/me/datasets/{kept.id}/metrics", "annotator1")["responses"]
    assert mine == {"total": 6, "submitted": 2, "discarded": 1, "draft": 1, "pending": 2}
    assert kept.server.call("GET", f"/me/datasets/{kept.id}/metrics", "annotator3")["responses"]["pending"] == 6


@argilla
def test_changes_are_seen_at_once_since_there_is_no_index(argilla_server: Server):
    server = argilla_server
    dataset = server.make_dataset(
        [record(0), record(1)], min_submitted=1, questions=[PREFERENCE], fields=[TEXT_FIELD, CHAT]
    )
    server.call("POST", f"/datasets/{dataset}/metadata-properties", json=METADATA[1])
    server.call("POST", f"/datasets/{dataset}/vectors-settings", json={"name": "w", "title": "W", "dimensions": 1})
    ids = {one["external_id"]: one["id"] for one in server.records(dataset)}
    server.call("PATCH", f"/records/{ids['r0']}", json={"metadata": {"chars": 7}, "vectors": {"w": [1.0]}})
    assert server.search(dataset, **between(metadata("chars"), 7, 7)) == ["r0"]
    assert server.search(dataset, query={"vector": {"name": "w", "value": [1.0]}}) == ["r0"]
    question = server.call("GET", f"/datasets/{dataset}/questions")["items"][0]["id"]
    made = server.call("PUT", f"/records/{ids['r1']}/suggestions", json={"question_id": question, "value": "tie"})
    assert server.search(dataset, **terms(suggestion("value"), "tie")) == ["r1"]
    server.call("DELETE", f"/suggestions/{made['id']}")
    assert server.search(dataset, **terms(suggestion("value"), "tie")) == []
    server.answer("annotator1", {ids["r1"]: {"preference": "b"}})
    answer = next(one for one in server.records(dataset) if one["id"] == ids["r1"])["responses"][0]
    server.call("PUT", f"/responses/{answer['id']}", "annotator1",
                json={"status": "submitted", "values": {"preference": {"value": "a"}}})  # fmt: skip
    assert server.search(dataset, **terms(response("preference"), "a")) == ["r1"]
    assert server.call("GET", f"/datasets/{dataset}/progress")["completed"] == 1
    server.call("DELETE", f"/responses/{answer['id']}", "annotator1")
    assert server.search(dataset, **terms(response("preference"), "a")) == []
    assert server.call("GET", f"/datasets/{dataset}/progress")["completed"] == 0
    server.call("DELETE", f"/datasets/{dataset}/records", params={"ids": ids["r0"]})
    assert server.search(dataset) == ["r1"]
    server.call("DELETE", f"/datasets/{dataset}")
    assert dataset not in [one["id"] for one in server.call("GET", "/me/datasets")["items"]]


@argilla
def test_statuses_follow_a_changed_number_of_answers(argilla_server: Server):
    """The server leaves this to a background job, for which Argilla needs a worker and a Redis."""
    server = argilla_server
    dataset = server.make_dataset([record(0), record(1)], questions=[PREFERENCE], fields=[TEXT_FIELD, CHAT])
    ids = [one["id"] for one in server.records(dataset)]
    server.answer("annotator1", {ids[0]: {"preference": "a"}})
    for least, completed in ((1, [ids[0]]), (2, [])):
        change = {"distribution": {"strategy": "overlap", "min_submitted": least}}
        server.call("PATCH", f"/datasets/{dataset}", json=change)
        assert eventually(lambda wanted=completed: [one["id"] for one in server.records(dataset)
                                                    if one["status"] == "completed"] == wanted)  # fmt: skip


def eventually(holds: Any, seconds: float = 30) -> bool:
    """Whether `holds()` comes true within the time."""
    end = time.monotonic() + seconds
    while not (true := holds()) and time.monotonic() < end:
        time.sleep(0.05)
    return bool(true)


@pytest.mark.parametrize(("query", "text", "found"), [
    ("", "anything", True), ("-", "anything", True), ("a", "A", True), ("straße", "STRASSE", True), ("-a", "b", True),
    ("-a", "a b", False), ('-"a b"', "a c b", True), ("a | -b", "c", True), ('"a', "a", True), ("ab", "a b", False),
    ("+a +b", "b a", True), ("a b", "a", False), ("x_y", "x_y z", True), ("a.b", "a, b", True), ("a|b", "b", True),
])  # fmt: skip
def test_a_query_says_which_words_a_text_must_have(query: str, text: str, found: bool):
    assert text_query.matches(query, text) == found
