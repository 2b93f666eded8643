"""Short SFT rows for the benchmark of scale, made by DuckDB alone: millions in a minute, the same every time."""

from __future__ import annotations

from pathlib import Path

import duckdb

SHARES = {"math": 0.4, "chat": 0.3, "code": 0.2, "tools": 0.1}
ROWS_PER_FILE = 250_000
BENCHMARK_ITEMS = 1_000
STEMS = """
work walk talk help start open play plant count pack fill paint print collect deliver order visit return climb report
answer question number value function list market garden farmer teacher student driver river mountain basket bottle
ticket pencil letter paper window corner street bridge engine signal record pattern circle square sister brother
morning evening summer winter dinner kitchen pocket dollar minute kilometer gram meter half third water light color
sound field forest island ocean planet doctor lawyer artist singer worker builder reader chapter lesson method reason
result column matrix vector factor product
"""
ENDINGS = ("", "s", "ed", "ing", "er", "less", "ful", "ly", "ish", "able", "ness", "like")
COMMON = "the a of and to in is that for with on as it at by from each every when then than after before"

# Word `x` of text `kind` of row `base`: common words often, others by a log-uniform rank, as in a natural text.
WORD = """
CREATE MACRO drawn(base, kind, x) AS hash(base, kind, x);
CREATE MACRO word(key) AS CASE WHEN key % 5 < 2 THEN getvariable('common')[1 + ((key >> 8) % {common})::INTEGER]
    ELSE getvariable('stems')[1 + floor(pow({stems}, ((key >> 16) % 1000003) / 1000003.0))::INTEGER % {stems}] END;
CREATE MACRO said(base, row, kind, size) AS list_aggregate(list_transform(range(size), lambda x:
    CASE WHEN x % 12 = 11 THEN ((drawn(base, kind, x) >> 5) % 900)::VARCHAR
    ELSE word(CASE WHEN row <> base AND drawn(row, 'edit', x) % 25 = 0 THEN drawn(row, kind, x)
              ELSE drawn(base, kind, x) END) END), 'string_agg', ' ');
"""

# Two rows in a hundred repeat an earlier one, three in a hundred repeat it with a word in 25 changed, and one in a
# thousand asks a benchmark's question.
ROWS = """
COPY (
    SELECT [{{role: 'user', content: CASE WHEN drawn(row, 'leak', 0) % 1000 = 0
                THEN 'Please solve this. ' || said(drawn(row, 'item', 0) % {items}, drawn(row, 'item', 0) % {items},
                     'item', 30)
                ELSE said(base, shown, 'ask', {words} * (20 + drawn(base, 'size', 0) % 30)::INTEGER) || '?' END}},
            {{role: 'assistant', content: CASE WHEN drawn(base, 'think', 0) % 4 = 0
                THEN '<think>' || said(base, shown, 'think', {words} * 25) || '</think>' ELSE '' END
                || said(base, shown, 'say', {words} * (25 + drawn(base, 'size', 1) % 40)::INTEGER) || '.'}}]
           AS messages, row % 7 AS topic
    FROM (SELECT row, copies, CASE WHEN copies < 5 AND row > 1000 THEN row - 1 - (drawn(row, 'from', 0) % 1000)::BIGINT
                 ELSE row END AS base, CASE WHEN copies < 2 THEN base ELSE row END AS shown
          FROM (SELECT range AS row, drawn(range, 'copy', 0) % 100 AS copies FROM range({first}, {last})))
) TO '{path}' (FORMAT json)
"""

ITEMS = """
COPY (SELECT said(item, item, 'item', 30) AS question, (drawn(item, 'gold', 0) % 900)::VARCHAR AS answer
      FROM (SELECT range AS item FROM range({items}))
) TO '{path}' (FORMAT json)
"""


def write_rows(folder: Path, rows: int, words: int = 1) -> dict[str, int]:
    """`rows` conversations of 300 to 700 characters (times `words`) over four sources in `folder`/SOURCE-N.jsonl, and
    the questions of a benchmark in items.jsonl; returns the rows of each source."""
    folder.mkdir(parents=True)
    stems = [stem + ending for ending in ENDINGS for stem in STEMS.split()]
    common = COMMON.split()
    connection = duckdb.connect(":memory:")
    try:
        connection.execute("SET VARIABLE stems = ?", [stems])
        connection.execute("SET VARIABLE common = ?", [common])
        connection.execute(WORD.format(stems=len(stems), common=len(common)))
        connection.execute(ITEMS.format(path=folder / "items.jsonl", items=BENCHMARK_ITEMS))
        first, counts = 0, {}
        for source, share in SHARES.items():
            counts[source] = round(rows * share)
            last = first + counts[source]
            for number, start in enumerate(range(first, last, min(ROWS_PER_FILE, -(-counts[source] // 2)))):
                stop = min(last, start + min(ROWS_PER_FILE, -(-counts[source] // 2)))
                path = folder / f"{source}-{number:03d}.jsonl"
                connection.execute(ROWS.format(first=start, last=stop, path=path, items=BENCHMARK_ITEMS, words=words))
            first = last
    finally:
        connection.close()
    return counts
