"""Near duplicates: what is one and what is none, who stays, and that growth changes no byte."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from curation.catalog import Catalog
from curation.config import find_project
from curation.errors import UserError
from curation.measuring import ensure, named
from curation.rules import judge, load_rules
from tests.benchmarks.near_duplicate_rows import Writer, true_jaccard
from tests.duplicated import add, edited, evidence, near_values, page, texts, values
from tests.lakes import conversation

WORDS = Writer(3)  # for what the module makes once; a test draws from `words`, whichever tests ran before it


@pytest.fixture
def words() -> Writer:
    return Writer(4)


TEXT = page(WORDS)


def reversed_sentences(text: str) -> str:
    return ". ".join(reversed(text.rstrip(".").split(". ")))


MECHANISMS: dict[str, tuple[Callable[[str], str], bool]] = {
    "verbatim": (str, True),
    "case and punctuation": (lambda text: text.upper().replace(".", " ;"), True),
    "diacritics": (lambda text: text.replace("e", "é"), True),
    "a word in 40 edited": (lambda text: edited(text, 40), True),
    "a word in 8 edited": (lambda text: edited(text, 8), False),
    "sentences in another order": (reversed_sentences, False),
    "a fifth appended": (lambda text: " ".join([text, *WORDS.draw(len(text.split()) // 5)]), True),
    "as much again appended": (lambda text: " ".join([text, *WORDS.draw(len(text.split()))]), False),
    "another text": (lambda text: page(WORDS), False),
}
PAIRS = [(first := page(WORDS), change(first)) for change, _ in MECHANISMS.values()]
CHINESE = "他们在北京大学学习计算机科学并且每天早上都去图书馆看书然后中午一起吃饭下午继续上课晚上回宿舍休息"
SHORT = [conversation("", ""), conversation("", ""), *[conversation("Why?", "Because of it.")] * 2,
         *[conversation("Is it five?", "Yes it is.")] * 2]  # fmt: skip
SUMS = [conversation(f"What is {a} plus {b}?", f"Add {a} and {b}: the sum of {a} and {b} is {a + b}.")
        for a in range(20, 42) for b in range(300, 320)]  # fmt: skip
CHOICE = {"prompt": "Which of these is it?", "chosen": page(WORDS), "rejected": page(WORDS)}


def with_system_prompt(word: str) -> dict[str, Any]:
    turns = json.loads(conversation(f"{word} {word} {word} and then?", f"{word} goes on with {word} to the end"))
    return {"messages": [{"role": "system", "content": TEXT}, *turns["messages"]]}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Every kind of row in sources of its own, measured once."""
    root = tmp_path_factory.mktemp("lake")
    (root / "kedge.yaml").write_text("tokenizers: {}\n")
    with contextlib.chdir(root):
        add("pages", texts(*(text for pair in PAIRS for text in pair)))
        add("chinese", texts(CHINESE, CHINESE[:-1] + "工", CHINESE[::-1]))
        for name, rows in (("short", SHORT), ("sums", SUMS)):
            add(name, [json.loads(line) for line in rows], stage="sft")
        add("systems", [with_system_prompt("alpha"), with_system_prompt("beta")], stage="sft")
        add("talk", [json.loads(conversation(PAIRS[0][0], "Yes."))], stage="sft")
        add("choices", [CHOICE, CHOICE | {"prompt": "Which one of these is it?"},
                              CHOICE | {"chosen": CHOICE["rejected"], "rejected": CHOICE["chosen"]}],
            stage="preference")  # fmt: skip
        found = Catalog(find_project())
        ensure(found, named("near_duplicates"), workers=1)
    return found


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_pair_is_a_near_duplicate_where_its_true_similarity_says_so(lake: Catalog, mechanism: str):
    at, near = list(MECHANISMS).index(mechanism), MECHANISMS[mechanism][1]
    similarity = true_jaccard(*PAIRS[at]) if mechanism != "diacritics" else 1.0
    assert (similarity >= 0.7) == near, similarity
    rows = near_values(lake, "pages")[2 * at : 2 * at + 2]
    assert sorted(row["near_duplicate_rank"] for row in rows) == ([0, 1] if near else [0, 0])
    assert {row["near_duplicate_cluster"] for row in rows} == {2 if near else 1}
    for row in rows:
        assert row["near_duplicate_similarity"] == (pytest.approx(similarity) if near else None)
    ids = {row["row_id"] for row in rows}
    pairs = [pair for pair in evidence(lake, "near_duplicate_pairs")[0] if pair["row_id"] in ids]
    assert len(pairs) == near
    for pair in pairs:
        assert {pair["row_id"], pair["partner"]} == ids and pair["representative"] == pair["partner"]
        assert pair["jaccard"] == pytest.approx(similarity)
    if mechanism == "a fifth appended":
        assert pairs[0]["containment"] == 1 and pairs[0]["jaccard"] < 0.9


