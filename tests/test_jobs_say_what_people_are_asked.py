"""Job files: what a header may say, and what is said about a wrong one."""

from __future__ import annotations

import pytest

from curation.annotation.jobs import candidates_problem, load_job
from curation.catalog import Catalog
from curation.errors import UserError
from tests.annotated import BETTER, write_job

QUERY = "SELECT row_id FROM kept"
RATED = "{name: helpful, kind: rating}, {name: why, kind: text, required: false}"


def refused(catalog: Catalog, name: str = "x") -> str:
    with pytest.raises(UserError) as caught:
        load_job(catalog, name)
    return str(caught.value)


def test_a_job_is_its_header_guidelines_and_query(catalog):
    write_job(catalog, "x", QUERY, f"{BETTER}, {RATED}", budget={"votes": 10})
    job = load_job(catalog, "x")
    assert [item.kind for item in job.header.questions] == ["preference", "rating", "text"]
    assert (job.query, job.guidelines_text, job.header.max_items) == (QUERY, "Read both answers.", 3)
    assert job.header.verdict.name == "better" and job.header.written is None
    assert load_job(catalog.project, "x") == job


def test_guidelines_may_lie_beside_the_job_and_nowhere_else(catalog):
    path = write_job(catalog, "x", QUERY, guidelines="how.md")
    assert "how.md: cannot be read" in refused(catalog)
    (path.parent / "how.md").write_text("# Read\n")
    assert load_job(catalog, "x").guidelines_text == "# Read"
    (path.parent / "how.md").write_text("\n")
    assert "'how.md' is empty" in refused(catalog)
    write_job(catalog, "x", QUERY, guidelines="../../kedge.md")
    assert "does not lie beside the job" in refused(catalog)


def test_the_edition_changes_with_what_people_read_alone(catalog):
    write_job(catalog, "x", QUERY)
    before = load_job(catalog, "x")
    write_job(catalog, "x", QUERY, budget={"items": 5, "price_per_vote": 2.0}, workspace="other")
    cheaper = load_job(catalog, "x")
    write_job(catalog, "x", QUERY, seed=1)
    seeded = load_job(catalog, "x")
    write_job(catalog, "x", QUERY, guidelines="Read one answer.")
    reworded = load_job(catalog, "x")
    assert (cheaper.edition, cheaper.identity) == (before.edition, before.identity)
    assert seeded.edition == before.edition and seeded.identity != before.identity
    assert reworded.edition != before.edition and len(reworded.edition) == 12


def test_a_name_that_is_not_there_gets_a_proposal(catalog):
    write_job(catalog, "helpful", QUERY)
    assert "did you mean 'helpful'?" in refused(catalog, "helpfull")
    assert "write catalogs/annotations/zzz.sql" in refused(catalog, "zzz")
    write_job(catalog, "Mine-1", QUERY)
    assert "'Mine-1' is no name for a job" in refused(catalog, "Mine-1")


def test_all_problems_of_a_header_come_at_once_with_their_lines(catalog):
    write_job(catalog, "x", QUERY, "{name: better, kind: prefer}", retest_share=2, annotators=3)
    text = refused(catalog)
    assert len(text.splitlines()) == 3
    assert "x.sql:3: questions.0.kind" in text and "x.sql:4: retest_share" in text and "x.sql:5: annotators" in text


@pytest.mark.parametrize(("questions", "header", "what"), [
    (f"{BETTER}, {{name: better, kind: text}}", {}, "two are named 'better'"),
    (f"{BETTER}, {{name: order, kind: ranking}}", {}, "more than one asks for a verdict"),
    (f"{BETTER}, {{name: new, kind: edit}}", {}, "an edit needs one answer"),
    ("{name: new, kind: edit}, {name: own, kind: write}", {}, "more than one asks for an answer"),
    ("{name: why, kind: text, required: false}", {}, "none is required"),
    ("{name: why, kind: text, tie: false}", {}, "belongs to preference questions"),
    ("{name: odd, kind: flags}", {}, "must be different, and at least one"),
    ("{name: good, kind: rating, values: [3, 1]}", {}, "rising numbers"),
    (BETTER, {"round": "adjudication"}, "names the job whose items"),
    (BETTER, {"of": "y"}, "names the job whose items"),
    (BETTER, {"round": "adjudication", "of": "y", "gold_share": 0.5}, "no place in an adjudication"),
    (BETTER, {"round": "calibration"}, "is needed in a calibration"),
    (BETTER, {"gold_share": 0.7, "retest_share": 0.5}, "pass 1 together"),
    ("{name: own, kind: write}", {"retest_share": 0.1}, "answers to compare"),
    (RATED, {"gold_share": 0.1}, "needs a preference or ranking question"),
    (BETTER, {"budget": {"votes": 2}}, "2 votes are less than the 3 of one item"),
    (BETTER, {"budget": {"price_per_vote": -1}}, "price_per_vote"),
    (BETTER, {"of": "no such name", "round": "adjudication"}, "there is no job 'no such name'"),
])  # fmt: skip
def test_a_header_that_contradicts_itself_is_refused(catalog, questions, header, what):
    write_job(catalog, "x", QUERY, questions, **header)
    text = refused(catalog)
    assert what in text and "x.sql" in text


def test_the_kind_of_round_decides_how_many_annotate_an_item(catalog):
    write_job(catalog, "x", QUERY)
    write_job(catalog, "c", QUERY, round="calibration", assign=["ann", "ben", "cy", "di"])
    write_job(catalog, "a", QUERY, round="adjudication", of="x")
    assert [load_job(catalog, name).header.annotators_per_item for name in "xca"] == [3, 4, 1]
    write_job(catalog, "c", QUERY, round="calibration", annotators_per_item=6)
    assert load_job(catalog, "c").header.annotators_per_item == 6


def test_every_question_says_how_many_candidates_it_takes(catalog):
    write_job(catalog, "x", QUERY, f"{BETTER}, {{name: own, kind: write}}")
    better, own = load_job(catalog, "x").header.questions
    write_job(catalog, "x", QUERY, "{name: order, kind: ranking}")
    order = load_job(catalog, "x").header.questions
    write_job(catalog, "x", QUERY, "{name: new, kind: edit}")
    new = load_job(catalog, "x").header.questions
    assert candidates_problem([better, own], 2) is None
    assert "'better' needs 2 candidates, and the query gives 0" in candidates_problem([better, own], 0)
    assert candidates_problem([own], 0) is None
    assert candidates_problem(order, 26) is None and "needs 2 or more" in candidates_problem(order, 1)
    assert "at most 26" in candidates_problem(order, 27)
    assert candidates_problem(new, 1) is None and "needs 1 candidate" in candidates_problem(new, 2)


def test_the_shipped_job_can_be_read_in_any_project(catalog):
    job = load_job(catalog, "uncertain_pairs")
    assert [item.kind for item in job.header.questions] == ["preference", "text", "flags"]
