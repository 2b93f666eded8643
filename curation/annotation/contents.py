"""What the subjects of a job show, as SQL: prompt, candidates, and why an item cannot be asked about."""

from __future__ import annotations

import duckdb

from curation.annotation.jobs import Job
from curation.annotation.records import ITEMS
from curation.annotation.rendering import MAX_MESSAGES, MESSAGE_CHARS
from curation.relations import quoted, sql_type

COLUMNS = "row_id, source, prompt, tools, candidates, wrong, of_item"
MACROS = """
CREATE TEMP MACRO candidate(k, m, by_model, g) AS
    struct_pack(key := k, messages := m, model := by_model, generation_id := g);
CREATE TEMP MACRO turn_chars(t) AS
    coalesce(len(t.content), 0) + coalesce(len(t.reasoning), 0) + coalesce(len(t.tool_calls), 0);
CREATE TEMP MACRO chars(turns) AS coalesce(list_sum(list_transform(turns, lambda t: turn_chars(t))), 0);
CREATE TEMP MACRO num_messages(turns) AS
    coalesce(list_sum(list_transform(turns, lambda t: 1 + turn_chars(t) // {message_chars})), 0);
"""
NO_CANDIDATES = f"CAST([] AS {sql_type(ITEMS.field('candidates').type)})"
NOTHING = "NULL::VARCHAR"

# Bodies over `asked` (key, subject): what COLUMNS say.
PREFERENCE = f"""
SELECT a.key, r.row_id, r.source, r.prompt, r.tools,
       [candidate('chosen', r.chosen, {NOTHING}, {NOTHING}), candidate('rejected', r.rejected, {NOTHING}, {NOTHING})]
       AS candidates,
       CASE WHEN r.chosen IS NULL OR r.rejected IS NULL THEN 'it has one side only' END AS wrong, {NOTHING} AS of_item
FROM asked AS a JOIN rows_preference AS r ON a.subject = r.row_id
"""
SFT = f"""
SELECT a.key, r.row_id, r.source, r.messages[:-2] AS prompt, r.tools, {{candidates}} AS candidates,
       CASE WHEN r.messages[-1].role <> 'assistant' THEN 'it does not end with an answer' END AS wrong,
       {NOTHING} AS of_item
FROM asked AS a JOIN rows_sft AS r ON a.subject = r.row_id
"""
ORIGINAL = f"[candidate('original', r.messages[-1:], {NOTHING}, {NOTHING})]"
RLVR = f"""
SELECT a.key, r.row_id, r.source, r.prompt, r.tools, {NO_CANDIDATES} AS candidates, {NOTHING} AS wrong,
       {NOTHING} AS of_item
FROM asked AS a JOIN rows_rlvr AS r ON a.subject = r.row_id
"""
GENERATIONS = f"""
SELECT a.key, min(g.row_id) AS row_id, min(g.source) AS source, arg_min(g.prompt, g.generation_id) AS prompt,
       min(g.tools) AS tools,
       list(candidate(g.generation_id, g.messages, g.model, g.generation_id) ORDER BY g.generation_id) AS candidates,
       CASE WHEN count(*) FILTER (g.finish_reason = 'error' OR g.messages IS NULL) > 0 THEN 'a generation failed' END
       AS wrong, {NOTHING} AS of_item
FROM (SELECT key, unnest(subject) AS id FROM asked) AS a JOIN generation AS g ON a.id = g.generation_id GROUP BY a.key
"""
# A single answer that is to be edited is called what it is everywhere else.
ONE_GENERATION = GENERATIONS.replace("candidate(g.generation_id,", "candidate('original',")
EARLIER = f"""
SELECT a.key, i.row_id, i.source, i.prompt, i.tools, i.candidates, {NOTHING} AS wrong,
       coalesce(i.of_item, i.item_id) AS of_item
FROM asked AS a JOIN items AS i ON a.subject = i.item_id
"""


def create(connection: duckdb.DuckDBPyConnection, job: Job, subject: str) -> None:
    """Create `contents` (key and COLUMNS) over `asked`, and `offered` (key, topic, priority, gold, candidates: their
    number, refused: why it cannot be shown, else null)."""
    for statement in connection.extract_statements(MACROS.format(message_chars=MESSAGE_CHARS)):
        connection.execute(statement.query)
    connection.execute(f"CREATE TEMP VIEW contents AS {_body(job, subject)}")
    limit = job.header.max_chars
    connection.execute(f"""
        CREATE TEMP TABLE offered AS
        WITH sized AS (SELECT *, coalesce(len(tools), 0) + chars(prompt) + coalesce(list_sum(list_transform(candidates,
                              lambda c: chars(c.messages))), 0) AS num_chars,
                              num_messages(prompt) + coalesce(1 + len(tools) // {MESSAGE_CHARS}, 0) AS shown
                       FROM contents)
        SELECT a.key, a.topic, a.priority, a.gold, s.keys, s.refused
        FROM asked AS a JOIN (
            SELECT key, list_transform(candidates, lambda c: c.key) AS keys,
                   CASE WHEN wrong IS NOT NULL THEN wrong
                        WHEN shown > {MAX_MESSAGES} THEN 'its prompt has more than {MAX_MESSAGES} messages'
                        WHEN num_chars > {limit} THEN {quoted(f"it has more than {limit:,} characters")}
                        WHEN len(candidates) > 1
                             AND len(list_distinct(list_transform(candidates, lambda c: c.messages::VARCHAR))) = 1
                        THEN 'its candidates are the same text' END AS refused
            FROM sized) AS s ON a.key = s.key
    """)


def _body(job: Job, subject: str) -> str:
    edits = job.header.written is not None and job.header.written.kind == "edit"
    if subject == "item_id":
        return EARLIER
    if subject == "generation_ids":
        return ONE_GENERATION if edits else GENERATIONS
    return {"preference": PREFERENCE, "rlvr": RLVR,
            "sft": SFT.format(candidates=ORIGINAL if edits else NO_CANDIDATES)}[job.header.stage]  # fmt: skip
