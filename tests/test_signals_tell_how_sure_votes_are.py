"""The measure `annotation` and the rule `weakly_agreed`: votes as signals beside the rows that they made."""

from __future__ import annotations

import json

import pyarrow as pa

from curation.annotation.resolve_command import run
from curation.catalog import Catalog
from curation.measuring import ensure, named, signal_parts
from tests.test_resolved_votes_become_a_source import AGREED, REVERSED, voted
from tests.verdicts_of import rule_of, verdicts_of
from tests.voted_job import JOB, item, vote
from tests.voted_job import freeze as freeze_round


def measured(*metas: object) -> list[dict]:
    texts = [None if meta is None else json.dumps(meta, separators=(",", ":")) for meta in metas]
    rows = pa.table({"meta": pa.array(texts, pa.string())})
    return named("annotation").measure(rows, "preference").to_pylist()


def test_votes_are_read_from_meta_and_other_rows_have_none():
    told = {"votes": 3, "votes_for_chosen": 2, "agreement": 0.5, "confidence": 0.69, "vote_margin": -0.5,
            "adjudicated": True}  # fmt: skip
    nothing = dict.fromkeys(("num_votes", "vote_agreement", "vote_confidence", "vote_margin", "adjudicated"))
    assert measured(told, None, {"votes": 7}) == [
        {"num_votes": 3, "vote_agreement": 0.5, "vote_confidence": 0.69, "vote_margin": -0.5, "adjudicated": True},
        nothing, nothing,
    ]  # fmt: skip
    odd = {"votes_for_chosen": 1, "votes": "many", "confidence": True, "agreement": None, "adjudicated": 1}
    assert measured(odd) == [nothing]
    assert measured() == []


def test_weakly_agreed_names_pairs_in_doubt_and_is_not_adopted(catalog: Catalog):
    items = voted(catalog, AGREED, REVERSED, ("chosen", "rejected", "tie"))
    lead = item(2, {"chosen": "a", "rejected": "b"}, job="lead", round_name="adjudication-1",
                of_item=items[2]["item_id"])  # fmt: skip
    freeze_round(catalog, [lead], [vote(lead, "annotator-lead", "chosen")], of=JOB)
    run(catalog, JOB)
    measure = named("annotation")
    ensure(catalog, measure)
    assert signal_parts(catalog, measure, f"{JOB}_pairs") is not None
    assert not rule_of(catalog, "weakly_agreed").header.adopted
    assert verdicts_of(catalog, "weakly_agreed") == {
        (f"{JOB}_pairs", 2): "3 votes make its label right with probability 0.69"
    }
