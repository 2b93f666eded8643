"""Rounds: which items a job's query and budget give, in which order, and what opens another round."""

from __future__ import annotations

import functools
import random
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.annotation import store
from curation.annotation.choosing import Offers
from curation.annotation.items import GOLD, ITEM, RETEST, RETEST_DISTANCE, is_gold, plan
from curation.annotation.jobs import JobHeader, load_job
from curation.annotation.records import ITEMS_KIND, VOTES
from curation.annotation.rounds import Round, latest_round, open_round, rounds_of
from curation.catalog import Catalog
from curation.errors import LockHeld, UserError
from tests.annotated import BETTER, add_source, pair, write_job
from tests.lakes import lake_bytes

QUERY = "SELECT row_id, json_extract_string(meta, '$.topic') AS topic, margin AS priority, margin FROM rows_preference"
QUESTION = {"name": "better", "kind": "preference"}


def header(**more) -> JobHeader:
    return JobHeader.model_validate({"guidelines": "x", "questions": [QUESTION]} | more)


def opened(catalog: Catalog, name: str = "x") -> Round:
    return open_round(catalog, load_job(catalog, name))


def texts(found: Round) -> list[str]:
    return [item["prompt"][-1]["content"] for item in found.items.to_pylist()]


def said(catalog: Catalog, name: str = "x") -> str:
    with pytest.raises(UserError) as caught:
        opened(catalog, name)
    return str(caught.value)


def vote(item: dict, annotator: str = "annotator-1", **more) -> dict:
    of_item = {name: item[name] for name in ("item_id", "job", "round")}
    answer = {"annotator": annotator, "kind": "person", "status": "submitted", "verdict": "chosen", "values": "{}"}
    return {name: None for name in VOTES.names} | of_item | answer | more


@pytest.fixture
def pairs(catalog: Catalog) -> Catalog:
    """Twelve pairs of three topics; the margin falls with the number."""
    add_source(catalog, "pairs", [pair(n, topic="abc"[n % 3], margin=(12 - n) / 100) for n in range(12)])
    return catalog


def test_topics_take_turns_and_the_most_important_comes_first(pairs):
    write_job(pairs, "x", QUERY)
    found = opened(pairs)
    assert found.name == "main-1" and found.kind == "main"
    assert texts(found) == [f"Question {n}?" for n in range(12)]
    assert [item["topic"] for item in found.items.to_pylist()] == list("abc") * 4
    assert found.items["position"].to_pylist() == list(range(12))
    assert found.counts["items"] == 12 and found.counts["left_over"] == 0


def test_rows_of_equal_importance_come_in_an_order_that_the_seed_decides(pairs):
    write_job(pairs, "x", "SELECT row_id FROM rows_preference", seed=1)
    first = texts(opened(pairs))
    write_job(pairs, "x", "SELECT row_id FROM rows_preference", seed=2)
    assert sorted(texts(opened(pairs))) == sorted(first) != first
    assert texts(opened(pairs)) != first


def test_the_budget_counts_items_or_votes(pairs):
    write_job(pairs, "x", QUERY, budget={"items": 7})
    write_job(pairs, "y", QUERY, budget={"items": 7, "votes": 17})
    assert opened(pairs).items.num_rows == 7 and opened(pairs, "y").items.num_rows == 5


def test_a_round_is_frozen_and_opening_it_again_changes_no_byte(pairs):
    write_job(pairs, "x", QUERY, budget={"items": 6}, retest_share=0.1)
    first = opened(pairs)
    before = lake_bytes(pairs.project.root, "evidence")
    assert opened(pairs).items.equals(first.items)
    add_source(pairs, "more", [pair(100 + n, margin=9.0) for n in range(5)])
    assert opened(pairs).items.equals(first.items)
    assert lake_bytes(pairs.project.root, "evidence") == before


