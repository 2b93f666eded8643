"""The language of texts, by the same model as the measure `language`. Needs the project's environment when called."""

from __future__ import annotations

from collections.abc import Sequence


def languages(texts: Sequence[str]) -> list[str | None]:
    """ISO 639-1 (else 639-3) of N texts; None where fewer than 24 bytes of letters are left without code, formulas and
    addresses, and where the model finds no language. Raises ValueError where the model is not installed."""
    try:
        import pyarrow as pa

        from curation.measures.language import Language
    except ImportError as error:
        raise ValueError(f"languages need the project's environment: {error}") from error
    from curation import schema

    rows = pa.table({"text": pa.array(texts, pa.string()), "messages": pa.nulls(len(texts), schema.MESSAGES)})
    found: list[str | None] = Language().measure(rows, "midtrain")["language"].to_pylist()
    return found
