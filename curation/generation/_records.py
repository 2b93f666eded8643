"""The evidence `generation`: one row for each answer that a job asked for."""

from __future__ import annotations

import pyarrow as pa

from curation.schema import MESSAGES, UUID

GENERATION = pa.schema(
    [
        ("generation_id", pa.string()),  # 32 hex characters over prompt, sample, temperature, seed, writer, settings
        ("job", pa.string()),
        ("row_id", UUID),  # the row whose prompt it is; of several with one prompt the first by source and id
        ("source", pa.string()),
        ("prompt", MESSAGES),
        ("prompt_hash", UUID),  # of the row: the normalised prompt, the key of held-out shares
        ("tools", pa.string()),
        ("sample", pa.int32()),  # 0-based among the answers to one prompt at one temperature
        ("temperature", pa.float64()),
        ("seed", pa.int64()),  # of this answer, made of the job's seed and what is asked
        ("messages", MESSAGES),  # the answer: one message of the assistant; null where there is none
        ("text", pa.string()),  # its content
        ("finish_reason", pa.string()),  # stop | length | error
        ("prompt_tokens", pa.int64()),
        ("output_tokens", pa.int64()),  # without the end token where the generator can tell
        ("model", pa.string()),  # the name shown
        ("weights", pa.string()),  # hash of the weights; of an endpoint the model's name
        ("settings", pa.string()),  # JSON: generator, version, conditions, top_p, max_tokens, the job's seed, software
        ("detail", pa.string()),  # what went wrong, for errors; null otherwise
    ]
)  # fmt: skip
