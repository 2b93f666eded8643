"""Items: what rows, generations and earlier items become, and in which slots their candidates stand."""

from __future__ import annotations

import uuid

import pytest

from curation.annotation import store
from curation.annotation.items import json_text, slots
from curation.annotation.jobs import load_job
from curation.annotation.records import ITEMS
from curation.annotation.rounds import Round, open_round
from curation.catalog import Catalog
from curation.errors import UserError
from tests.annotated import BETTER, add_generations, add_source, pair, turn, write_job

ORDER = "{name: order, kind: ranking}"
WRITE = "{name: own, kind: write}"
EDIT = "{name: new, kind: edit}"
PROMPTS = [uuid.UUID(int=1), uuid.UUID(int=2)]


def opened(catalog: Catalog, name: str = "x") -> Round:
    return open_round(catalog, load_job(catalog, name))


def said(catalog: Catalog, name: str = "x") -> str:
    with pytest.raises(UserError) as caught:
        opened(catalog, name)
    return str(caught.value)


def generation(name: str, prompt: int = 0, text: str | None = None, **more):
    made = {"generation_id": name, "row_id": PROMPTS[prompt].bytes, "prompt_hash": PROMPTS[prompt].bytes}
    asked = {"source": "asked", "prompt": [turn("user", f"Prompt {prompt}?")]}
    return made | asked | {"text": text or f"answer {name}"} | more


def keys(item: dict) -> list[str]:
    return [one["key"] for one in item["candidates"]]


def test_a_preference_row_gives_its_two_sides_as_they_are(catalog):
    long = [turn("user", "a"), turn("assistant", "b"), turn("user", "c")]
    add_source(catalog, "pairs", [pair(1, prompt=long, tools=[{"name": "t"}])])
    write_job(catalog, "x", "SELECT *, 'x' AS judge_verdict, margin * 2 AS doubled FROM rows_preference")
    (item,) = opened(catalog).items.to_pylist()
    assert opened(catalog).items.schema == ITEMS
    sides = {one["key"]: one["messages"][0]["content"] for one in item["candidates"]}
    assert sides == {"chosen": "yes 1", "rejected": "no 1"}
    assert [message["content"] for message in item["prompt"]] == ["a", "b", "c"]
    assert (item["source"], item["role"], item["of_item"], item["gold"]) == ("pairs", "item", None, None)
    assert item["meta"] == ('{"chosen_score":null,"doubled":0.02,"judge_verdict":"x","margin":0.01,'
                            '"rejected_score":null,"step_labels":null}')  # fmt: skip


def test_slots_follow_from_row_and_seed_and_are_even():
    sides = ["chosen", "rejected"]
    first = [slots(sides, ["job", "main-1", str(n)], 0) for n in range(2000)]
    assert first == [slots(list(reversed(sides)), ["job", "main-1", str(n)], 0) for n in range(2000)]
    share = sum(order[0] == "chosen" for order in first) / 2000
    assert abs(share - 0.5) < 0.04
    other = [slots(sides, ["job", "main-1", str(n)], 1) for n in range(2000)]
    assert abs(sum(a == b for a, b in zip(first, other, strict=True)) / 2000 - 0.5) < 0.04
    places = [slots(list("abcd"), ["job", str(n)], 0).index("a") for n in range(2000)]
    assert all(abs(places.count(place) / 2000 - 0.25) < 0.04 for place in range(4))


def test_a_repeated_item_shows_the_opposite_order_and_names_its_first(catalog):
    add_source(catalog, "pairs", [pair(n) for n in range(40)])
    write_job(catalog, "x", "SELECT row_id, margin AS priority FROM rows_preference", retest_share=0.2)
    items = {item["item_id"]: item for item in opened(catalog).items.to_pylist()}
    repeats = [item for item in items.values() if item["role"] == "retest"]
    assert len(repeats) == 10 and len(items) == 50
    assert len({item["of_item"] for item in repeats}) == 10
    for item in repeats:
        first = items[item["of_item"]]
        assert keys(item) == list(reversed(keys(first))) and item["row_id"] == first["row_id"]
        assert item["position"] - first["position"] > 10 and item["item_id"] != first["item_id"]


