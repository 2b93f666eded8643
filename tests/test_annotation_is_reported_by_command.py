"""`kedge annotate report`: a job in the lake, in the terminal, as JSON and as a page."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from curation.annotation import store
from curation.annotation.records import ITEMS, ITEMS_KIND, VOTES, VOTES_KIND
from curation.catalog import Catalog
from tests.reported_job import FIRST_SLOT, JOB, RANDOM, item, job, vote

BETTER = {"name": "better", "kind": "preference"}


def freeze(catalog: Catalog, items: pa.Table, votes: pa.Table, **parameters: Any) -> None:
    """Put items and votes into the lake, as rounds of their jobs."""
    given = {"guidelines": "Choose the better answer.", "questions": [BETTER], "annotators_per_item": 3,
             "budget": {"price_per_vote": 0.5, "votes": 600}} | parameters  # fmt: skip
    for name, of in sorted({*zip(items["round"].to_pylist(), items["job"].to_pylist(), strict=True)}):
        mine, cast = (table.filter(pc.equal(table["round"], name)) for table in (items, votes))
        with catalog.writing(ITEMS_KIND, of):
            store.replace(catalog, ITEMS_KIND, (of, name), mine, given | {"job": of, "round": name})
        with catalog.writing(VOTES_KIND, of):
            store.add_votes(catalog, of, name, cast)


@pytest.fixture
def frozen(catalog) -> Catalog:
    """The simulated job, smaller."""
    freeze(catalog, *job(num_calibration=8, num_main=45))
    return catalog


def test_the_report_is_written_printed_and_told_as_json_with_the_same_figures(frozen, kedge, tmp_path):
    code, text, _ = kedge("annotate", "report", JOB, "--to", tmp_path / "report")
    assert code == 0
    for words in ("from items to pairs", "agreement", "annotators", "worst disagreements", f"- {FIRST_SLOT}: ",
                  f"next: The source {JOB}_pairs is not what the votes say now: kedge annotate resolve {JOB}",
                  "cost: EUR", "report/report.html shows all of it"):  # fmt: skip
        assert words in text
    code, text, _ = kedge("annotate", "report", JOB, "--json")
    told = json.loads(text)
    assert code == 0 and told == json.loads((tmp_path / "report" / "annotation.json").read_text())
    assert told["verdict"]["text"] in (tmp_path / "report" / "report.html").read_text()
    assert told["resolved_by"] == f"Resolved as {JOB}: majority, 2 votes or more an item."
    assert told["guidelines"] == "Choose the better answer." and told["cost"]["budget_votes"] == 600


def test_once_resolved_the_report_says_where_the_pairs_are_until_votes_come(frozen, kedge):
    assert kedge("annotate", "resolve", JOB)[0] == 0
    told = json.loads(kedge("annotate", "report", JOB, "--json")[1])
    assert not told["stale"] and told["next"][-1]["command"] == f"kedge show {JOB}_pairs"
    pairs = told["funnel"][-1]["left"]
    assert pairs == told["cost"]["pairs"] > 0
    assert frozen.source(told["source"])[1].num_rows == pairs
    assert kedge("show", told["source"])[0] == 0
    of = next(one for one in store.read_items(frozen, JOB, "main-1").to_pylist() if one["role"] == "item")
    late = [vote(of, name, "both_bad") for name in ("annotator-ff06", "annotator-gg07", "annotator-hh08")]
    with frozen.writing(VOTES_KIND, JOB):
        store.add_votes(frozen, JOB, "main-1", pa.Table.from_pylist(late, schema=VOTES))
    assert json.loads(kedge("annotate", "report", JOB, "--json")[1])["stale"]


def test_a_resolution_s_name_reports_what_it_makes_of_the_job(frozen, kedge):
    folder = frozen.project.catalogs / "resolutions"
    folder.mkdir()
    (folder / "careful.yaml").write_text(f"job: {JOB}\nmethod: dawid_skene\nwithout: [{RANDOM}]\n")
    plain = json.loads(kedge("annotate", "report", JOB, "--json")[1])
    told = json.loads(kedge("annotate", "report", "careful", "--json")[1])
    assert told["job"] == JOB and told["source"] == "careful_pairs"
    assert told["resolved_by"].startswith("Resolved as careful: dawid-skene")
    assert told["agreement"] == plain["agreement"], "who is left out is still measured"


def test_adjudications_of_a_job_belong_to_its_report(frozen, kedge):
    told = json.loads(kedge("annotate", "report", JOB, "--json")[1])
    torn = next(one for one in told["worst"] if one["outcome"] == "disputed")
    decided = item(900, "adjudication-1", 0, ("chosen", "rejected"), job="lead", of_item=torn["item_id"])
    said = vote(decided, "annotator-lead", "chosen")
    freeze(frozen, pa.Table.from_pylist([decided], schema=ITEMS), pa.Table.from_pylist([said], schema=VOTES), of=JOB,
           annotators_per_item=1, budget={"price_per_vote": 4.0})  # fmt: skip
    after = json.loads(kedge("annotate", "report", JOB, "--json")[1])
    assert after["cost"]["pairs"] == told["cost"]["pairs"] + 1
    assert after["cost"]["spent"] == told["cost"]["spent"] + 4.0
    assert after["rounds"][-1]["name"] == "lead adjudication-1" and after["round"] == "main-1"


def test_a_job_that_nobody_answered_is_reported(catalog, kedge, tmp_path):
    of = pa.Table.from_pylist([item(0, "main-1", 0, ("chosen", "rejected"))], schema=ITEMS)
    freeze(catalog, of, VOTES.empty_table())
    code, text, _ = kedge("annotate", "report", JOB, "--to", tmp_path / "out")
    assert code == 0 and "1 item, and no answer yet" in text and f"kedge annotate pull {JOB}" in text
    assert "nobody has voted" in (tmp_path / "out" / "report.html").read_text()


def test_imported_votes_without_a_number_of_annotators_are_reported(catalog, kedge):
    of = [item(number, "main-1", number, ("chosen", "rejected")) for number in range(4)]
    cast = [vote(one, name, "chosen", slots=None) for one in of for name in ("annotator-aa01", "annotator-bb02")]
    freeze(catalog, pa.Table.from_pylist(of, schema=ITEMS), pa.Table.from_pylist(cast, schema=VOTES),
           annotators_per_item=None, budget={})  # fmt: skip
    told = json.loads(kedge("annotate", "report", JOB, "--json")[1])
    assert told["rounds"][0]["complete"] is None and told["cost"]["votes_left"] == 0
    assert told["agreement"][0]["alpha"] is None and "every answer is the same" in told["agreement"][0]["problem"]
    assert kedge("annotate", "report", JOB)[0] == 0


def test_a_name_that_is_no_job_is_refused_with_what_to_do(frozen, kedge):
    code, _, err = kedge("annotate", "report", "helpfull")
    assert code == 2 and f"did you mean '{JOB}'?" in err and "Traceback" not in err
    code, _, err = kedge("annotate", "report", "nothing_like_it")
    assert code == 2 and "is no job with items" in err
