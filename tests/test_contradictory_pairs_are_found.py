"""Pairs that contradict other pairs are found across sources: reversed labels, cycles, repeats, KTO labels."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation import schema
from curation.catalog import Catalog
from curation.measures.pair_conflicts import CYCLES, cycles
from curation.measuring import ensure, named, signal_parts
from tests.lakes import lake_bytes
from tests.verdicts_of import rule_of, verdicts_of


def pair(prompt: str | list, chosen: str, rejected: str, **more: object) -> dict:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected} | more


def label(prompt: str, answer: str, good: bool) -> dict:
    return {"prompt": prompt, "completion": answer, "label": good}


def add(kedge, **sources: list[dict]) -> None:
    for name, records in sources.items():
        Path(f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        code, _, err = kedge("add", f"{name}.jsonl", "--stage", "preference")
        assert code == 0, err


def values(catalog: Catalog, source: str) -> list[dict]:
    """Per row, in the order of its file: the values of the measure."""
    measure = named("pair_conflicts")
    ensure(catalog, measure)
    folder, rows = catalog.source(source)
    found = []
    for part, of in zip(signal_parts(catalog, measure, source) or [], rows.parts, strict=True):
        lines = pq.read_table(folder / of.name, columns=["line"])["line"].to_pylist()
        table = pq.read_table(part).drop_columns("row_id").to_pylist()
        found += list(zip(lines, table, strict=True))
    return [item for _, item in sorted(found, key=lambda item: item[0])]


def evidence(catalog: Catalog) -> list[dict]:
    """The evidence with row ids replaced by source:line."""
    ensure(catalog, named("pair_conflicts"))
    names = {}
    for source, (folder, rows) in catalog.sources().items():
        for part in rows.parts:
            table = pq.read_table(folder / part.name, columns=["row_id", "line"])
            for row, line in zip(table["row_id"].to_pylist(), table["line"].to_pylist(), strict=True):
                names[row] = f"{source}:{line}"
    latest = catalog.latest("evidence", "conflicting_pairs")
    assert latest is not None
    found = pq.read_table(latest[0] / "part-00000.parquet").to_pylist()
    return [item | {"row": names[item["row_id"]], "other": names.get(item["other_row_id"])} for item in found]


def kinds(catalog: Catalog) -> set[tuple]:
    return {(item["row"], item["kind"], item["other"]) for item in evidence(catalog)}


def test_reversed_labels_contradict_each_other_across_sources_and_white_space(catalog: Catalog, kedge):
    add(kedge, a=[pair("Which?", "left", "right now")], b=[pair("Which?", "right  now\n", "left"),
                                                           pair("Which one?", "right now", "left")])  # fmt: skip
    assert [item["contradicting_pairs"] for item in values(catalog, "a")] == [1]
    assert [item["contradicting_pairs"] for item in values(catalog, "b")] == [1, 0], "another prompt"
    assert kinds(catalog) == {("a:1", "contradiction", "b:1"), ("b:1", "contradiction", "a:1")}
    reason = "1 pair prefers the other answer to the same prompt"
    assert verdicts_of(catalog, "contradictory_pair") == {("a", 1): reason, ("b", 1): reason}
    assert rule_of(catalog, "contradictory_pair").header.adopted


def test_prompts_are_compared_whole_and_not_by_their_first_question(catalog: Catalog, kedge):
    def talk(*texts: str) -> list[dict]:
        return [{"role": role, "content": text} for role, text in zip(itertools.cycle(["user", "assistant"]), texts)]

    add(kedge, a=[pair(talk("Hi", "Hello", "Red?"), "yes", "no"), pair(talk("Hi", "Hello", "Blue?"), "no", "yes"),
                  pair(talk("Hi", "Hello", "Red?"), "no", "yes")])  # fmt: skip
    assert [item["contradicting_pairs"] for item in values(catalog, "a")] == [1, 0, 1]


def test_a_cycle_over_three_answers_is_found_with_its_rows_and_a_ranking_is_none(catalog: Catalog, kedge):
    ranking = [pair("rank", *two) for two in itertools.combinations(["p", "q", "r", "s"], 2)]
    cycle = [pair("cycle", "A", "B"), pair("cycle", "B", "C"), pair("cycle", "C", "A"), pair("cycle", "A", "z")]
    add(kedge, ranked=ranking, round=cycle)
    assert {item["preference_cycle"] for item in values(catalog, "ranked")} == {None}
    assert [item["preference_cycle"] for item in values(catalog, "round")] == [3, 3, 3, None]
    told = [(item["row"], item["step"], item["other"], item["cycle_length"], item["component_size"])
            for item in evidence(catalog) if item["kind"] == "cycle"]  # fmt: skip
    assert sorted(told) == [("round:1", 1, "round:2", 3, 3), ("round:1", 2, "round:3", 3, 3),
                            ("round:2", 1, "round:3", 3, 3), ("round:2", 2, "round:1", 3, 3),
                            ("round:3", 1, "round:1", 3, 3), ("round:3", 2, "round:2", 3, 3)]  # fmt: skip
    assert ("ranked:1", "chosen_elsewhere_rejected", None) not in kinds(catalog), "the best is never rejected"
    assert {kind for row, kind, _ in kinds(catalog) if row.startswith("ranked")} == {
        "chosen_elsewhere_rejected", "rejected_elsewhere_chosen"}  # fmt: skip
    reason = "part of a cycle of 3 preferences of one prompt"
    assert verdicts_of(catalog, "preference_cycle") == {("round", line): reason for line in (1, 2, 3)}
    assert not rule_of(catalog, "preference_cycle").header.adopted


def test_two_contradictions_in_a_row_are_no_cycle_over_more_than_two_answers(catalog: Catalog, kedge):
    add(kedge, a=[pair("q", *two) for two in (("A", "B"), ("B", "A"), ("B", "C"), ("C", "B"))])
    assert {item["preference_cycle"] for item in values(catalog, "a")} == {None}
    assert {item["contradicting_pairs"] for item in values(catalog, "a")} == {1}


def test_the_same_pair_twice_points_to_the_row_of_the_first_source(catalog: Catalog, kedge):
    Path("kedge.yaml").write_text("source_priority: [z]\n")
    catalog = Catalog(type(catalog.project)(catalog.project.root, _file(catalog)))
    add(kedge, a=[pair("q", "A", "B", note=1), pair("q", "A", "C")], z=[pair("q", "A", "B", note=2)])
    assert [item["repeated_pairs"] for item in values(catalog, "a")] == [1, 0]
    assert ("a:1", "twice", "z:1") in kinds(catalog) and ("z:1", "twice", "a:1") not in kinds(catalog)
    assert {item["contradicting_pairs"] for item in values(catalog, "a")} == {0}


def _file(catalog: Catalog):
    from curation.config import find_project

    return find_project(catalog.project.root).file


def test_equal_sides_contradict_nothing(catalog: Catalog, kedge):
    add(kedge, a=[pair("q", "A", "A"), pair("q", "A", "A "), pair("q", "A", "B")])
    assert [(item["contradicting_pairs"], item["repeated_pairs"], item["answers_labelled_both_ways"])
            for item in values(catalog, "a")] == [(0, 1, 0), (0, 1, 0), (0, 0, 0)]  # fmt: skip


def test_an_answer_that_is_labelled_good_and_bad_is_a_contradiction_of_unpaired_rows(catalog: Catalog, kedge):
    add(kedge, kto=[label("q", "A", True), label("q", "A", False), label("q", "B", True), label("p", "A", False)],
        pairs=[pair("q", "C", "B")])  # fmt: skip
    assert [item["contradicting_pairs"] for item in values(catalog, "kto")] == [1, 1, 0, 0]
    assert [item["answers_labelled_both_ways"] for item in values(catalog, "kto")] == [0, 0, 1, 0]
    assert ("pairs:1", "rejected_elsewhere_chosen", "kto:3") in kinds(catalog)
    reason = "the same answer to the same prompt is labelled both good and bad"
    assert verdicts_of(catalog, "contradictory_pair") == {("kto", 1): reason, ("kto", 2): reason}


def test_a_source_that_grows_gives_the_same_bytes_as_one_that_was_whole(catalog: Catalog, kedge):
    first = [pair("q", "A", "B"), pair("q", "B", "C"), pair("x", "1", "2")]
    second = [pair("q", "C", "A"), pair("x", "2", "1"), pair("q", "A", "B", note=2)]
    add(kedge, a=first)
    ensure(catalog, named("pair_conflicts"))
    add(kedge, b=second)
    ensure(catalog, named("pair_conflicts"))
    grown = {name: value for name, value in lake_bytes(catalog.project.root, "signals", "evidence").items()
             if "pair_conflicts" in name or "conflicting_pairs" in name}  # fmt: skip
    for folder in ("signals", "evidence", ".cache"):
        _remove(catalog.lake / folder)
    ensure(catalog, named("pair_conflicts"))
    whole = {name: value for name, value in lake_bytes(catalog.project.root, "signals", "evidence").items()
             if "pair_conflicts" in name or "conflicting_pairs" in name}  # fmt: skip
    assert grown == whole and any(name.startswith("evidence/conflicting_pairs") for name in whole)


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder)


def graph(edges: list[tuple[int, int]]) -> pa.Table:
    """Edges of one prompt as `cycles` reads them; the example row of an edge is its number."""
    columns = {"context": [0] * len(edges), "chosen": [a for a, _ in edges], "rejected": [b for _, b in edges],
               "example": range(len(edges))}  # fmt: skip
    return pa.table({name: pa.ExtensionArray.from_storage(
        schema.UUID, pa.array([value.to_bytes(16, "big") for value in of], pa.binary(16)))
        for name, of in columns.items()})  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6)).filter(lambda two: two[0] != two[1]), max_size=16))
def test_cycle_lengths_agree_with_a_search_over_all_simple_paths(drawn: set[tuple[int, int]]):
    edges = sorted(drawn)
    found = cycles(graph(edges))
    assert found.schema.equals(CYCLES)
    lengths = {row.as_py().int: length for row, length in
               zip(found["row_id"], found["cycle_length"].to_pylist(), strict=True)}  # fmt: skip
    assert lengths == {number: best for number, edge in enumerate(edges) if (best := shortest(edge, edges))}


def shortest(edge: tuple[int, int], edges: list[tuple[int, int]]) -> int | None:
    """The length of the shortest simple cycle of three or more edges through `edge`, by trying all."""
    best = None
    paths = [[edge[0], edge[1]]]
    while paths:
        path = paths.pop()
        for begin, end in edges:
            if begin == path[-1] and end == edge[0] and len(path) > 2:
                best = min(best or len(path), len(path))
            elif begin == path[-1] and end not in path:
                paths.append([*path, end])
    return best


@pytest.mark.parametrize("size", [3, 40])
def test_one_long_cycle_is_its_own_length(size: int):
    found = cycles(graph([(number, (number + 1) % size) for number in range(size)]))
    assert set(found["cycle_length"].to_pylist()) == {size} and found.num_rows == size * (size - 1)