def test_sums_that_differ_in_their_numbers_alone_all_stay(lake: Catalog):
    rows = near_values(lake, "sums")
    assert len(rows) == 440 and {row["near_duplicate_rank"] for row in rows} == {0}
    assert all(row["near_duplicate_similarity"] is None for row in rows)


def test_text_without_spaces_is_compared_by_its_characters(lake: Catalog):
    assert [row["near_duplicate_cluster"] for row in near_values(lake, "chinese")] == [2, 2, 1]


def test_rows_of_fewer_words_than_a_shingle_are_no_near_duplicates(lake: Catalog):
    ranks = [row["near_duplicate_rank"] for row in near_values(lake, "short")]
    assert ranks[:4] == [0] * 4 and sorted(ranks[4:]) == [0, 1], "five words are enough"
    found = lake.latest("evidence", "near_duplicate_pairs")
    assert found is not None and found[1].counts["rows_too_short"] == 4


def test_a_shared_system_prompt_makes_no_rows_alike(lake: Catalog):
    assert {row["near_duplicate_cluster"] for row in near_values(lake, "systems")} == {1}


def test_a_pair_with_its_sides_swapped_is_no_near_duplicate(lake: Catalog):
    assert [row["near_duplicate_cluster"] for row in near_values(lake, "choices")] == [2, 2, 1]


def test_rows_of_two_stages_are_never_compared(lake: Catalog):
    assert near_values(lake, "talk")[0]["near_duplicate_cluster"] == 1


def test_held_out_rows_stay_then_the_source_with_priority_then_the_longer_row(catalog: Catalog):
    longer = TEXT + " and some more words"
    for name in ("a", "b"):
        add(name, texts(TEXT, longer))
    assert [row["near_duplicate_rank"] for row in near_values(catalog, "a")] == [1, 0], "the longer row stays"
    assert min(row["near_duplicate_rank"] for row in near_values(catalog, "b")) == 2, "the first source by name stays"
    Path("kedge.yaml").write_text("source_priority: [b]\n")
    catalog = Catalog(find_project())
    assert [row["near_duplicate_rank"] for row in near_values(catalog, "b")] == [1, 0]
    assert [row["near_duplicate_rank"] for row in near_values(catalog, "a")] == [3, 2]
    add("exam", texts(edited(TEXT, 60), edited(TEXT, 55)), held_out=1 - 1e-12)
    assert [row["near_duplicate_rank"] for row in near_values(catalog, "exam")] == [0, 0], "reported, never left out"
    assert {row["near_duplicate_link"] for row in near_values(catalog, "exam")} == {None}
    ranks = [row["near_duplicate_rank"] for name in ("b", "a") for row in near_values(catalog, name)]
    assert ranks == [3, 2, 5, 4]
    assert {row["near_duplicate_cluster"] for row in near_values(catalog, "b")} == {6}
    found = catalog.latest("evidence", "near_duplicate_pairs")
    assert found is not None
    rates = {(item["source"], item["partner_source"]): item for item in found[1].counts["pairs_by_source"]}
    assert rates["exam", "a"]["rows"] == 2 and rates["a", "exam"]["share"] == 1.0
    assert rates["a", "b"]["pairs"] == rates["b", "a"]["pairs"]