def test_more_budget_appends_and_gives_the_bytes_of_a_round_made_at_once(pairs, tmp_path_factory, monkeypatch):
    shares = {"gold_share": 0.2, "retest_share": 0.1}
    query = QUERY.replace("margin FROM", "CASE WHEN margin > 0.6 THEN 'rejected' END AS gold FROM")
    add_source(pairs, "others", [pair(40 + n, topic="cd"[n % 2]) for n in range(30)])
    write_job(pairs, "x", query, budget={"items": 40}, **shares)
    whole = opened(pairs)
    at_once = lake_bytes(pairs.project.root, "evidence")
    for path in (pairs.folder("evidence", ITEMS_KIND) / "x.main-1").iterdir():
        path.unlink()
    for items in (3, 4, 17, 31, 40):
        write_job(pairs, "x", query, budget={"items": items}, **shares)
        found = opened(pairs)
        assert found.name == "main-1"
        assert found.items.equals(whole.items.slice(0, items))
    assert lake_bytes(pairs.project.root, "evidence") == at_once
    assert Counter(whole.items["role"].to_pylist()) == {ITEM: 29, GOLD: 8, RETEST: 3}  # one more is due


def test_a_price_a_smaller_budget_and_a_workspace_change_no_item(pairs):
    write_job(pairs, "x", QUERY, budget={"items": 6})
    first = opened(pairs)
    write_job(pairs, "x", QUERY, budget={"items": 4, "price_per_vote": 1.5}, workspace="other")
    later = opened(pairs)
    assert later.name == "main-1" and later.items.equals(first.items)
    assert later.budget.price_per_vote == 1.5


@pytest.mark.parametrize(("change", "words"), [
    ({"guidelines": "Read them twice."}, "the guidelines changed"),
    ({"questions": BETTER.replace("}", ", title: Which?}")}, "the questions changed"),
    ({"annotators_per_item": 5}, "annotators_per_item changed"),
    ({"seed": 3}, "the seed changed"),
    ({"query": QUERY + " WHERE margin < 1"}, "the query changed"),
    ({"retest_share": 0.2}, "retest_share changed"),
])  # fmt: skip
def test_another_question_opens_another_round_and_says_why(pairs, capfd, change, words):
    write_job(pairs, "x", QUERY)
    first = opened(pairs)
    write_job(pairs, "x", **{"query": QUERY, **change})
    capfd.readouterr()
    second = opened(pairs)
    assert second.name == "main-2" and f"{words}: main-2 opens, main-1 stays as it is" in capfd.readouterr().err
    assert not set(first.items["item_id"].to_pylist()) & set(second.items["item_id"].to_pylist())
    assert [one.name for one in rounds_of(pairs, "x")] == ["main-1", "main-2"]
    write_job(pairs, "x", QUERY)
    assert opened(pairs).name == "main-1" == latest_round(pairs, "x").name


def test_a_round_tells_later_commands_what_was_asked_without_the_file(pairs):
    path = write_job(pairs, "x", QUERY, guidelines="Read *both*.", budget={"items": 3, "price_per_vote": 0.5},
                     assign=["secret_login"])  # fmt: skip
    opened(pairs)
    path.unlink()
    found = latest_round(pairs, "x")
    assert (found.guidelines, found.annotators_per_item, found.budget.price_per_vote) == ("Read *both*.", 3, 0.5)
    assert [item.name for item in found.questions] == ["better"] and found.edition
    assert "secret_login" not in (pairs.folder("evidence", ITEMS_KIND, "x.main-1") / "manifest.json").read_text()


def test_a_job_without_rounds_is_a_users_error(pairs):
    write_job(pairs, "x", QUERY)
    with pytest.raises(UserError, match="has no items yet; run: kedge annotate push x"):
        latest_round(pairs, "x")
    with pytest.raises(UserError, match="there is no annotation job 'y'"):
        latest_round(pairs, "y")


def test_two_commands_do_not_open_a_round_at_once(pairs):
    write_job(pairs, "x", QUERY)
    job = load_job(pairs, "x")
    with pairs.writing(ITEMS_KIND, "x"), pytest.raises(LockHeld):
        open_round(pairs, job)


