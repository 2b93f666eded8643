"""Takes as properties: prefixes of a stable order, budgets never passed, weights kept."""

from __future__ import annotations

import uuid

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.takes import account, create_macros, hopeless, shortfalls

FEW = settings(max_examples=25, deadline=None)
TOKENS = st.lists(st.integers(1, 60), min_size=1, max_size=40)
SEEDS = st.integers(0, 5)


def connect(sources: dict[str, list[int]], on_shortfall: str = "fail") -> duckdb.DuckDBPyConnection:
    """A connection with `kept`: one row per number of tokens; ids are stable per source and place."""
    connection = duckdb.connect(":memory:", config={"threads": "1"})
    connection.execute("CREATE TABLE kept (row_id UUID, source VARCHAR, tokens INTEGER, trained_tokens INTEGER)")
    for source, tokens in sources.items():
        rows = [(uuid.uuid5(uuid.NAMESPACE_DNS, f"{source} {n}"), source, t, t // 2) for n, t in enumerate(tokens)]
        connection.executemany("INSERT INTO kept VALUES (?, ?, ?, ?)", rows)
    create_macros(connection, "sft", dict.fromkeys(sources, "sft"), on_shortfall)
    return connection


def ids(connection: duckdb.DuckDBPyConnection, query: str) -> list[tuple]:
    return connection.execute(f"SELECT row_id, epoch FROM {query} ORDER BY ALL").fetchall()


@FEW
@given(TOKENS, st.integers(0, 40), st.integers(0, 40), SEEDS)
def test_a_smaller_take_is_a_subset_of_a_larger_one(tokens, a: int, b: int, seed: int):
    connection = connect({"s": tokens})
    small, large = sorted((a, b))
    assert set(ids(connection, f"take_rows('s', {small}, seed := {seed})")) <= set(
        ids(connection, f"take_rows('s', {large}, seed := {seed})"))  # fmt: skip
    assert set(ids(connection, f"take_tokens('s', {20 * small}, seed := {seed})")) <= set(
        ids(connection, f"take_tokens('s', {20 * large}, seed := {seed})"))  # fmt: skip


@FEW
@given(TOKENS, TOKENS, SEEDS)
def test_rows_that_are_added_do_not_reshuffle_the_rest(before, added, seed: int):
    key = "SELECT row_id FROM kept WHERE source = 's' ORDER BY sample_key(row_id, {seed}), row_id"
    old = [row[0] for row in connect({"s": before}).execute(key.format(seed=seed)).fetchall()]
    new = [row[0] for row in connect({"s": before + added}).execute(key.format(seed=seed)).fetchall()]
    assert [row for row in new if row in set(old)] == old


@FEW
@given(TOKENS, st.integers(1, 3_000), SEEDS)
def test_a_budget_is_never_passed_and_missed_by_less_than_a_row(tokens, budget: int, seed: int):
    connection = connect({"s": tokens})
    (record,) = account(connection, f"SELECT * FROM take_tokens('s', {budget}, seed := {seed})")
    assert record["delivered"] <= budget and record["offered"] == sum(tokens)
    if record["offered"] >= budget:
        assert record["delivered"] > budget - max(tokens)
        assert not shortfalls([record])
    else:
        assert record["delivered"] == record["offered"]
        assert shortfalls([record]) == [record]


@FEW
@given(TOKENS, st.integers(1, 300), SEEDS)
def test_a_repeated_budget_holds_every_row_almost_equally_often(tokens, rows: int, seed: int):
    connection = connect({"s": tokens}, "repeat")
    found = ids(connection, f"take_rows('s', {rows}, seed := {seed})")
    if rows <= 1_000 * len(tokens):
        assert len(found) == rows == len(set(found))
    counts = [sum(row == one for one, _ in found) for row in {row for row, _ in found}]
    assert max(counts) - min(counts) <= 1


@FEW
@given(TOKENS, st.floats(0, 5, allow_nan=False), SEEDS)
def test_epochs_are_whole_repeats_and_a_prefix_of_one_more(tokens, epochs: float, seed: int):
    connection = connect({"s": tokens})
    found = ids(connection, f"take_epochs('s', {epochs:.3f}::DOUBLE, seed := {seed})")
    assert abs(len(found) - epochs * len(tokens)) <= 0.51
    last = {row for row, epoch in found if epoch == int(len(found) / len(tokens))}
    assert last == {row for row, _ in ids(connection, f"take_rows('s', {len(last)}, seed := {seed})")}


@FEW
@given(st.lists(st.integers(1, 9), min_size=2, max_size=4), st.integers(1, 60))
def test_weights_hold_to_within_a_row(weights: list[int], rows: int):
    sources = {f"s{n}": [5] * 60 for n in range(len(weights))}
    parts = ", ".join(f"'s{n}': {weight}" for n, weight in enumerate(weights))
    connection = connect(sources)
    found = connection.execute(f"SELECT source, count(*) FROM take_weighted(MAP {{{parts}}}, rows := {rows}) "
                               "GROUP BY source").fetchall()  # fmt: skip
    counts = dict(found)
    for n, weight in enumerate(weights):
        assert 0 <= rows * weight / sum(weights) - counts.get(f"s{n}", 0) < 1


def test_another_seed_takes_other_rows_and_the_same_seed_the_same():
    connection = connect({"s": [1] * 200})
    one, same, other = (ids(connection, f"take_rows('s', 50, seed := {seed})") for seed in (1, 1, 2))
    assert one == same != other
    assert 3 < len(set(one) & set(other)) < 25, "two seeds overlap as chance would have it"


@pytest.mark.parametrize(("requested", "offered", "repeats", "wrong"), [
    (-1, 5, False, True), (5, 0, True, True), (5_001, 5, True, True), (5_000, 5, True, False), (9, 5, False, False),
])  # fmt: skip
def test_what_no_header_can_satisfy_is_told(requested: int, offered: int, repeats: bool, wrong: bool):
    record = {"take": "take_rows", "source": "s", "unit": "rows", "requested": requested, "offered": offered,
              "repeats": repeats}  # fmt: skip
    assert bool(hopeless([record], "fail")) == wrong
