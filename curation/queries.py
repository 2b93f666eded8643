"""What the text of a query says: that it is one SELECT, where it is wrong, the nodes of DuckDB's own syntax tree and
their lines, and whether the query gives the same rows at every run."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import Any

import duckdb

from curation.errors import Problem, UserError

CLOCKS = ("current_date", "current_time", "current_timestamp", "localtime", "localtimestamp")
NOWHERE = 2**64 - 1


def single_select(connection: duckdb.DuckDBPyConnection, text: str, where: str) -> str:
    """The one SELECT in `text`, without a closing semicolon, so that it may stand in parentheses; its lines keep their
    numbers. Raises UserError for a syntax error (with its line), for several statements and for anything that is no
    query."""
    try:
        statements = connection.extract_statements(text)
    except duckdb.Error as error:
        raise sql_error(error, text, where) from error
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise UserError("must hold exactly one SELECT", "keep one query that returns rows", where=where)
    for place in (match.start() for match in reversed(list(re.finditer(";", text)))):
        if _num_statements(connection, text[:place]) == 1 and _num_statements(connection, text[place + 1 :]) == 0:
            text = text[:place]
    return text.rstrip() + "\n"  # the last line may be a comment


def _num_statements(connection: duckdb.DuckDBPyConnection, text: str) -> int | None:
    try:
        return len(connection.extract_statements(text))
    except duckdb.Error:
        return None


def sql_error(error: duckdb.Error, text: str, where: str) -> UserError:
    """DuckDB's message as one line with `file:line`, without its picture of the query. A line of the header is none of
    the query's and is left out."""
    message = str(error)
    line = re.search(r"^LINE (\d+):", message, re.MULTILINE)
    header = re.match(r"\s*/\*.*?\*/", text, re.DOTALL)
    known = line and not (header and int(line[1]) <= header[0].count("\n"))
    first = re.split(r"\n\s*\n?LINE \d+:|\n\n", message)[0].replace("\n", " ")
    what = re.sub(r"^([A-Z][\w-]* )*Error: ", "", first)
    return UserError(what, "mend the query", where=f"{where}:{line[1]}" if line and known else where)


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


def require_repeatable(connection: duckdb.DuckDBPyConnection, text: str, where: str,
                       variables: Collection[str] = ()) -> None:  # fmt: skip
    """Raises UserError for a query whose rows change from run to run (chance, clocks, samples), that reads a variable
    other than `variables`, or that hides another in a text: an output is named by its inputs, so that it must follow
    from them, and no take may go uncounted."""
    unstable = {row[0] for row in connection.execute(
        "SELECT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT' AND function_name <> 'error'"
    ).fetchall()}  # fmt: skip
    problems = []
    for node in syntax_nodes(connection, text):
        name = ""
        if node.get("type") == "FUNCTION" and node.get("function_name") == "getvariable":
            asked = node["arguments"][0]["expression"].get("literal", {}).get("text") if node["arguments"] else None
            if asked not in variables:
                what = "getvariable() needs a name in quotes" if asked is None else f"there is no threshold '{asked}'"
                problems.append(Problem(what, "name it under thresholds in the header",
                                        at_line(where, line_of(node, text))))  # fmt: skip
        elif node.get("type") == "FUNCTION" and node.get("function_name") in unstable:
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