def test_generations_of_one_prompt_become_candidates_of_one_item(catalog):
    add_generations(catalog, [generation(name, prompt) for prompt in (0, 1) for name in (f"a{prompt}", f"b{prompt}",
                                                                                         f"c{prompt}")])  # fmt: skip
    write_job(catalog, "x", "SELECT list(generation_id) AS generation_ids, any_value(source) AS topic FROM generation "
              "GROUP BY prompt_hash", ORDER)  # fmt: skip
    items = opened(catalog).items.to_pylist()
    assert sorted(sorted(keys(item)) for item in items) == [["a0", "b0", "c0"], ["a1", "b1", "c1"]]
    assert {item["row_id"] for item in items} == set(PROMPTS) and items[0]["topic"] == "asked"
    for item in items:
        assert {one["generation_id"] for one in item["candidates"]} == set(keys(item))
        assert {one["model"] for one in item["candidates"]} == {"tiny"}
        assert item["prompt"][0]["content"] == f"Prompt {PROMPTS.index(item['row_id'])}?"
    assert opened(catalog).items.to_pylist() == items


@pytest.mark.parametrize(("query", "questions", "what"), [
    ("SELECT ['a', 'b', 'c'] AS generation_ids", BETTER, "needs 2 candidates, and the query gives 3"),
    ("SELECT ['a'] AS generation_ids", ORDER, "needs 2 or more candidates, and the query gives 1"),
    ("SELECT ['a', 'a'] AS generation_ids", BETTER, "1 rows name a generation twice"),
    ("SELECT ['a', 'z'] AS generation_ids", BETTER, "1 rows join answers to different prompts"),
    ("SELECT ['a', NULL] AS generation_ids", BETTER, "are ids of no generation"),
    ("SELECT []::VARCHAR[] AS generation_ids", BETTER, "1 rows have no value"),
    ("SELECT ['a', 'b'] AS generation_ids UNION ALL SELECT ['b', 'a']", BETTER, "1 come twice"),
    ("SELECT ['a', 'failed'] AS generation_ids", BETTER, "1 because a generation failed"),
    ("SELECT ['a', 'twin'] AS generation_ids", BETTER, "1 because its candidates are the same text"),
])  # fmt: skip
def test_generations_that_make_no_item_are_said(catalog, query, questions, what):
    add_generations(catalog, [generation("a"), generation("b"), generation("c"), generation("z", 1),
                              generation("failed", text=None) | {"text": None, "finish_reason": "error"},
                              generation("twin", text="answer a")])  # fmt: skip
    write_job(catalog, "x", query, questions)
    assert what in said(catalog)


def test_a_row_without_a_second_answer_is_refused_and_counted(catalog, capfd):
    add_source(catalog, "pairs", [pair(1), pair(2)])
    (catalog.project.root / "catalogs" / "sources" / "ones.yaml").write_text(
        "reader: jsonl\npath: ones.jsonl\nstage: preference\nshape: kto\n")  # fmt: skip
    (catalog.project.root / "ones.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "label": true}\n'
    )
    from curation.ingest import ingest

    ingest(catalog, "ones")
    write_job(catalog, "x", "SELECT row_id FROM rows_preference")
    found = opened(catalog)
    assert found.items.num_rows == 2 and found.counts["refused"] == {"it has one side only": 1}
    assert "1 rows are refused: 1 because it has one side only" in capfd.readouterr().err


def test_what_is_too_long_is_refused_and_never_cut(catalog):
    many = [turn("user", "q"), turn("assistant", "a")] * 260 + [turn("user", "q")]
    add_source(catalog, "pairs", [pair(1), pair(2, chosen=[turn("assistant", "x" * 3000)]), pair(3, prompt=many)])
    write_job(catalog, "x", "SELECT row_id FROM rows_preference", max_chars=2500)
    found = opened(catalog)
    assert found.items.num_rows == 1
    assert found.counts["refused"] == {"it has more than 2,500 characters": 1,
                                       "its prompt has more than 500 messages": 1}  # fmt: skip


