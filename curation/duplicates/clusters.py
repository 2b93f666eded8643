"""Verified pairs to clusters, and what is told of them: values per row, evidence per pair, rates per source pair."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curation.duplicates.index import Index, Longs
from curation.duplicates.order import RANK, bind_table
from curation.join_work import JoinWork
from curation.kernels.jaccard import single_linkage


def publish(work: JoinWork, index: Index, a_P: Longs, b_P: Longs, common_P: Longs, threshold: float,
            names: Sequence[str]) -> None:  # fmt: skip
    """Create `measured` and `found` of a measure of near duplicates from P candidate pairs of sets and the number of
    shingles they have in common; `names` are its columns: rank, cluster, similarity, link."""
    size_a, size_b = index.size_S[a_P], index.size_S[b_P]
    jaccard = common_P / (size_a + size_b - common_P)
    keep = jaccard >= threshold
    a, b, jaccard = a_P[keep], b_P[keep], jaccard[keep]
    containment = common_P[keep] / np.minimum(size_a, size_b)[keep]
    bind_table(work, "near_pairs", pa.table({"a": a, "b": b, "jaccard": jaccard, "containment": containment}))
    _bind_members(work, index, a, b, jaccard)
    work.connection.execute(f"""
        CREATE TEMP TABLE near_ranks AS
        SELECT place, similarity, CASE WHEN NOT held_out THEN link END AS link, {RANK} AS rank,
               (count(*) OVER (PARTITION BY root))::INTEGER AS size
        FROM near_members
        WINDOW same AS (PARTITION BY root ORDER BY place)
    """)
    rank, cluster, similarity, link = names
    work.connection.execute(f"""
        CREATE TEMP VIEW measured AS
        SELECT ordered.row_id, coalesce(rank, 0)::INTEGER AS {rank}, coalesce(size, 1)::INTEGER AS {cluster},
               similarity AS {similarity}, link AS {link}
        FROM ordered LEFT JOIN near_ranks USING (place)
    """)
    work.connection.execute("""
        CREATE TEMP TABLE found AS
        WITH pairs AS (  -- of the first rows of two sets, and of every row with the first of an equal set
            SELECT mine.place, other.place AS partner_place, jaccard, containment
            FROM near_pairs JOIN near_members AS mine ON mine.of_set = b AND mine.is_first
            JOIN near_members AS other ON other.of_set = a AND other.is_first
            UNION ALL SELECT mine.place, other.place, 1.0, 1.0
            FROM near_members AS mine JOIN near_members AS other ON mine.of_set = other.of_set AND other.is_first
            WHERE NOT mine.is_first
        )
        SELECT mine.row_id, other.row_id AS partner, first.row_id AS representative, jaccard, containment,
               mine.source, other.source AS partner_source, first.source AS representative_source
        FROM pairs JOIN near_members AS mine ON mine.place = pairs.place
        JOIN near_members AS other ON other.place = pairs.partner_place
        JOIN near_members AS first ON first.place = mine.root
    """)
    _count(work)


def _bind_members(work: JoinWork, index: Index, a_P: Longs, b_P: Longs, jaccard_P: npt.NDArray[np.float64]) -> None:
    """Create `near_members`: of every row with a near duplicate its columns of `ordered`, its set and whether it is the
    first row of that, root (the place that represents its cluster), the similarity to the most similar other row, and
    the largest threshold at which a row before it is in its cluster (null for none)."""
    num_sets = len(index.first_S)
    order = np.argsort(-jaccard_P, kind="stable")
    root, link = single_linkage(num_sets, a_P[order], b_P[order], jaccard_P[order])
    best = np.zeros(num_sets)
    np.maximum.at(best, a_P, jaccard_P)
    np.maximum.at(best, b_P, jaccard_P)
    best[np.bincount(index.set_N[index.set_N >= 0], minlength=num_sets) > 1] = 1.0  # equal sets are indexed once
    place = np.flatnonzero(index.set_N >= 0)
    place = place[best[index.set_N[place]] > 0]
    sets = index.set_N[place]
    first = index.first_S[sets] == place
    links = np.where(first, link[sets], 1.0)
    bind_table(work, "near_places", pa.table({
        "place": place, "of_set": sets, "is_first": first, "root": index.first_S[root[sets]], "similarity": best[sets],
        "link": pa.array(links, mask=links == 0)}))  # fmt: skip
    work.connection.execute("CREATE TEMP TABLE near_members AS SELECT * FROM near_places JOIN ordered USING (place)")


def _count(work: JoinWork) -> None:
    """Clusters, their rows, and how many rows of each source have a near duplicate in each: a rate says little until
    one knows between which sources it holds."""
    clusters, rows, left_out = work.connection.execute(
        "SELECT count(DISTINCT root), count(*), (SELECT count(*) FROM near_ranks WHERE rank > 0) FROM near_members"
    ).fetchall()[0]
    work.counts.update(clusters=clusters, rows_in_clusters=rows, rows_of_rank_above_0=left_out)
    found = work.connection.execute("""
        WITH sets AS (SELECT of_set, source, count(*) AS num_rows FROM near_members GROUP BY ALL),
        alike AS (
            SELECT a, b FROM near_pairs UNION ALL SELECT b, a FROM near_pairs
            UNION ALL SELECT DISTINCT of_set, of_set FROM sets
        ), matches AS (
            SELECT mine.source, other.source AS partner_source, mine.of_set, any_value(mine.num_rows) AS matched,
                   sum(mine.num_rows * (other.num_rows - (a = b AND mine.source = other.source)::INTEGER)) AS pairs
            FROM alike JOIN sets AS mine ON mine.of_set = a JOIN sets AS other ON other.of_set = b GROUP BY ALL
        ), totals AS (SELECT source, count(*) AS num_rows FROM ordered GROUP BY source)
        SELECT source, partner_source, sum(pairs)::BIGINT, sum(matched)::BIGINT, any_value(num_rows)
        FROM matches JOIN totals USING (source) WHERE pairs > 0 GROUP BY ALL ORDER BY ALL
    """).fetchall()
    work.counts["pairs_by_source"] = [
        {"source": source, "partner_source": partner, "pairs": pairs // (1 + (source == partner)), "rows": matched,
         "share": round(matched / total, 6)}
        for source, partner, pairs, matched, total in found
    ]  # fmt: skip
