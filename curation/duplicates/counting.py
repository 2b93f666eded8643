"""Rows that share an exact layer, counted and ranked."""

from __future__ import annotations

from collections.abc import Sequence

from curation.duplicates.order import RANK, bind_source_ranks, order_by
from curation.join_work import JoinWork


def count_copies(work: JoinWork, layers: Sequence[str], turns: Sequence[str], quality: str) -> None:
    """Create `measured` and `found` of the measure copies. A layer's key is the column LAYER_key (of the prompt its
    hash), a turn's keys are the list TURN_keys."""
    connection = work.connection
    bind_source_ranks(work)
    keys = "".join(f", s.{layer}_key" for layer in layers if layer != "prompt")
    connection.execute(f"""
        CREATE TEMP VIEW keyed AS
        SELECT rows.row_id, stage, rows.source, held_out, priority, {quality}, prompt_hash AS prompt_key{keys},
               {", ".join(f"s.{turn}_keys" for turn in turns)}
        FROM rows JOIN source_ranks USING (source)
        JOIN signals_duplicate_layers AS s ON s.row_id = rows.row_id
        JOIN signals_text_statistics AS t ON t.row_id = rows.row_id
    """)
    for layer in layers:
        _rank(work, layer, f"SELECT * RENAME ({layer}_key AS key) FROM keyed WHERE key IS NOT NULL", quality)
    for turn in turns:
        distinct = f"SELECT * EXCLUDE ({turn}_keys), unnest(list_distinct({turn}_keys)) AS key FROM keyed"
        _rank(work, f"every_{turn}", distinct, quality)
        connection.execute(f"""
            CREATE TEMP TABLE shared_{turn} AS SELECT * FROM shared_every_{turn}
            QUALIFY row_number() OVER (PARTITION BY row_id ORDER BY copies DESC, key) = 1
        """)
    joins = " ".join(f"LEFT JOIN shared_{name} AS l_{name} ON l_{name}.row_id = keyed.row_id"
                     for name in (*layers, *turns))  # fmt: skip
    values = [f"CASE WHEN {layer}_key IS NOT NULL THEN coalesce(l_{layer}.{name}, {alone}) END::INTEGER "
              f"AS {layer}_{name}" for layer in layers for name, alone in (("copies", 1), ("rank", 0))]  # fmt: skip
    values += [f"CASE WHEN len({turn}_keys) > 0 THEN coalesce(l_{turn}.copies, 1) END::INTEGER AS {turn}_copies"
               for turn in turns]  # fmt: skip
    connection.execute(f"CREATE TEMP VIEW measured AS SELECT keyed.row_id, {', '.join(values)} FROM keyed {joins}")
    connection.execute("CREATE TEMP VIEW found AS " + " UNION ALL ".join(
        f"SELECT row_id, '{name}' AS layer, copies, representative, source, representative_source FROM shared_{name} "
        "WHERE row_id <> representative" for name in (*layers, *turns)))  # fmt: skip
    for name in layers:
        _count(work, name, f"SELECT stage, source, {name}_key AS key FROM keyed WHERE key IS NOT NULL")
    for name in turns:
        _count(work, name, f"SELECT stage, source, unnest({name}_keys) AS key FROM keyed")


def _rank(work: JoinWork, name: str, keyed: str, quality: str) -> None:
    """Create `shared_NAME`: the rows whose key others have too, with the number of these, rank and representative."""
    work.connection.execute(f"""
        CREATE TEMP TABLE shared_{name} AS
        SELECT row_id, source, key, {RANK} AS rank, (count(*) OVER (PARTITION BY stage, key))::INTEGER AS copies,
               first_value(row_id) OVER same AS representative, first_value(source) OVER same AS representative_source
        FROM ({keyed}) WHERE key IN (SELECT key FROM ({keyed}) GROUP BY stage, key HAVING count(*) > 1)
        WINDOW same AS (PARTITION BY stage, key ORDER BY {order_by(quality)})
    """)


def _count(work: JoinWork, name: str, keyed: str) -> None:
    """Texts and distinct texts of a layer, by stage over all sources and by source."""
    found = work.connection.execute(f"SELECT stage, source, count(*), count(DISTINCT key) FROM ({keyed}) "
                                    "GROUP BY GROUPING SETS ((stage), (stage, source)) "
                                    "ORDER BY stage, source NULLS FIRST").fetchall()  # fmt: skip
    work.counts[name] = [{"stage": stage, "source": source, "texts": texts, "distinct": distinct}
                         for stage, source, texts, distinct in found]  # fmt: skip
