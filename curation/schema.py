"""Arrow schemas of rows, rejects, verdicts, evidence and scores; nothing else.

Ids are 16-byte UUIDs in the lake (shown as 32 hex characters) and hex text in frozen mixtures, which any reader loads.
`tool_calls`, `tools` and `meta` are JSON text, because Arrow would merge differing keys with nulls.
"""

from __future__ import annotations

import pyarrow as pa

STAGES = ("midtrain", "sft", "preference", "rlvr")
BENCHMARK = "benchmark"  # items that models are scored on: never trained on, so no stage; rows are compared with them
ROLES = ("system", "developer", "user", "assistant", "tool")

UUID = pa.uuid()

MESSAGE = pa.struct(
    [
        ("role", pa.string()),
        ("content", pa.string()),
        ("reasoning", pa.string()),
        ("tool_calls", pa.string()),
        ("tool_call_id", pa.string()),
        ("name", pa.string()),
    ]
)
MESSAGES = pa.list_(MESSAGE)

# What the trainer may see. The payload of a row (its identity) is exactly these columns.
PAYLOAD: dict[str, list[tuple[str, pa.DataType]]] = {
    "midtrain": [("text", pa.string()), ("messages", MESSAGES)],
    "sft": [("messages", MESSAGES), ("tools", pa.string())],
    "preference": [("prompt", MESSAGES), ("chosen", MESSAGES), ("rejected", MESSAGES), ("tools", pa.string())],
    "rlvr": [("prompt", MESSAGES), ("ground_truth", pa.string()), ("verifier", pa.string()), ("tools", pa.string())],
    BENCHMARK: [("question", pa.string()), ("answer", pa.string()), ("passage", pa.string()),
                ("choices", pa.list_(pa.string()))],
}  # fmt: skip
# Facts about a row that are not part of its identity.
ANNOTATIONS: dict[str, list[tuple[str, pa.DataType]]] = {
    "midtrain": [],
    "sft": [],
    "preference": [
        ("margin", pa.float64()),
        ("chosen_score", pa.float64()),
        ("rejected_score", pa.float64()),
        ("step_labels", pa.string()),
    ],
    "rlvr": [("reference_solution", pa.string()), ("pass_rates", pa.list_(pa.float64()))],
    BENCHMARK: [],
}
IDENTITY = [
    ("row_id", UUID),
    ("content_hash", UUID),
    ("prompt_hash", UUID),
    ("stage", pa.string()),
    ("source", pa.string()),
    ("held_out", pa.bool_()),
    ("occurrence", pa.int32()),  # 0-based number among identical payloads of the source
]
ORIGIN = [("meta", pa.string()), ("file", pa.string()), ("line", pa.int64())]


def rows(stage: str) -> pa.Schema:
    """Schema of a row part of `stage`, or of BENCHMARK."""
    return pa.schema(IDENTITY + PAYLOAD[stage] + ANNOTATIONS[stage] + ORIGIN)


def frozen(stage: str) -> pa.Schema:
    """Schema of a frozen mixture part: hex ids, the payload and annotations, no file or line."""
    identity = [("row_id", pa.string()), ("source", pa.string()), ("epoch", pa.int32()), ("prompt_hash", pa.string())]
    return pa.schema(identity + PAYLOAD[stage] + ANNOTATIONS[stage] + [("meta", pa.string())])


REJECTS = pa.schema(
    [
        ("source", pa.string()),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("reason", pa.string()),
        ("record", pa.string()),  # the first 2,000 characters of the record
    ]
)
VERDICTS = pa.schema([("row_id", UUID), ("source", pa.string()), ("rule", pa.string()), ("reason", pa.string())])
DUPLICATES = pa.schema(
    [("row_id", UUID), ("representative", UUID), ("source", pa.string()), ("representative_source", pa.string())]
)

STATES = ("right", "wrong", "truncated", "unparsed", "timeout", "error")
SCORES = pa.schema(
    [
        ("benchmark", pa.string()),
        ("sample_id", pa.string()),
        ("repeat", pa.int32()),  # 0-based index of a sample drawn repeatedly for one item
        ("cluster", pa.string()),  # items of one cluster are not independent; the sample id where there is none
        ("state", pa.string()),  # one of STATES
        ("score", pa.float64()),  # 0..1; 0 unless the state is right or a graded benchmark gave partial credit
        ("answer", pa.string()),  # the parsed answer, null when none was found
        ("gold", pa.string()),
        ("response", pa.string()),  # raw text, reasoning included
        ("output_tokens", pa.int64()),
        ("prompt_tokens", pa.int64()),
        ("finish_reason", pa.string()),  # stop | length | error
        ("refused", pa.bool_()),
        ("prompt_hash", pa.string()),  # hash of the rendered prompt's text
        ("prompt", pa.string()),
        ("detail", pa.string()),  # what went wrong, for errors and timeouts
    ]
)
