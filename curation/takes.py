"""The takes of a mixture: macros on a connection, and what each of them asked for, was offered and delivered."""

from __future__ import annotations

import json
import re
from typing import Any

import duckdb
import jinja2

from curation.config import SHIPPED
from curation.errors import Problem, UserError
from curation.queries import at_line, line_of, sql_error, syntax_nodes

MAX_EPOCHS = 1_000
# name, parameters with defaults, the same as arguments
TAKES = (
    ("rows", "source, n, seed := 0", "source, n, seed := seed"),
    ("tokens", "source, budget, seed := 0", "source, budget, seed := seed"),
    ("trained_tokens", "source, budget, seed := 0", "source, budget, seed := seed"),
    ("epochs", "source, epochs, seed := 0", "source, epochs, seed := seed"),
    ("weighted", "weights, rows := NULL, tokens := NULL, trained_tokens := NULL, seed := 0",
     "weights, rows := rows, tokens := tokens, trained_tokens := trained_tokens, seed := seed"),
)  # fmt: skip


def create_macros(
    connection: duckdb.DuckDBPyConnection, stage: str, sources: dict[str, str], on_shortfall: str
) -> None:
    """Create the macros of catalogs/macros.sql. `sources` maps every ingested source to its stage; the connection has
    the view `kept`."""
    connection.execute("CREATE TEMP TABLE known_sources (known VARCHAR)")
    connection.execute("CREATE TEMP TABLE other_sources (known VARCHAR, stage VARCHAR)")
    for name, of in sources.items():
        if of == stage:
            connection.execute("INSERT INTO known_sources VALUES (?)", [name])
        else:
            connection.execute("INSERT INTO other_sources VALUES (?, ?)", [name, of])
    connection.execute("SET VARIABLE on_shortfall = ?", [on_shortfall])
    text = (SHIPPED / "macros.sql").read_text()
    for statement in connection.extract_statements(jinja2.Template(text).render(takes=TAKES, max_epochs=MAX_EPOCHS)):
        connection.execute(statement.query.replace("CREATE MACRO", "CREATE TEMP MACRO"))


def find_takes(connection: duckdb.DuckDBPyConnection, text: str) -> list[dict[str, Any]]:
    """The calls of take_* in a query, in its order, as nodes of DuckDB's own syntax tree."""
    return [node for node in syntax_nodes(connection, text)
            if node.get("type") == "TABLE_FUNCTION" and take_name(node).startswith("take_")]  # fmt: skip


def take_name(node: dict[str, Any]) -> str:
    """The function that a table function's node calls."""
    return str(node["function"]["function_name"])


def call_text(connection: duckdb.DuckDBPyConnection, node: dict[str, Any], prefix: str) -> str:
    """A take's call as SQL, with another prefix (`ask_`, `take_`)."""
    empty = json.loads(connection.execute("SELECT json_serialize_sql('SELECT * FROM range(1)')").fetchall()[0][0])
    name = prefix + take_name(node).removeprefix("take_")
    function = node["function"] | {"function_name": name, "schema": "", "catalog": ""}
    if "qualified_name" in function:
        function["qualified_name"] = {"path": [name]}
    empty["statements"][0]["node"]["from_table"] = node | {"alias": "", "column_name_alias": [], "function": function}
    text = connection.execute("SELECT json_deserialize_sql(?::JSON)", [json.dumps(empty)]).fetchall()[0][0]
    return str(text).strip().rstrip(";")


def account(connection: duckdb.DuckDBPyConnection, text: str, where: str = "query") -> list[dict[str, Any]]:
    """One record per take and source: take, its line, source, unit, requested, offered (what all kept rows of
    the source have once) and delivered, in that unit. Raises UserError with the take's line for one that fails."""
    records = []
    for number, node in enumerate(find_takes(connection, text)):
        line = line_of(node, text)
        try:
            rows = _amounts(connection, node)
        except duckdb.Error as error:
            what = sql_error(error, "", where).problems[0].what
            raise UserError(re.sub(r"(?<!')\bask_", "take_", what), "mend the take",
                            where=at_line(where, line)) from error  # fmt: skip
        records += [{"number": number, "take": take_name(node), "line": line, "source": source, "unit": unit,
                     "requested": int(requested), "offered": int(offered), "delivered": int(given),
                     "repeats": bool(repeats)}
                    for source, unit, requested, offered, given, repeats in rows]  # fmt: skip
    return records


def _amounts(connection: duckdb.DuckDBPyConnection, node: dict[str, Any]) -> list[tuple[Any, ...]]:
    amount = "CASE unit WHEN 'rows' THEN 1 WHEN 'tokens' THEN kept.tokens ELSE kept.trained_tokens END"
    return connection.execute(
        f"WITH asked AS ({call_text(connection, node, 'ask_')}), "
        f"offered AS (SELECT source, sum({amount}) AS amount FROM kept JOIN asked USING (source) GROUP BY source), "
        f"given AS (SELECT source, sum({amount}) AS amount FROM ({call_text(connection, node, 'take_')}) AS kept "
        "JOIN asked USING (source) GROUP BY source) "
        "SELECT asked.source, asked.unit, asked.requested, coalesce(offered.amount, 0), coalesce(given.amount, 0), "
        "asked.repeats FROM asked LEFT JOIN offered USING (source) LEFT JOIN given USING (source) ORDER BY ALL"
    ).fetchall()


def hopeless(records: list[dict[str, Any]], on_shortfall: str, where: str) -> list[Problem]:
    """Takes of the file `where` that no header can satisfy: a negative amount, nothing to repeat, or more repeats than
    a take makes."""
    found = []
    for item in records:
        asked = f"{item['take']} asks for {item['requested']:,} {item['unit']} of '{item['source']}'"
        repeats = item["repeats"] or on_shortfall == "repeat"
        what = ""
        if item["requested"] < 0:
            what = f"{asked}: less than nothing"
        elif repeats and not item["offered"] and item["requested"]:
            what = f"{asked}, and none is kept"
        elif repeats and item["requested"] > MAX_EPOCHS * item["offered"]:
            what = f"{asked}, more than {MAX_EPOCHS:,} times the {item['offered']:,} that are kept"
        if what:
            found.append(Problem(what, "mend the take", at_line(where, item["line"])))
    return found


def shortfalls(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The takes whose source offers less than was asked. A budget in tokens counts as met when the whole source would
    pass it: the rest is less than one row."""
    return [item for item in records if not item["repeats"] and item["offered"] < item["requested"]]