def test_the_link_tells_what_every_larger_threshold_would_leave_out(catalog: Catalog, words: Writer):
    chain = [TEXT]
    for _ in range(6):
        chain.append(edited(chain[-1], words.random.integers(35, 90)))
    add("a", texts(*chain))
    rows = near_values(catalog, "a", threshold=0.5)
    for threshold in (0.6, 0.7, 0.8, 0.9):
        left_out = [(row["near_duplicate_link"] or 0) >= threshold for row in rows]
        ranks = [row["near_duplicate_rank"] for row in near_values(catalog, "a", threshold=threshold)]
        assert left_out == [rank > 0 for rank in ranks]


def test_the_rule_leaves_out_all_but_one_of_a_cluster_and_names_the_similarity(catalog: Catalog):
    add("a", texts(TEXT, TEXT.lower(), edited(TEXT, 45), "A page of its own with words of its own."))
    (rule,) = [rule for rule in load_rules(catalog, adopted_only=False) if rule.name == "near_duplicate"]
    assert not rule.header.adopted
    verdicts = pq.read_table(judge(catalog, rule)).to_pylist()
    left_out = {row["row_id"] for row in near_values(catalog, "a") if row["near_duplicate_rank"] > 0}
    assert {verdict["row_id"] for verdict in verdicts} == left_out and len(left_out) == 2
    assert {verdict["reason"] for verdict in verdicts} >= {
        "100 % of its phrases stand in another row, 3 rows are near duplicates"
    }


def test_nearly_equal_answers_are_found_whatever_was_asked(catalog: Catalog, words: Writer):
    answer, chosen, rejected = page(words), page(words), page(words)
    first, second, third = (json.loads(conversation(page(words), text))["messages"]
                            for text in (answer, edited(answer, 40), page(words)))  # fmt: skip
    add("a", [{"messages": turns} for turns in (first, [*third, *second], [*first, *third], third)], stage="sft")
    add("b", [{"prompt": page(words), "chosen": good, "rejected": bad} for good, bad in
              ((chosen, rejected), (page(words), chosen), (chosen, page(words)))], stage="preference")  # fmt: skip
    assert [row["near_answer_cluster"] for row in values(catalog, "near_answers", "a")] == [2, 2, 2, 2]
    assert [row["near_answer_cluster"] for row in values(catalog, "near_answers", "b")] == [2, 1, 2]
    assert [pair["jaccard"] == 1 for pair in evidence(catalog, "near_answer_pairs")[0]].count(True) == 2


def test_only_the_threshold_from_half_on_is_offered(catalog: Catalog):
    with pytest.raises(UserError, match="threshold"):
        named("near_duplicates", {"threshold": 0.3})


def test_pairs_are_those_that_comparing_all_rows_with_one_another_gives(catalog: Catalog, words: Writer):
    draw = random.Random(5)
    pages = [" ".join(words.document()) for _ in range(40)]
    pages += [edited(page, draw.choice([25, 40, 60, 90])) for page in pages[:30]]
    pages += [page + " " + " ".join(words.draw(12)) for page in pages[:20]]
    draw.shuffle(pages)
    add("a", texts(*pages))
    rows = near_values(catalog, "a")
    number = {row["row_id"]: index for index, row in enumerate(rows)}
    told = {frozenset((number[pair["row_id"]], number[pair["partner"]])): pair["jaccard"]
            for pair in evidence(catalog, "near_duplicate_pairs")[0]}  # fmt: skip
    truth = {frozenset(pair): value for pair in itertools.combinations(range(len(pages)), 2)
             if (value := true_jaccard(pages[pair[0]], pages[pair[1]])) >= 0.7}  # fmt: skip
    assert all(truth[pair] == pytest.approx(value) for pair, value in told.items()), "nothing false is told"
    clear = {pair for pair, value in truth.items() if value > 0.95}
    assert clear and clear <= set(told), "MinHash misses few pairs, and none this near"
    members = {index for pair in told for index in pair}
    assert members == {index for index, row in enumerate(rows) if row["near_duplicate_cluster"] > 1}