def test_what_was_answered_is_not_asked_again(pairs):
    write_job(pairs, "x", QUERY, budget={"items": 5})
    first = opened(pairs)
    items = first.items.to_pylist()
    votes = [vote(items[0]), vote(items[1], status="draft"), vote(items[2], kind="judge")]
    with pairs.writing("votes", "x"):
        store.add_votes(pairs, "x", "main-1", pa.Table.from_pylist(votes, schema=VOTES))
    write_job(pairs, "y", "SELECT row_id FROM rows_preference WHERE row_id NOT IN (SELECT row_id FROM annotated)")
    asked = texts(opened(pairs, "y"))
    assert len(asked) == 11 and items[0]["prompt"][0]["content"] not in asked
    fresh = QUERY + " WHERE row_id NOT IN (SELECT row_id FROM annotated)"
    write_job(pairs, "x", fresh, budget={"items": 5})
    opened(pairs)
    write_job(pairs, "x", fresh, budget={"items": 20})
    assert sorted(texts(opened(pairs))) == sorted(asked)


def test_the_same_rows_in_any_order_and_on_any_threads_give_the_same_bytes(catalog, tmp_path_factory, monkeypatch):
    from curation.config import find_project

    records = [pair(n, topic="ab"[n % 2]) for n in range(30)]
    found = []
    for seed in (0, 1):
        folder = tmp_path_factory.mktemp("other")
        (folder / "kedge.yaml").write_text("tokenizers: {}\n")
        monkeypatch.chdir(folder)
        other = Catalog(find_project(folder))
        random.Random(seed).shuffle(records)
        add_source(other, "pairs", records)
        write_job(other, "x", QUERY.replace("margin AS priority", "1.0 AS priority"), retest_share=0.1)
        with monkeypatch.context() as patched:
            patched.setattr(Catalog, "session", functools.partialmethod(Catalog.session, threads=seed * 3 + 1))
            opened(other)
        found.append(lake_bytes(folder, "evidence"))
    assert found[0] == found[1]


@pytest.mark.parametrize(("query", "what"), [
    ("SELECT row_id FROM rows_preference WHERE false", "the query returns no rows"),
    ("SELECT row_id FROM rows_preference UNION ALL SELECT row_id FROM rows_preference", "12 come twice"),
    ("SELECT uuid() AS row_id", "uuid() gives other rows at each run"),
    ("SELECT row_id FROM rows_preference, (SELECT random())", "random() gives other rows"),
    ("SELECT '00000000-0000-0000-0000-000000000001'::UUID AS row_id", "are ids of no preference row"),
    ("SELECT NULL AS row_id", "1 rows have no value"),
    ("SELECT source FROM rows_preference", "returns no column row_id"),
    ("SELECT item_id FROM items", "returns no column row_id"),
    ("SELECT row_id FROM nowhere", "nowhere"),
    ("SELECT row_id\nFROM signals\nWHERE x = 1", "x.sql:7"),
    ("SELECT row_id, 'much' AS priority FROM signals", "much"),
    ("SELECT 1 AS row_id; SELECT 2", "exactly one SELECT"),
    ("SELECT row_id FROM read_csv('/etc/passwd')", "x.sql"),
    ("SELECT row_id, 'chosen' AS gold FROM signals", "12 rows have a gold verdict, and gold_share is 0"),
    ("SELECT ['x'] AS generation_ids", "1 are ids of no generation (x first)"),
])  # fmt: skip
def test_a_query_that_cannot_be_asked_about_is_a_users_error(pairs, query, what):
    write_job(pairs, "x", query)
    text = said(pairs)
    assert what in text and "x.sql" in text
    assert rounds_of(pairs, "x") == []


