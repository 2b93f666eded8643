"""Does a text match what was typed into the search box? Standard library alone.

The rules are those of Elasticsearch's simple_query_string with the default operator AND, without brackets and
fuzziness: words in any order and any case, "phrases", `-word` for its absence, `word*` for a beginning, `|` between
alternatives.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from typing import Any

# Chinese and Japanese are written without blanks: every character counts as a word there.
UNSPACED = r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"
WORD = re.compile(rf"{UNSPACED}|(?:(?!{UNSPACED})\w)+")
TERM = re.compile(r'([-+]?)(?:"([^"]*)"|([^\s|"]+))|(\|)')


def marked(text: str) -> str:
    """The words of a text, in lower case, each between two marks that no word holds."""
    return "\0" + "\0".join(WORD.findall(text.casefold())) + "\0"


@functools.lru_cache(maxsize=64)
def parsed(query: str) -> tuple[tuple[tuple[bool, str], ...], ...]:
    """A query as alternatives of (is wanted, marked words) that must all hold."""
    alternatives: list[list[tuple[bool, str]]] = [[]]
    for sign, phrase, word, bar in TERM.findall(query):
        if bar:
            alternatives.append([])
            continue
        words = marked(phrase or word)
        if not phrase and word.endswith("*"):
            words = words[:-1]
        if words.strip("\0"):
            alternatives[-1].append((sign != "-", words))
    return tuple(tuple(terms) for terms in alternatives if terms)


def matches(query: str, text: str) -> bool:
    """Whether a text has what a query asks for; a query without a word asks for nothing."""
    alternatives, words = parsed(query), marked(text)
    if not alternatives:
        return True
    return any(all((term in words) == wanted for wanted, term in terms) for terms in alternatives)


def fields_match(query: str, field: str | None, fields: str | None) -> bool:
    """Whether the fields of a record (JSON), or one of them, match; of a chat its contents count, not the roles."""
    values = json.loads(fields or "{}")
    value = values.get(field) if field else values
    return matches(query, " \n ".join(leaves(value)))


def leaves(value: Any) -> Iterator[str]:
    """The texts inside a value of JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, dict):
        is_message = {"role", "content"} <= set(value)
        for name, item in value.items():
            if not (is_message and name == "role"):
                yield from leaves(item)
