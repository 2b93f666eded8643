"""Verifier `instructions`: does an answer follow the instructions that a machine can check?

Kinds, names and arguments are those of IFEval (Zhou et al. 2023, arXiv 2311.07911, table 1, and google/IFEval). Two
things differ from the published code. An answer without a letter or digit follows nothing. And where that code needs
models (NLTK's for sentences and words, langdetect), sentences end at their marks, a word in capitals is one of letters,
digits and inner hyphens, and languages are told by the measure `language`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from curation.verifiers import Judgement
from curation.verifiers.languages import languages

RELATIONS = ("less than", "at least")
CONSTRAINED = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
MAX_CHARS = 200_000
_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|St|Prof|Capt|Lt|Inc|Ltd|Jr|Sr|Co|vs|etc|e\.g|i\.e|Ph\.D)|(?<![\w'’])[A-Za-z])$"
)
_SENTENCE_END = re.compile(r"(?<![.?!。！？])(?:[.?!]+|[。！？]+)[\"”’')\]]*(?=\s|$|(?<=[。！？]))")
_LETTER = re.compile(r"[^\W_]")
_CAPITALS = re.compile(r"\w+(?:[-'’./&]\w+)*")
_FENCED = re.compile(r"^\s*```(?:json|Json|JSON)?|```\s*$")


class Instruction(NamedTuple):
    """One instruction of a ground truth: its IFEval name and arguments, nulls left out."""

    name: str
    arguments: dict[str, Any]


class Followed(NamedTuple):
    """Which of the instructions an answer follows, in their order: as it is (strict), or with its first line, its last
    line and its asterisks left out in any combination (loose), as the paper has it."""

    strict: tuple[bool, ...]
    loose: tuple[bool, ...]


def read_instructions(gold: str) -> list[Instruction]:
    """The instructions of a ground truth: a JSON list of {"id", "kwargs"}, or an object with IFEval's own keys
    `instruction_id_list` and `kwargs`. Raises ValueError for an unknown name, missing or unknown arguments, none at
    all."""
    try:
        given = json.loads(gold)
        if isinstance(given, dict):
            pairs = list(zip(given["instruction_id_list"], given["kwargs"], strict=True))
        else:
            pairs = [(item.get("id") or item["instruction_id"], item.get("kwargs") or {}) for item in given]
        found = [Instruction(str(name), {key: value for key, value in (kwargs or {}).items() if value is not None})
                 for name, kwargs in pairs]  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the ground truth is no list of instructions: {error}") from error
    if not found:
        raise ValueError("the ground truth names no instruction")
    for item in found:
        _check(item)
    return found


def _check(item: Instruction) -> None:
    if item.name not in CHECKS:
        raise ValueError(f"there is no instruction {item.name!r}")
    _, wanted = CHECKS[item.name]
    lacking = [name for name in wanted if name not in item.arguments]
    unknown = [name for name in item.arguments if name not in wanted]
    if lacking or unknown:
        raise ValueError(f"{item.name} takes {', '.join(wanted) or 'no arguments'}, not {', '.join(item.arguments)}")
    for name, value in item.arguments.items():
        kind: Any = list if name in ("keywords", "forbidden_words") else _INTEGER if name in _NUMBERS else str
        if kind is _INTEGER:
            right = isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
        else:
            right = isinstance(value, kind) and bool(value)
        if not right or (name.endswith("relation") and value not in RELATIONS):
            raise ValueError(f"{item.name}: {name} cannot be {value!r}")


def follow(text: str, instructions: list[Instruction]) -> Followed:
    """Which instructions an answer follows, strictly and loosely."""
    text = text[:MAX_CHARS]
    loosened = dict.fromkeys(_variants(text))
    strict = tuple(_follows(text, item) for item in instructions)
    loose = tuple(ok or any(_follows(other, item) for other in loosened) for ok, item in
                  zip(strict, instructions, strict=True))  # fmt: skip
    return Followed(strict, loose)


def _variants(text: str) -> list[str]:
    lines = text.split("\n")
    cut = [text, "\n".join(lines[1:]).strip(), "\n".join(lines[:-1]).strip(), "\n".join(lines[1:-1]).strip()]
    return [form for one in cut for form in (one, one.replace("*", ""))]


def _follows(text: str, item: Instruction) -> bool:
    check, _ = CHECKS[item.name]
    return bool(_LETTER.search(text)) and check(text, **item.arguments)


def judge(text: str, gold: str) -> Judgement:
    """Right where every instruction is followed strictly, unparsed where there is no letter or digit. `answer` names
    what is not followed. Raises ValueError where `gold` is no list of instructions."""
    return graded(text, gold)[0]


def graded(text: str, gold: str) -> tuple[Judgement, float]:
    """`judge`, with the share (0..1) of the instructions that are followed strictly."""
    instructions = read_instructions(gold)
    if not _LETTER.search(text):
        return Judgement("unparsed", None), 0.0
    kept = follow(text, instructions).strict
    broken = [item.name for item, ok in zip(instructions, kept, strict=True) if not ok]
    return Judgement("wrong" if broken else "right", ", ".join(broken)), sum(kept) / len(kept)


# ---- the kinds


def sentences(text: str) -> list[str]:
    """A text cut after its sentences' marks; not after an abbreviation, an initial, or inside of a number or name."""
    found, start = [], 0
    for mark in _SENTENCE_END.finditer(text):
        if mark[0] == "." and _ABBREVIATION.search(text, max(0, mark.start() - 12), mark.start()):
            continue
        found.append(text[start : mark.end()].strip())
        start = mark.end()
    return [sentence for sentence in [*found, text[start:].strip()] if _LETTER.search(sentence)]


