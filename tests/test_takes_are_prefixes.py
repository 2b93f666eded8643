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
@given(TOKENS, TOKENS, st.integers(0, 60), SEEDS)
def test_rows_that_are_added_do_not_reshuffle_the_rest(before, added, n: int, seed: int):
    small, large = connect({"s": before}), connect({"s": before + added})
    old = {row[0] for row in small.execute("SELECT row_id FROM kept").fetchall()}
    taken = {row for row, _ in ids(large, f"take_rows('s', {n}, seed := {seed})")}
    assert taken & old <= {row for row, _ in ids(small, f"take_rows('s', {n}, seed := {seed})")}
    order = f"SELECT row_id FROM kept ORDER BY sample_key(row_id, {seed}), row_id"
    kept = [row[0] for row in large.execute(order).fetchall() if row[0] in old]
    assert kept == [row[0] for row in small.execute(order).fetchall()]


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
    connection = connect({f"s{n}": [5] * 60 for n in range(len(weights))})
    parts = ", ".join(f"'s{n}': {weight}" for n, weight in enumerate(weights))
    query = f"SELECT source, count(*) FROM take_weighted(MAP {{{parts}}}, rows := {rows}) GROUP BY source"
    counts = dict(connection.execute(query).fetchall())
    for n, weight in enumerate(weights):
        assert 0 <= rows * weight / sum(weights) - counts.get(f"s{n}", 0) < 1


@FEW
@given(st.lists(st.integers(20, 60), min_size=20, max_size=30), st.integers(1, 9), st.integers(1, 300), SEEDS)
def test_weights_of_tokens_hold_to_within_a_row_and_a_larger_budget_keeps_what_was_taken(tokens, weight, budget, seed):
    connection = connect({"a": tokens, "b": tokens[::-1]}, "accept")
    call = f"take_weighted(MAP {{{{'a': {weight}, 'b': 10}}}}, tokens := {{}}, seed := {seed})"
    query = f"SELECT source, sum(tokens) FROM {call.format(budget)} GROUP BY source"
    taken = dict(connection.execute(query).fetchall())
    for source, share in (("a", weight), ("b", 10)):
        asked = budget * share / (weight + 10)
        assert asked - max(tokens) - 1 < taken.get(source, 0) <= asked
    assert set(ids(connection, call.format(budget))) <= set(ids(connection, call.format(budget + 50)))


@FEW
@given(TOKENS, st.integers(0, 30), SEEDS)
def test_a_take_is_the_same_whatever_the_order_of_the_rows(tokens, n: int, seed: int):
    connection = connect({"s": tokens})
    query = f"take_rows('s', {n}, seed := {seed})"
    before = ids(connection, query)
    connection.execute("CREATE TABLE turned AS SELECT * FROM kept ORDER BY row_id DESC")
    connection.execute("DELETE FROM kept")
    connection.execute("INSERT INTO kept SELECT * FROM turned")
    assert ids(connection, query) == before


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
              "repeats": repeats, "line": 4}  # fmt: skip
    found = hopeless([record], "fail", "m.sql")
    assert bool(found) == wrong and all(problem.where == "m.sql:4" for problem in found)


@FEW
@given(st.integers(1, 5), SEEDS, st.integers(1, 60))
def test_folds_share_no_key_and_leave_none_out(folds: int, seed: int, number: int):
    connection = connect({"s": [1] * number})
    ids = [uuid.uuid5(uuid.NAMESPACE_DNS, f"s {n}") for n in range(number)]
    parts = [connection.execute(f"SELECT row_id FROM kept WHERE fold(row_id, {folds}, seed := {seed}) = {part}"
                                ).fetchall() for part in range(folds)]  # fmt: skip
    assert sorted(row for part in parts for (row,) in part) == sorted(ids)
    doubled = connection.execute(f"SELECT count(DISTINCT fold(row_id, {folds}, seed := {seed})) FROM "
                                 "(FROM kept UNION ALL FROM kept) GROUP BY row_id").fetchall()  # fmt: skip
    assert set(doubled) == {(1,)}, "equal keys are in one fold"


def test_folds_are_of_equal_chance_and_a_number_of_folds_that_is_none_is_an_error():
    connection = connect({"s": [1] * 3000})
    for seed in (0, 1):
        counts = connection.execute(f"SELECT count(*) FROM kept GROUP BY fold(row_id, 3, seed := {seed})").fetchall()
        assert all(900 < count < 1100 for (count,) in counts) and len(counts) == 3
    moved = connection.execute("SELECT count(*) FROM kept WHERE fold(row_id, 3) = fold(row_id, 3, seed := 1)")
    assert 900 < moved.fetchall()[0][0] < 1100, "another seed, other folds"
    for wrong in ("0", "-2", "1.5", "NULL"):
        with pytest.raises(duckdb.Error, match="is no number of folds"):
            connection.execute(f"SELECT fold(row_id, {wrong}) FROM kept").fetchall()
