"""What a hit of a benchmark item says: the schema of its evidence."""

from __future__ import annotations

import pyarrow as pa

from curation import schema

PLACE = [("text_column", pa.string()), ("turn", pa.int32()), ("role", pa.string()), ("field", pa.string()),
         ("start_char", pa.int64()), ("end_char", pa.int64())]  # fmt: skip
EVIDENCE = pa.schema(
    [
        ("row_id", schema.UUID),
        ("source", pa.string()),
        ("stage", pa.string()),
        ("benchmark", pa.string()),
        ("item", schema.UUID),
        ("component", pa.string()),  # question | passage | answer | choices
        ("class", pa.string()),  # copy | edited | twin | paraphrase
        ("score", pa.float64()),  # 0..1: 1 - edit distance / characters of the component; cosine for paraphrases
        ("method", pa.string()),  # alignment | embedding
        *PLACE,  # of the longest part of the hit, in characters of that text
        ("snippet", pa.string()),
        ("further", pa.list_(pa.struct(PLACE))),  # where the hit goes on, for items over several turns
        ("item_start", pa.int64()),  # characters of the component's text
        ("item_end", pa.int64()),
        ("item_snippet", pa.string()),
        ("item_words", pa.int32()),  # of the whole component
        ("seeds", pa.int32()),  # distinct n-grams of the component in the row, boilerplate left out
        ("seed_idf", pa.float64()),  # their summed inverse item frequency / (words + 3): the candidate's rank
        ("answer_nearby", pa.bool_()),  # null where the item has no answer, or the hit is the answer
    ]
)  # fmt: skip