def test_gold_must_name_a_candidate_and_there_must_be_enough_of_it(pairs):
    query = "SELECT row_id, CASE WHEN margin > 0.08 THEN {} END AS gold FROM rows_preference"
    write_job(pairs, "x", query.format("'best'"), gold_share=0.5)
    assert "4 gold verdicts name no candidate ('best' first); write a candidate's key, tie or both_bad" in said(pairs)
    write_job(pairs, "x", query.format("'tie'"), BETTER.replace("}", ", tie: false}"), gold_share=0.5)
    assert "name no candidate ('tie' first)" in said(pairs)
    write_job(pairs, "x", query.format("'tie'"), gold_share=0.5)
    assert "should be gold, and the query gives 4 more verdicts" in said(pairs)
    write_job(pairs, "x", query.format("'rejected'"), gold_share=0.25)
    items = opened(pairs).items.to_pylist()
    assert {item["gold"] for item in items if item["role"] == GOLD} == {"rejected"}
    assert {item["gold"] for item in items if item["role"] == ITEM} == {None}
    assert all("gold" not in (item["meta"] or "") for item in items)


def test_kept_and_signals_are_those_of_the_rules_and_measures(pairs):
    twin = pair(1, chosen=[{"role": "assistant", "content": "no 1"}])
    add_source(pairs, "twins", [twin])  # both sides are the same: a rule leaves it out
    write_job(pairs, "x", "SELECT row_id, side_similarity FROM signals WHERE source = 'twins'", needs=["pair_quality"])
    assert "none of the 1 rows can be shown: 1 because its candidates are the same text" in said(pairs)
    write_job(pairs, "x", "SELECT row_id, side_similarity FROM kept", needs=["pair_quality"])
    found = opened(pairs)
    assert found.items.num_rows == 12 and '"side_similarity":' in found.items["meta"][0].as_py()
    shipped = opened(pairs, "uncertain_pairs")
    assert texts(shipped)[0] == "Question 11?" and shipped.counts["retest"] == 0
    write_job(pairs, "x", "SELECT row_id FROM kept", needs=["answer_correctness"])
    assert "has no values for preference rows" in said(pairs)


numbers = st.integers(0, 60)


@settings(max_examples=60, deadline=None)
@given(plain=numbers, gold=numbers, share=st.sampled_from([0.0, 0.05, 0.2, 0.33, 0.5, 1.0]),
       retest=st.sampled_from([0.0, 0.05, 0.1, 0.3]), items=st.integers(1, 80), steps=st.lists(st.integers(1, 80)),
       seed=st.integers(0, 5))  # fmt: skip
def test_a_longer_plan_begins_with_the_shorter_one(plain, gold, share, retest, items, steps, seed):
    if share + retest > 1:
        retest = 0.0
    subjects = [f"p{n}" for n in range(plain)], [f"g{n}" for n in range(gold)]

    def planned(limit: int, before=()):
        used = {key for role, key in before if role != RETEST}
        left = [[key for key in pool if key not in used] for pool in subjects]
        of = header(gold_share=share, retest_share=retest, seed=seed, budget={"items": limit})
        return plan(of, Offers(*left, plain + gold, {}), before)

    try:
        whole = planned(items)
    except UserError:
        assert gold < items * share + 2
        return
    before = []
    for limit in [*sorted(step for step in steps if step <= items), items]:
        before = planned(limit, before)
        assert before == whole[:limit]
    assert len({place for place in whole}) == len(whole) <= items
    first = {key: position for position, (role, key) in enumerate(whole) if role == ITEM}
    for position, (role, key) in enumerate(whole):
        assert (role == GOLD) == is_gold(position, share, seed)
        assert role != RETEST or position - first[key] > RETEST_DISTANCE
    assert sum(role == RETEST for role, _ in whole) <= retest * len(whole)


def test_the_share_of_gold_and_repetitions_is_the_one_asked_for():
    found = plan(header(gold_share=0.1, retest_share=0.05, budget={"items": 400}),
                 Offers([f"p{n}" for n in range(400)], [f"g{n}" for n in range(60)], 460, {}))  # fmt: skip
    assert Counter(role for role, _ in found) == {ITEM: 340, GOLD: 40, RETEST: 20}
    assert len({position % 10 for position, (role, _) in enumerate(found) if role == GOLD}) > 5