def _compared(count: int, relation: str, bound: float) -> bool:
    return count < bound if relation == "less than" else count >= bound


def _occurrences(word: str, text: str) -> int:
    return len(re.findall(re.escape(word.strip()), text, re.IGNORECASE))


def _keywords(text: str, keywords: list[str]) -> bool:
    return all(_occurrences(word, text) for word in keywords)


def _keyword_frequency(text: str, keyword: str, frequency: int, relation: str) -> bool:
    return _compared(_occurrences(keyword, text), relation, frequency)


def _forbidden(text: str, forbidden_words: list[str]) -> bool:
    return not any(re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) for word in forbidden_words)


def _letter_frequency(text: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    return _compared(text.lower().count(letter.lower()), let_relation, let_frequency)


def _language(text: str, language: str) -> bool:
    found = languages([text])[0]
    return found is None or found == language.partition("-")[0].lower()


def _number_sentences(text: str, num_sentences: int, relation: str) -> bool:
    return _compared(len(sentences(text)), relation, num_sentences)


def _number_words(text: str, num_words: int, relation: str) -> bool:
    return _compared(len(re.findall(r"\w+", text)), relation, num_words)


def _paragraphs(text: str, num_paragraphs: int) -> bool:
    parts = re.split(r"\s?\*\*\*\s?", text)
    return all(part.strip() for part in parts[1:-1]) and sum(bool(part.strip()) for part in parts) == num_paragraphs


def _first_word(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    parts = text.split("\n\n")
    number = sum(bool(part.strip()) for part in parts)
    if not 1 <= nth_paragraph <= number or not parts[nth_paragraph - 1].strip():
        return False
    word = parts[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    return number == num_paragraphs and re.split(r"[.,?!'\"]", word)[0].lower() == first_word.lower()


def _placeholders(text: str, num_placeholders: int) -> bool:
    found = 0
    for line in text.split("\n"):
        end = line.find("]", line.find("[") + 1) if "[" in line else -1
        while end >= 0:
            found += 1
            start = line.find("[", end)
            end = line.find("]", start) if start >= 0 else -1
    return found >= num_placeholders


def _postscript(text: str, postscript_marker: str) -> bool:
    marker = postscript_marker.strip()
    known = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return re.search(known.get(marker, re.escape(marker.lower())), text.lower()) is not None


def _bullets(text: str, num_bullets: int) -> bool:
    stars = re.findall(r"^[^\S\n]*\*[^\*].*$", text, re.MULTILINE)
    return len(stars) + len(re.findall(r"^[^\S\n]*-.*$", text, re.MULTILINE)) == num_bullets


def _constrained(text: str) -> bool:
    return any(option in text for option in CONSTRAINED)


def _highlights(text: str, num_highlights: int) -> bool:
    single = re.findall(r"\*[^\n\*]*\*", text)
    double = re.findall(r"\*\*[^\n\*]*\*\*", text)
    return sum(bool(part.strip("*").strip()) for part in [*single, *double]) >= num_highlights


def _sections(text: str, section_spliter: str, num_sections: int) -> bool:
    return len(re.findall(rf"\s?{re.escape(section_spliter.strip())}\s?\d+\s?", text)) >= num_sections


def _json(text: str) -> bool:
    try:
        json.loads(_FENCED.sub("", text.strip()).strip())
    except (ValueError, RecursionError):
        return False
    return True


def _title(text: str) -> bool:
    for line in text.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if start >= 0 and end > start + 2 and line[start:end].lstrip("<").rstrip(">").strip():
            return True
    return False


def _two_responses(text: str) -> bool:
    parts = text.split("******")
    filled = [part.strip() for part in parts if part.strip()]
    return all(part.strip() for part in parts[1:-1]) and len(filled) == 2 and filled[0] != filled[1]


def _repeats(text: str, prompt_to_repeat: str) -> bool:
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def _ends(text: str, end_phrase: str) -> bool:
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def _capital_words(text: str, capital_frequency: int, capital_relation: str) -> bool:
    return _compared(sum(word.isupper() for word in _CAPITALS.findall(text)), capital_relation, capital_frequency)


def _all_capitals(text: str) -> bool:
    return text.isupper() and _language(text, "en")


def _all_lowercase(text: str) -> bool:
    return text.islower() and _language(text, "en")


def _no_comma(text: str) -> bool:
    return "," not in text


def _quoted(text: str) -> bool:
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


_INTEGER = object()
_NUMBERS = ("frequency", "let_frequency", "capital_frequency", "num_sentences", "num_words", "num_paragraphs",
            "nth_paragraph", "num_placeholders", "num_bullets", "num_highlights", "num_sections")  # fmt: skip
# name -> (check, its arguments)
CHECKS: dict[str, tuple[Callable[..., bool], tuple[str, ...]]] = {
    "keywords:existence": (_keywords, ("keywords",)),
    "keywords:frequency": (_keyword_frequency, ("keyword", "frequency", "relation")),
    "keywords:forbidden_words": (_forbidden, ("forbidden_words",)),
    "keywords:letter_frequency": (_letter_frequency, ("letter", "let_frequency", "let_relation")),
    "language:response_language": (_language, ("language",)),
    "length_constraints:number_sentences": (_number_sentences, ("num_sentences", "relation")),
    "length_constraints:number_paragraphs": (_paragraphs, ("num_paragraphs",)),
    "length_constraints:number_words": (_number_words, ("num_words", "relation")),
    "length_constraints:nth_paragraph_first_word": (_first_word, ("num_paragraphs", "nth_paragraph", "first_word")),
    "detectable_content:number_placeholders": (_placeholders, ("num_placeholders",)),
    "detectable_content:postscript": (_postscript, ("postscript_marker",)),
    "detectable_format:number_bullet_lists": (_bullets, ("num_bullets",)),
    "detectable_format:constrained_response": (_constrained, ()),
    "detectable_format:number_highlighted_sections": (_highlights, ("num_highlights",)),
    "detectable_format:multiple_sections": (_sections, ("section_spliter", "num_sections")),
    "detectable_format:json_format": (_json, ()),
    "detectable_format:title": (_title, ()),
    "combination:two_responses": (_two_responses, ()),
    "combination:repeat_prompt": (_repeats, ("prompt_to_repeat",)),
    "startend:end_checker": (_ends, ("end_phrase",)),
    "startend:quotation": (_quoted, ()),
    "change_case:capital_word_frequency": (_capital_words, ("capital_frequency", "capital_relation")),
    "change_case:english_capital": (_all_capitals, ()),
    "change_case:english_lowercase": (_all_lowercase, ()),
    "punctuation:no_comma": (_no_comma, ()),
}
