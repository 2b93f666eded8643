"""The takes of a mixture: macros on a connection, and what each of them asked for, was offered and delivered."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import jinja2

from curation.config import SHIPPED

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
    tree = json.loads(connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [text]).fetchall()[0][0])
    found: list[dict[str, Any]] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            function = node.get("function")
            name = str(function.get("function_name", "")) if isinstance(function, dict) else ""
            if node.get("type") == "TABLE_FUNCTION" and name.startswith("take_"):
                found.append(node)
                return
            for child in node.values():
                walk(child)
        elif isinstance(node, list):
            for child in node:
                walk(child)

    walk(tree)
    return found


def call_text(connection: duckdb.DuckDBPyConnection, node: dict[str, Any], prefix: str) -> str:
    """A take's call as SQL, with another prefix (`ask_`, `take_`)."""
    empty = json.loads(connection.execute("SELECT json_serialize_sql('SELECT * FROM range(1)')").fetchall()[0][0])
    empty["statements"][0]["node"]["from_table"] = node | {"alias": ""}
    text = connection.execute("SELECT json_deserialize_sql(?::JSON)", [json.dumps(empty)]).fetchall()[0][0]
    return str(text).strip().rstrip(";").replace("FROM take_", f"FROM {prefix}", 1)


def account(connection: duckdb.DuckDBPyConnection, text: str) -> list[dict[str, Any]]:
    """One record per take and source: take, source, unit, requested, offered (what all kept rows of the source have
    once) and delivered, in that unit."""
    records = []
    for number, node in enumerate(find_takes(connection, text)):
        amount = "CASE unit WHEN 'rows' THEN 1 WHEN 'tokens' THEN tokens ELSE trained_tokens END"
        rows = connection.execute(
            f"WITH asked AS ({call_text(connection, node, 'ask_')}), "
            f"offered AS (SELECT source, sum({amount}) AS amount FROM kept JOIN asked USING (source) GROUP BY source), "
            f"given AS (SELECT source, sum({amount}) AS amount FROM ({call_text(connection, node, 'take_')}) AS t "
            "JOIN asked USING (source) GROUP BY source) "
            "SELECT asked.source, asked.unit, asked.requested, coalesce(offered.amount, 0), coalesce(given.amount, 0), "
            "asked.repeats FROM asked LEFT JOIN offered USING (source) LEFT JOIN given USING (source) ORDER BY ALL"
        ).fetchall()
        take = node["function"]["function_name"]
        records += [{"number": number, "take": take, "source": source, "unit": unit, "requested": int(requested),
                     "offered": int(offered), "delivered": int(given), "repeats": bool(repeats)}
                    for source, unit, requested, offered, given, repeats in rows]  # fmt: skip
    return records


def hopeless(records: list[dict[str, Any]], on_shortfall: str) -> list[str]:
    """Takes that no header can satisfy, each as what is wrong: a negative amount, nothing to repeat, or more repeats
    than a take makes."""
    found = []
    for item in records:
        asked = f"{item['take']} asks for {item['requested']:,} {item['unit']} of '{item['source']}'"
        repeats = item["repeats"] or on_shortfall == "repeat"
        if item["requested"] < 0:
            found.append(f"{asked}: less than nothing")
        elif repeats and item["requested"] > MAX_EPOCHS * item["offered"]:
            what = (
                f"{MAX_EPOCHS:,} times the {item['offered']:,} that are kept" if item["offered"] else "and none is kept"
            )
            found.append(f"{asked}, more than {what}" if item["offered"] else f"{asked}, {what}")
    return found


def shortfalls(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The takes whose source offers less than was asked. A budget in tokens counts as met when the whole source would
    pass it: the rest is less than one row."""
    return [item for item in records if not item["repeats"] and item["offered"] < item["requested"]]
