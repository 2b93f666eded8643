"""Votes are added and never lost, items stay, and the same rows are the same bytes."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest

from curation.annotation import store
from curation.annotation.records import ITEMS, ITEMS_KIND, VOTES, VOTES_KIND

VOTE = {"job": "x", "round": "main-1", "edition": "e", "kind": "person", "status": "submitted", "values": "{}"}


def vote(item: str, annotator: str, verdict: str | None, at: str, **more: object) -> dict[str, object]:
    return VOTE | {"item_id": item, "annotator": annotator, "verdict": verdict, "answered_at": at} | more


def votes(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=VOTES)


FIRST = vote("1", "ann", "a", "2026-01-01T00:00:00Z")
CHANGED = vote("1", "ann", "b", "2026-01-02T00:00:00Z")
OTHER = vote("2", "bea", "tie", "2026-01-01T00:00:00Z")


def test_the_same_votes_again_change_nothing(catalog):
    with catalog.writing(VOTES_KIND, "x"):
        assert store.add_votes(catalog, "x", "main-1", votes(FIRST, OTHER)) == 2
        folder = store.folder_of(catalog, VOTES_KIND, "x", "main-1")
        before = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}
        assert store.add_votes(catalog, "x", "main-1", votes(OTHER, FIRST, OTHER)) == 0
    assert {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()} == before


def test_the_order_in_which_votes_come_does_not_matter(catalog):
    rows = [FIRST, CHANGED, OTHER]
    hashes = set()
    for job, seed in (("x", 1), ("y", 2), ("z", 3)):
        random.Random(seed).shuffle(rows)
        for row in rows:
            store.add_votes(catalog, job, "main-1", votes(row))
        ((_, manifest),) = [item for item in catalog.manifests("evidence", VOTES_KIND) if item[0].name.startswith(job)]
        hashes.add(manifest.parts[0].hash)
    assert len(hashes) == 1


def test_a_changed_answer_is_one_more_record_and_the_last_one_counts(catalog):
    store.add_votes(catalog, "x", "main-1", votes(CHANGED, OTHER))
    store.add_votes(catalog, "x", "main-1", votes(FIRST))
    kept = store.read_votes(catalog, "x")
    assert kept.num_rows == 3
    assert [row["verdict"] for row in store.current(kept).to_pylist()] == ["b", "tie"]


def test_a_submitted_answer_counts_before_a_draft_of_the_same_time(catalog):
    draft = FIRST | {"status": "draft", "verdict": None}
    assert store.current(votes(FIRST, draft))["status"].to_pylist() == ["submitted"]
    assert store.current(votes(draft, FIRST))["status"].to_pylist() == ["submitted"]


def test_a_round_without_votes_yet_has_an_empty_table(catalog):
    assert store.add_votes(catalog, "x", "main-1", votes()) == 0
    assert store.read_votes(catalog, "x").num_rows == 0
    assert store.read_votes(catalog, "y").num_rows == 0
    assert len(catalog.manifests("evidence", VOTES_KIND)) == 1


def test_jobs_whose_names_begin_alike_are_kept_apart(catalog):
    store.add_votes(catalog, "x", "main-1", votes(FIRST))
    store.add_votes(catalog, "x_lead", "main-1", votes(OTHER))
    assert store.read_votes(catalog, "x")["item_id"].to_pylist() == ["1"]
    assert store.read_votes(catalog, "x", "main-2").num_rows == 0
    assert store.read_votes(catalog).num_rows == 2


@pytest.mark.parametrize("killed_at", ["rename", "replace_manifest"])
def test_a_command_killed_while_it_writes_leaves_what_was_there(catalog, monkeypatch: pytest.MonkeyPatch,
                                                                 killed_at: str):  # fmt: skip
    store.add_votes(catalog, "x", "main-1", votes(FIRST))

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(catalog) if killed_at != "rename" else type(catalog.lake),
                      killed_at, die)  # fmt: skip
        with pytest.raises(KeyboardInterrupt):
            store.add_votes(catalog, "x", "main-1", votes(OTHER))
    assert store.read_votes(catalog, "x")["item_id"].to_pylist() == ["1"]
    assert store.add_votes(catalog, "x", "main-1", votes(OTHER)) == 1
    folder = store.folder_of(catalog, VOTES_KIND, "x", "main-1")
    assert len(list(folder.glob("*.parquet"))) == 1


def test_items_are_seen_in_the_order_of_their_positions(catalog):
    rows = [{"item_id": str(place), "job": "x", "round": "main-1", "position": place, "role": "item"}
            for place in range(3)]  # fmt: skip
    store.replace(catalog, ITEMS_KIND, ("x", "main-1"), pa.Table.from_pylist(rows, schema=ITEMS), {})
    assert store.read_items(catalog, "x", "main-1")["position"].to_pylist() == [0, 1, 2]
