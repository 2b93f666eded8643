"""Every hit on a benchmark item is evidence: where, which part of which item, how alike, and what kind of agreement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation import schema
from curation.fingerprint import hash_file
from curation.join_work import JoinWork, RowPart
from curation.measures.contamination import Contamination

STORY = ("Natalia sold 48 painted clips to her friends in the warm month of April and then she sold half as many clips "
         "in May before the fair. How many clips did Natalia sell altogether in both months?")  # fmt: skip
QUIET = "the river ran slowly past the old mill while nobody looked at it and the evening came over quiet fields"
FILLER = QUIET.split()
STEPS = ("Natalia sold half of the first number in May, which gives the second number, and so the sum of both months "
         "is the number that the question asks for.")  # fmt: skip


def row_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def write_part(path: Path, stage: str, source: str, rows: list[dict[str, Any]], first: int = 0) -> RowPart:
    of = schema.rows(stage)
    full = [dict.fromkeys(of.names) | {"row_id": row_id(first + number), "source": source, "stage": stage} | row
            for number, row in enumerate(rows)]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(full, of), path)
    return RowPart(source, stage, path, hash_file(path), len(rows))


def work_of(folder: Path, parts: list[RowPart], against: list[RowPart], cache: Path | None = None) -> JoinWork:
    connection = duckdb.connect()
    connection.execute("SET arrow_lossless_conversion = true")
    union = " UNION ALL ".join(f"SELECT row_id, source FROM read_parquet('{part.path}')" for part in parts)
    connection.execute(f"CREATE VIEW rows AS {union}")
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    return JoinWork(connection, tuple(parts), tuple(against), {}, scratch, cache or folder / "cache", None, 1)


def compare(folder: Path, rows: list[dict[str, Any]], items: list[dict[str, Any]], stage: str = "midtrain",
            **options: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:  # fmt: skip
    """(evidence, values per row, counts) of rows 0.. against items 1000.. ."""
    parts = [write_part(folder / "rows.parquet", stage, "web", rows)]
    work = work_of(folder, parts, [write_part(folder / "items.parquet", "benchmark", "exam", items, 1000)])
    Contamination(**options).join(work)
    found, measured = (work.connection.execute(f"SELECT * FROM {name} ORDER BY ALL").fetchall()
                       for name in ("found", "measured"))  # fmt: skip
    names = [of.name for of in Contamination.evidence]
    return ([dict(zip(names, row, strict=True)) for row in found],
            [dict(zip(["row_id", *Contamination.columns.names], row, strict=True)) for row in measured],
            work.counts)  # fmt: skip


def inside(text: str) -> str:
    return f"{' '.join(FILLER)}. {text} {' '.join(reversed(FILLER))}."


def talk(*turns: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(turns)]


def test_a_copy_is_named_with_its_item_component_and_offsets_on_both_sides(tmp_path):
    text = inside(STORY)
    found, measured, counts = compare(tmp_path, [{"text": text}, {"text": inside("")}], [{"question": STORY}])
    (hit,) = found
    assert (hit["row_id"].int, hit["source"], hit["stage"]) == (0, "web", "midtrain")
    assert (hit["benchmark"], hit["item"].int, hit["component"]) == ("exam", 1000, "question")
    assert (hit["class"], hit["score"], hit["method"]) == ("copy", 1.0, "alignment")
    assert text[hit["start_char"] : hit["end_char"]] == STORY.removesuffix("?") == hit["snippet"]
    assert STORY[hit["item_start"] : hit["item_end"]] == hit["item_snippet"]
    assert (hit["text_column"], hit["turn"], hit["role"], hit["field"], hit["further"]) == (
        "text", None, None, "content", [])  # fmt: skip
    assert hit["seeds"] == len(STORY.split()) - 4 + 1 and hit["seed_idf"] > 0 and hit["answer_nearby"] is None
    assert [(row["contamination_score"], row["contamination_class"], row["contamination_items"])
            for row in measured] == [(1.0, "copy", 1), (0.0, None, 0)]  # fmt: skip
    assert counts["found"] == {"exam": {"rows": 1, "items": 1, "twin_rows": 0}}


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda text: text.upper().replace(",", "").replace(".", ""), "copy"),
        (lambda text: text.replace(" ", "\n", 5).replace(". ", ".\n\n"), "copy"),
        (lambda text: text.replace("clips", "paper hats", 1).replace("friends", "cousins"), "edited"),
        (
            lambda text: text.replace("painted", "pained").replace("friends", "freinds").replace("both", "boht"),
            "edited",
        ),
        (lambda text: text.replace("48", "52").replace("Natalia", "Weng"), "twin"),
        (lambda text: text.replace("48", "96"), "twin"),
        (lambda text: text.replace("in April", "in April", 1).replace("May", "June"), "twin"),
    ],
)
def test_copies_edits_and_twins_are_told_apart(tmp_path, change, kind):
    found, measured, _ = compare(tmp_path, [{"text": inside(change(STORY))}], [{"question": STORY}])
    assert [hit["class"] for hit in found] == [kind]
    (row,) = measured
    twin = kind == "twin"
    assert (row["contamination_score"] == 0.0) == twin and (row["benchmark_twin_score"] > 0.8) == twin
    assert row["contamination_items"] == (0 if twin else 1)


def test_rows_about_the_same_things_in_other_words_are_no_hits(tmp_path):
    texts = ["In April Natalia sold clips to friends, and in May she sold fewer of them; the question is how many.",
             "How many clips did Natalia sell altogether in both months? Nobody knows, since no number was given.",
             inside("")]  # fmt: skip
    found, measured, _ = compare(tmp_path, [{"text": text} for text in texts], [{"question": STORY}])
    assert found == [] and all(row["contamination_score"] == 0.0 for row in measured)


@pytest.mark.parametrize("between", [(), ("Go on.",), (" ".join(FILLER * 4),)])
def test_an_item_split_over_turns_is_found_with_its_further_places(tmp_path, between):
    cut = STORY.index("and then")
    turns = talk(f"Here it comes. {STORY[:cut]}", *between, f"{STORY[cut:]} Thanks.")
    found, _, _ = compare(tmp_path, [{"messages": turns}], [{"question": STORY}], stage="sft")
    (hit,) = found
    pieces = [hit, *hit["further"]]
    texts = [turns[piece["turn"]]["content"][piece["start_char"] : piece["end_char"]] for piece in pieces]
    assert {"Natalia sold 48 painted clips to her friends in the warm month of April"} <= set(texts)
    assert any(text.startswith("and then she sold half") and text.endswith("both months") for text in texts)
    assert hit["score"] > 0.85 and {piece["text_column"] for piece in pieces} == {"messages"}


def test_answers_passages_and_choices_are_components_of_their_own(tmp_path):
    item = {"question": "Which of these is so?", "answer": STEPS,
            "passage": "Old mills stood on both banks, and the miller's three daughters ground rye for every village.",
            "choices": ["The mill burned down", "Rye was never grown there", "The daughters left",
                        "Nobody knows"]}  # fmt: skip
    rows = [{"text": inside(item["answer"])}, {"text": inside(item["passage"])},
            {"text": inside(" ".join(item["choices"]))}]  # fmt: skip
    found, measured, _ = compare(tmp_path, rows, [item])
    assert {(hit["row_id"].int, hit["component"]) for hit in found} == {(0, "answer"), (1, "passage"), (2, "choices")}
    assert [row["contamination_items"] for row in measured] == [1, 1, 1]


def test_an_answer_near_the_question_is_a_further_fact(tmp_path):
    items = [{"question": STORY, "answer": "72"}]
    rows = [{"text": f"{STORY} The result is 72."}, {"text": f"{STORY} The result is 71."},
            {"text": f"{STORY} {' '.join(FILLER * 3)} 72"}, {"text": "72 and 72 and 72"}]  # fmt: skip
    found, _, _ = compare(tmp_path, rows, items)
    assert {hit["row_id"].int: hit["answer_nearby"] for hit in found} == {0: True, 1: False, 2: False}
    longer = {"question": STORY, "answer": STEPS}
    found, _, _ = compare(tmp_path, [{"text": f"{STORY} {STEPS}"}, {"text": STORY}], [longer])
    assert {(hit["row_id"].int, hit["component"]): hit["answer_nearby"] for hit in found} == {
        (0, "question"): True, (0, "answer"): None, (1, "question"): False}  # fmt: skip


def test_an_answer_that_is_a_letter_stands_for_its_choice(tmp_path):
    item = {"question": STORY, "answer": "B", "choices": ["seventy clips", "seventy two clips"]}
    found, _, _ = compare(tmp_path, [{"text": f"{STORY} It is seventy two clips."}, {"text": f"{STORY} B"}], [item])
    assert {hit["row_id"].int: hit["answer_nearby"] for hit in found} == {0: True, 1: False}


def test_chinese_items_are_found_although_they_have_no_spaces(tmp_path):
    item = "小明有五个红苹果和三个青苹果，他把两个苹果送给了妹妹，请问小明现在还剩下多少个苹果？"
    other = "春天来了，河边的柳树发芽了，孩子们在草地上放风筝，老人坐在长椅上晒太阳，说着从前的故事。"
    found, _, _ = compare(tmp_path, [{"text": f"{other}{item}{other}"}, {"text": other}], [{"question": item}])
    (hit,) = found
    assert (hit["row_id"].int, hit["class"], hit["start_char"]) == (0, "copy", len(other))
    assert hit["snippet"] == item.removesuffix("？")


def test_items_too_short_to_check_are_listed_with_the_reason(tmp_path):
    items = [{"question": "Osteoclasts"}, {"question": STORY}, {"question": "2 + 2 - 5 + 7"}]
    items += [{"question": "Answer with care and say yes or no to this"} for _ in range(70)]
    found, _, counts = compare(tmp_path, [{"text": inside("Osteoclasts 2 + 2 - 5 + 7 " + STORY)}], items)
    assert [hit["item"].int for hit in found] == [1001]
    assert counts["items"] == {"exam": 73} and counts["items_not_checkable"] == {"exam": 72}
    assert counts["not_checkable_by_reason"] == {"every n-gram common among items": 70, "too short": 2}
    assert counts["not_checkable"][0] == {"benchmark": "exam", "item": row_id(1000).hex(), "component": "question",
                                          "reason": "too short"}  # fmt: skip
    assert counts["paraphrase"] == "unchecked"


def test_both_sides_of_a_pair_and_the_reference_solution_are_searched(tmp_path):
    prompt = talk("A word problem, please.")
    pair = {"prompt": prompt, "chosen": [{"role": "assistant", "content": "No."}],
            "rejected": [{"role": "assistant", "content": inside(STORY)}]}  # fmt: skip
    found, _, _ = compare(tmp_path, [pair], [{"question": STORY}], stage="preference")
    assert [(hit["text_column"], hit["role"], hit["turn"]) for hit in found] == [("rejected", "assistant", 0)]
    task = {"prompt": talk(STORY), "ground_truth": "72", "reference_solution": STEPS}
    found, _, _ = compare(tmp_path, [task], [{"question": STORY, "answer": STEPS}], stage="rlvr")
    assert {(hit["text_column"], hit["component"]) for hit in found} == {
        ("prompt", "question"), ("reference_solution", "answer")}  # fmt: skip


def test_an_item_that_stands_in_two_benchmarks_is_reported_for_both(tmp_path):
    parts = [write_part(tmp_path / "rows.parquet", "midtrain", "web", [{"text": inside(STORY)}])]
    against = [write_part(tmp_path / f"{name}.parquet", "benchmark", name, [{"question": STORY}], 1000 + number)
               for number, name in enumerate(("exam", "trial"))]  # fmt: skip
    work = work_of(tmp_path, parts, against)
    Contamination().join(work)
    assert work.connection.execute("SELECT benchmark FROM found ORDER BY 1").fetchall() == [("exam",), ("trial",)]
    assert work.connection.execute("SELECT contamination_items FROM measured").fetchall() == [(2,)]


def test_without_a_benchmark_nothing_is_compared_and_the_values_are_null(tmp_path):
    work = work_of(tmp_path, [write_part(tmp_path / "rows.parquet", "midtrain", "web", [{"text": STORY}])], [])
    Contamination().join(work)
    columns = ", ".join(Contamination.columns.names)
    assert work.connection.execute(f"SELECT {columns} FROM measured").fetchall() == [(None,) * 6]
    assert work.connection.execute("SELECT count(*) FROM found").fetchall() == [(0,)]


def test_the_commands_ingest_a_benchmark_measure_and_leave_the_row_out_with_a_reason(catalog, kedge):
    lines = [json.dumps({"messages": talk(text, "All right.")}) for text in
             (STORY, STORY.replace("48", "52").replace("Natalia", "Weng"), inside(""))]  # fmt: skip
    Path("web.jsonl").write_text("\n".join(lines) + "\n")
    Path("exam.jsonl").write_text(json.dumps({"question": STORY, "answer": "72"}) + "\n")
    assert kedge("add", "web.jsonl", "--stage", "sft")[0] == 0
    assert kedge("add", "exam.jsonl", "--stage", "benchmark")[0] == 0
    assert kedge("measure", "--only", "contamination")[0] == 0
    code, out, _ = kedge("rules", "contaminated", "--json")
    assert code == 0 and json.loads(out)
    query = "SELECT class FROM contamination_hits ORDER BY class"
    code, out, _ = kedge("sql", query, "--json")
    assert code == 0 and [row["class"] for row in json.loads(out)] == ["copy", "twin"]


def test_a_short_item_leaves_a_row_out_only_beside_its_answer(catalog, kedge):
    texts = (
        "Stack is also known as a list of plates here",
        "Stack is also known as a last in first out list here",
        STORY,
    )
    Path("web.jsonl").write_text("".join(json.dumps({"messages": talk(text, "Fine.")}) + "\n" for text in texts))
    items = [{"question": "Stack is also known as", "answer": "last in first out"}, {"question": STORY}]
    Path("exam.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    assert kedge("add", "web.jsonl", "--stage", "sft")[0] == kedge("add", "exam.jsonl", "--stage", "benchmark")[0] == 0
    lines = {}
    for rule in ("contaminated", "benchmark_suspect"):
        told = json.loads(kedge("rules", rule, "--json")[1])
        lines[rule] = sorted(row["text"][0][1][:34] for row in told["samples"])
    assert lines["contaminated"] == sorted([STORY[:34], "Stack is also known as a last in f"])
    assert lines["benchmark_suspect"] == ["Stack is also known as a list of p"]