def test_prompts_of_other_stages_ask_for_an_answer_or_a_better_one(catalog):
    talk = [turn("system", "s"), turn("user", "q1"), turn("assistant", "a1"), turn("user", "q2")]
    talk.append(turn("assistant", "a2"))
    add_source(catalog, "chat", [{"messages": talk}], "sft")
    add_source(catalog, "sums", [{"prompt": [turn("user", "1+1?")], "ground_truth": "2", "verifier": "math"}], "rlvr")
    write_job(catalog, "edits", "SELECT row_id FROM signals", EDIT, stage="sft")
    write_job(catalog, "writes", "SELECT row_id FROM signals", WRITE, stage="sft")
    write_job(catalog, "solves", "SELECT row_id FROM signals", WRITE, stage="rlvr")
    (edit,), (write,), (solve,) = (opened(catalog, name).items.to_pylist() for name in ("edits", "writes", "solves"))
    assert [message["content"] for message in edit["prompt"]] == ["s", "q1", "a1", "q2"]
    assert keys(edit) == ["original"] and edit["candidates"][0]["messages"][0]["content"] == "a2"
    assert write["prompt"] == edit["prompt"] and write["candidates"] == []
    assert [message["content"] for message in solve["prompt"]] == ["1+1?"] and solve["candidates"] == []
    write_job(catalog, "wrong", "SELECT row_id FROM signals", BETTER, stage="sft")
    assert "the preference question 'better' needs 2 candidates, and the query gives 0" in said(catalog, "wrong")
    write_job(catalog, "wrong", "SELECT row_id FROM rows_sft")
    assert "are ids of no preference row" in said(catalog, "wrong")
    write_job(catalog, "wrong", "SELECT row_id FROM signals", EDIT, stage="rlvr")
    assert "needs 1 candidate, and the query gives 0" in said(catalog, "wrong")


def test_one_generation_can_be_edited(catalog):
    add_generations(catalog, [generation("a")])
    write_job(catalog, "x", "SELECT [generation_id] AS generation_ids FROM generation", EDIT)
    (item,) = opened(catalog).items.to_pylist()
    assert keys(item) == ["original"] and item["candidates"][0]["generation_id"] == "a"
    assert opened(catalog).items.num_rows == 1


def test_a_write_question_may_stand_beside_a_verdict(catalog):
    add_source(catalog, "pairs", [pair(1)])
    write_job(catalog, "x", "SELECT row_id FROM signals", f"{BETTER}, {{name: own, kind: write, required: false}}")
    assert opened(catalog).items.num_rows == 1


def test_an_adjudication_decides_items_of_another_job_in_fresh_slots(catalog):
    add_source(catalog, "pairs", [pair(n) for n in range(60)])
    write_job(catalog, "x", "SELECT row_id, source AS topic, margin AS priority FROM rows_preference", retest_share=0.1)
    first = {item["item_id"]: item for item in opened(catalog).items.to_pylist()}
    disputed = sorted(first)[:40]
    values = ", ".join(f"('{item}')" for item in disputed)
    query = f"SELECT DISTINCT coalesce(of_item, item_id) AS item_id FROM items WHERE item_id IN ({values})"
    write_job(catalog, "lead", query, round="adjudication", of="x", assign=["lead"])
    found = opened(catalog, "lead")
    items = found.items.to_pylist()
    assert found.name == "adjudication-1" and found.annotators_per_item == 1
    assert {item["of_item"] for item in items} == {first[one]["of_item"] or one for one in disputed}
    assert all(item["candidates"] and sorted(keys(item)) == ["chosen", "rejected"] for item in items)
    assert all(item["gold"] is None and item["role"] == "item" and item["topic"] == "pairs" for item in items)
    same = [keys(item) == keys(first[item["of_item"]]) for item in items]
    assert 0.2 < sum(same) / len(same) < 0.8
    assert opened(catalog, "lead").items.equals(found.items)
    write_job(catalog, "lead", "SELECT 'nothing' AS item_id", round="adjudication", of="x")
    assert "1 are items of no round of 'x' (nothing first)" in said(catalog, "lead")
    write_job(catalog, "lead", "SELECT row_id FROM items", round="adjudication", of="x")
    assert "an adjudication needs a column item_id" in said(catalog, "lead")


