"""What the text of a query says: the nodes of DuckDB's own syntax tree, the line of a node, and whether the query
gives the same rows at every run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import duckdb

from curation.errors import Problem, UserError

CLOCKS = ("current_date", "current_time", "current_timestamp", "localtime", "localtimestamp")
NOWHERE = 2**64 - 1


def syntax_nodes(connection: duckdb.DuckDBPyConnection, text: str) -> Iterator[dict[str, Any]]:
    """Every node of a SELECT, parents first, in the order of the text. Raises RuntimeError where DuckDB cannot give the
    tree, so that nothing in a query goes unseen."""
    tree = json.loads(connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [text]).fetchall()[0][0])
    if tree.get("error"):
        raise RuntimeError(f"the query has no syntax tree: {tree.get('error_message')}")
    yield from _nodes(tree["statements"])


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    if isinstance(value, dict | list):
        for child in value.values() if isinstance(value, dict) else value:
            yield from _nodes(child)


def line_of(node: dict[str, Any], text: str) -> int | None:
    """The 1-based line of a node in the text that it comes from; None where the tree does not say."""
    place = node.get("query_location", NOWHERE)
    return None if place >= NOWHERE else text.encode()[:place].count(b"\n") + 1


def at_line(where: str, line: int | None) -> str:
    """`file:line`, or the file alone."""
    return f"{where}:{line}" if line else where


def require_repeatable(connection: duckdb.DuckDBPyConnection, text: str, where: str) -> None:
    """Raises UserError for a query whose rows change from run to run (chance, clocks, samples), or that hides another
    in a text: an output is named by its inputs, so that it must follow from them, and no take may go uncounted."""
    unstable = {row[0] for row in connection.execute(
        "SELECT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT' AND function_name <> 'error'"
    ).fetchall()}  # fmt: skip
    problems = []
    for node in syntax_nodes(connection, text):
        name = ""
        if node.get("type") == "FUNCTION" and node.get("function_name") in unstable:
            name = f"{node['function_name']}()"
        elif node.get("type") == "COLUMN_REF" and node["column_names"][0].lower() in CLOCKS:
            name = node["column_names"][0]
        elif node.get("sample"):
            name = "a sample"
        elif node.get("type") == "TABLE_FUNCTION" and node["function"]["function_name"] == "query":
            problems.append(Problem("query() hides what it reads", "write the query itself",
                                    at_line(where, line_of(node, text))))  # fmt: skip
        if name:
            problems.append(Problem(f"{name} gives other rows at each run", "use a take, or order by "
                                    "sample_key(row_id, SEED)", at_line(where, line_of(node, text))))  # fmt: skip
    if problems:
        raise UserError(problems)
