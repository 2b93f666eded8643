"""What annotation keeps as evidence: items, votes, and what votes were resolved to.

An item is what one annotator sees: a prompt and its candidates in slots. A candidate is known by its `key`: `chosen`
or `rejected` for a side of a preference row, the generation's id for a generated answer. Votes name keys, never slots,
so that nothing downstream depends on where an answer stood; the slots stay beside the vote, for position bias.
"""

from __future__ import annotations

import pyarrow as pa

from curation.schema import MESSAGES, UUID

ITEMS_KIND, VOTES_KIND, RESOLVED_KIND, GENERATION_KIND = "items", "votes", "resolved", "generation"

ROUNDS = ("calibration", "main", "adjudication")
ROLES = ("item", "gold", "retest")
TIE, BOTH_BAD = "tie", "both_bad"  # verdicts that name no candidate; of an item with more candidates: none is better
SUBMITTED, DISCARDED, DRAFT = "submitted", "discarded", "draft"
PERSON, JUDGE = "person", "judge"

CANDIDATE = pa.struct(
    [
        ("key", pa.string()),
        ("messages", MESSAGES),
        ("model", pa.string()),  # who wrote it, where that is known; never shown to annotators
        ("generation_id", pa.string()),  # of the evidence `generation`; null for a side of a row
    ]
)

ITEMS = pa.schema(
    [
        ("item_id", pa.string()),  # 32 hex characters over job, round, role and what is shown
        ("job", pa.string()),
        ("round", pa.string()),  # ROUND-N: `main-1`; another guideline or question opens `main-2`
        ("edition", pa.string()),  # 12 hex characters over guidelines, questions and fields
        ("role", pa.string()),  # one of ROLES
        ("of_item", pa.string()),  # the item that a retest repeats or an adjudication decides; null otherwise
        ("position", pa.int64()),  # 0-based place in the round's order
        ("row_id", UUID),  # the row that the item was made of; null for one that was made of generations alone
        ("source", pa.string()),
        ("topic", pa.string()),
        ("prompt", MESSAGES),
        ("tools", pa.string()),
        ("candidates", pa.list_(CANDIDATE)),  # in slot order: the first is A
        ("gold", pa.string()),  # the right verdict of a gold item: a key, `tie` or `both_bad`
        ("meta", pa.string()),  # JSON: what the job's query gave beside (margin, judge_verdict, ...), hidden
    ]
)  # fmt: skip

VOTES = pa.schema(
    [
        ("item_id", pa.string()),
        ("job", pa.string()),
        ("round", pa.string()),
        ("edition", pa.string()),
        ("row_id", UUID),  # the item's
        ("annotator", pa.string()),  # a pseudonym, never a name
        ("kind", pa.string()),  # PERSON or JUDGE
        ("status", pa.string()),  # SUBMITTED, DISCARDED or DRAFT
        ("verdict", pa.string()),  # the key of the better (first-ranked) candidate, TIE or BOTH_BAD; null: not answered
        ("ranking", pa.list_(pa.struct([("key", pa.string()), ("rank", pa.int32())]))),  # 1 is best, ties share a rank
        ("ratings", pa.list_(pa.struct([("question", pa.string()), ("key", pa.string()), ("value", pa.int32())]))),
        ("texts", pa.list_(pa.struct([("question", pa.string()), ("key", pa.string()), ("text", pa.string())]))),
        ("flags", pa.list_(pa.string())),
        ("slots", pa.list_(pa.string())),  # keys in the order shown, A first; null where that is unknown
        ("seconds", pa.float64()),  # spent on the item, where that is known
        ("answered_at", pa.string()),  # ISO 8601, UTC; null where that is unknown
        ("values", pa.string()),  # JSON of what came, as it came
    ]
)  # fmt: skip

OUTCOMES = ("pair", "tie", "both_bad", "disputed", "too_few")
RESOLVED = pa.schema(
    [
        ("item_id", pa.string()),  # of the first item of what was shown: retests and adjudications are folded into it
        ("job", pa.string()),
        ("round", pa.string()),
        ("row_id", UUID),
        ("source", pa.string()),
        ("topic", pa.string()),
        ("outcome", pa.string()),  # one of OUTCOMES
        ("chosen", pa.string()),  # keys; null unless the outcome is `pair`
        ("rejected", pa.string()),
        ("num_votes", pa.int32()),
        ("for_chosen", pa.int32()),
        ("agreement", pa.float64()),  # share of pairs of voters that agree, 0..1; null under two votes
        ("confidence", pa.float64()),  # probability of the outcome under the method, 0..1
        ("margin", pa.float64()),  # (for chosen - for rejected) / votes, -1..1
        ("adjudicated", pa.bool_()),
        ("method", pa.string()),
        ("resolution", pa.string()),  # its name: two of one job both decide its items
    ]
)  # fmt: skip