def test_new_disputes_join_the_adjudication_that_is_open(catalog):
    add_source(catalog, "pairs", [pair(n) for n in range(6)])
    write_job(catalog, "x", "SELECT row_id FROM rows_preference")
    ids = opened(catalog).items["item_id"].to_pylist()
    write_job(catalog, "lead", "SELECT item_id FROM resolved WHERE job = 'x' AND outcome = 'disputed'",
              round="adjudication", of="x")  # fmt: skip
    assert "the query returns no rows" in said(catalog, "lead")
    for count in (2, 3):
        dispute(catalog, ids[:count])
        found = opened(catalog, "lead")
        assert found.name == "adjudication-1" and sorted(found.items["of_item"].to_pylist()) == sorted(ids[:count])


def dispute(catalog: Catalog, ids: list[str]) -> None:
    import pyarrow as pa

    from curation.annotation.records import RESOLVED, RESOLVED_KIND

    empty = {name: None for name in RESOLVED.names}
    rows = [empty | {"item_id": one, "job": "x", "outcome": "disputed"} for one in ids]
    store.replace(catalog, RESOLVED_KIND, ("x",), pa.Table.from_pylist(rows, schema=RESOLVED), {"job": "x"})


def test_rows_of_one_text_in_two_sources_are_two_items(catalog):
    add_source(catalog, "one", [pair(1)])
    add_source(catalog, "two", [pair(1)])
    write_job(catalog, "x", "SELECT row_id FROM rows_preference")
    items = opened(catalog).items.to_pylist()
    assert len({item["item_id"] for item in items}) == 2 == len({item["source"] for item in items})


def test_whatever_a_query_gives_beside_becomes_json():
    import datetime
    import decimal

    found = json_text({"b": float("nan"), "a": decimal.Decimal("1.5"), "c": datetime.date(2026, 1, 2),
                       "d": [PROMPTS[0]], "e": {"x": 2**70}, "f": b"x", "g": True})  # fmt: skip
    assert found == (f'{{"a":1.5,"b":null,"c":"2026-01-02","d":["{PROMPTS[0].hex}"],"e":{{"x":"{2**70}"}},'
                     '"f":"b\'x\'","g":true}')  # fmt: skip
    assert json_text({}) is None and json_text(None) is None


@pytest.mark.real_data
def test_real_pairs_become_items_that_hold_the_same_words(catalog):
    import gzip
    import json

    from curation.ingest import ingest
    from tests import REAL_DATA

    path = REAL_DATA / "preference" / "hh_rlhf_harmless_base_test.jsonl.gz"
    folder = catalog.project.catalogs / "sources"
    folder.mkdir(parents=True)
    folder.joinpath("hh.yaml").write_text(
        f"reader: jsonl\npath: {path}\nstage: preference\nshape: hh_rlhf\nreject_share: 1\n")  # fmt: skip
    ingest(catalog, "hh")
    write_job(catalog, "x", "SELECT row_id FROM rows_preference", budget={"items": 60})
    items = opened(catalog).items.to_pylist()
    assert len(items) == 60
    with gzip.open(path, "rt") as lines:
        whole = "\n".join(json.loads(line)["chosen"] for line in lines)
    shown = [one["messages"][-1]["content"] for item in items for one in item["candidates"] if one["key"] == "chosen"]
    assert all(text.strip() in whole for text in shown)
