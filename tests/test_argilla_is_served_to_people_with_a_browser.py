"""Argilla's page from the local server: what a person chooses, writes, ranks and discards in Chromium is stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import browser
from tests.argilla_server import PREFERENCE, Server

pytest_plugins = ["tests.argilla_fixtures"]
pytestmark = [pytest.mark.argilla, pytest.mark.browser]

FIELDS = [
    {"name": "prompt", "title": "Conversation", "required": True, "settings": {"type": "chat", "use_markdown": True}},
    {"name": "a", "title": "Response A", "required": True, "settings": {"type": "text", "use_markdown": True}},
]
RATING = {"name": "helpful", "title": "How helpful is A?", "required": False, "settings": {
    "type": "rating", "options": [{"value": value} for value in range(1, 6)]}}  # fmt: skip
FLAGS = {"name": "flags", "title": "Flags", "required": False, "settings": {
    "type": "multi_label_selection", "visible_options": 3,
    "options": [{"value": value, "text": value} for value in ("unsafe", "code", "long")]}}  # fmt: skip
WHY = {"name": "why", "title": "Why?", "required": False, "settings": {"type": "text", "use_markdown": False}}
RANKING = {"name": "order", "title": "Rank them", "required": False, "settings": {
    "type": "ranking", "options": [{"value": value, "text": f"Answer {value}"} for value in "xyz"]}}  # fmt: skip


def test_a_person_logs_in_chooses_writes_ranks_submits_and_discards(argilla_server: Server, tmp_path: Path):
    server = argilla_server
    records = [{"external_id": f"r{number}", "fields": {"a": f"**Answer** {number}", "prompt": [
        {"role": "user", "content": f"Question {number}?"}]}} for number in range(3)]  # fmt: skip
    dataset = server.make_dataset(records, fields=FIELDS, questions=[PREFERENCE, RATING, FLAGS, WHY, RANKING])
    order = [record["external_id"] for record in server.queue("annotator2", dataset)]
    with browser.opened() as page:
        browser.login(page, server.url, "annotator2", server.account("annotator2").password)
        browser.open_dataset(page, server.url, dataset)
        assert f"Question {order[0][1:]}?" in browser.record_text(page)
        browser.choose(page, "B is better")
        browser.choose(page, "4", "helpful")
        browser.choose(page, "code", "flags")
        browser.write(page, "it is précis", "why")
        browser.rank(page, ["Answer z", "Answer x", "Answer y"], "order")
        assert browser.take(page, tmp_path / "chosen.png").stat().st_size > 10_000
        browser.submit(page)
        assert f"Question {order[1][1:]}?" in browser.record_text(page)
        browser.discard(page)
        assert f"Question {order[2][1:]}?" in browser.record_text(page)
        browser.choose(page, "Tie")
        browser.submit(page)
    answers = {record["external_id"]: record["responses"][0] for record in server.records(dataset)}
    assert [answers[name]["status"] for name in order] == ["submitted", "discarded", "submitted"]
    ranked = {one["value"]: one["rank"] for one in answers[order[0]]["values"].pop("order")["value"]}
    assert ranked == {"z": 1, "x": 2, "y": 3}
    assert answers[order[0]]["values"] == {"preference": {"value": "b"}, "helpful": {"value": 4},
                                           "flags": {"value": ["code"]}, "why": {"value": "it is précis"}}  # fmt: skip
    assert answers[order[1]]["values"] == {}
    assert answers[order[2]]["values"] == {"preference": {"value": "tie"}}
