"""Steps of an answer: text -> steps that joined give the text back, and rows whose steps are labelled."""

from __future__ import annotations

import itertools
import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, Literal

import orjson

from curation.verifiers.reading import THOUGHTS

By = Literal["auto", "blank", "marker", "line"]
Thoughts = Literal["whole", "split"]
_SOLID = re.compile(r"\S")
_BLANK = re.compile(r"\n(?:[ \t\r]*\n)+")
_MARKER = re.compile(r"^[ \t]{0,3}(?:#{1,6} ?)?\*{0,2}step ?\d{1,3}\b", re.IGNORECASE | re.MULTILINE)
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})[^\n]*$", re.MULTILINE)
_MATH = re.compile(r"\$\$|(?<!\\)\\[\[\]]|\\(begin|end)\{(\w{1,20}\*?)\}")


def split(text: str, by: By = "auto", thoughts: Thoughts = "whole") -> list[str]:
    """The steps of `text` in order, with the white space behind each: "".join(steps) == text, and none is blank unless
    all of the text is.

    `blank` ends a step at blank lines, `line` at every line's end, `marker` before a line that begins with `Step N`
    (in any case, under `#` or `**`). `auto` takes markers where there are two, else blank lines where there is one,
    else lines. No step ends inside of a code fence (closed, or open to the end), `$$..$$`, `\\[..\\]` or
    `\\begin{x}..\\end{x}`. A thought is one step (`whole`), also one that never ends, or split like the rest of the
    text (`split`); it is a step apart from what stands around it either way. Takes time linear in the text."""
    if not text:
        return []
    spans = _thoughts(text)
    marks = sorted({0, len(text), *(place for span in spans for place in span)})
    blocks = [(first + start, first + end) for first, last in itertools.pairwise(marks)
              for start, end in _blocks(text[first:last])]  # fmt: skip
    kept = blocks if thoughts == "split" else _joined([*spans, *blocks])
    cuts = sorted({*marks, *_outside(_cuts(text, by, kept), kept)} - {0, len(text)})
    starts = _without_blank(text, [0, *cuts])
    return [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]


def _cuts(text: str, by: By, kept: list[tuple[int, int]]) -> list[int]:
    """Places where a step may begin."""
    markers = [found.start() for found in _MARKER.finditer(text)]
    if by == "marker" or (by == "auto" and len(list(_outside(markers, kept))) > 1):
        return markers
    last = len(text.rstrip())
    blanks = [found.end() for found in _BLANK.finditer(text) if found.end() < last]
    if by == "blank" or (by == "auto" and any(_outside(blanks, kept))):
        return blanks
    return [found.end() for found in re.finditer(r"\n", text)]


def _outside(places: list[int], kept: list[tuple[int, int]]) -> Iterator[int]:
    """The places that do not lie inside of a span (its ends are outside)."""
    starts = [start for start, _ in kept]
    for place in places:
        index = bisect_right(starts, place - 1) - 1
        if index < 0 or place >= kept[index][1]:
            yield place


def _thoughts(text: str) -> list[tuple[int, int]]:
    """Spans of thoughts with their marks; one whose begin stands in the prompt starts with the text."""
    found: list[tuple[int, int]] = []
    for begin, end in THOUGHTS:
        place = 0
        first, closed = text.find(begin), text.find(end)
        if closed >= 0 and (first < 0 or closed < first):
            place = _behind(text, closed + len(end))
            found.append((0, place))
        while (start := text.find(begin, place)) >= 0:
            close = text.find(end, start)
            place = _behind(text, close + len(end)) if close >= 0 else len(text)
            found.append((start, place))
    return _joined(found)


def _behind(text: str, place: int) -> int:
    """The first place from `place` on without white space."""
    found = _SOLID.search(text, place)
    return found.start() if found else len(text)


def _blocks(text: str) -> list[tuple[int, int]]:
    """Spans of code fences, and of displayed mathematics outside of them."""
    fences: list[tuple[int, int]] = []
    opened: tuple[int, str] | None = None
    for found in _FENCE.finditer(text):
        mark = found[1]
        if opened is None:
            opened = (found.start(), mark)
        elif mark[0] == opened[1][0] and len(mark) >= len(opened[1]) and found[0].strip() == mark:
            fences.append((opened[0], found.end()))
            opened = None
    if opened is not None:
        fences.append((opened[0], len(text)))
    return _joined([*fences, *_displays(text, fences)])


def _displays(text: str, fences: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Displays that are closed before a fence; a mark that is never closed keeps nothing together."""
    starts = [start for start, _ in fences]
    opened: dict[str, list[int]] = {}
    behind = -1  # which fence
    for found in _MATH.finditer(text):
        index = bisect_right(starts, found.start()) - 1
        if index >= 0 and found.start() < fences[index][1]:
            continue
        if index != behind:
            opened, behind = {}, index
        places = opened.setdefault(found[2] or ("$$" if found[0] == "$$" else "\\["), [])
        if not (found[1] == "end" or found[0] == "\\]" or (found[0] == "$$" and places)):
            places.append(found.start())
        elif places:
            yield places.pop(), found.end()


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans in order, those that overlap made one."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if found and start < found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def _without_blank(text: str, starts: list[int]) -> list[int]:
    """Where pieces start, blank ones joined to the one before, or to the next where there is none."""
    found: list[int] = []
    blank = False  # all of the piece that is being made
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        said = bool(text[start:end].strip())
        if not found or (said and not blank):
            found.append(start)
            blank = not said
        else:
            blank = blank and not said
    return found


def labelled(answer: str, step_labels: str, *, neutral: bool = True) -> list[tuple[str, bool | None]]:
    """The steps of a row whose steps are labelled (see step_records.py), as (text, right): None where nobody said.
    `neutral`: a step rated 0, neither wrong nor of use, counts as right (Lightman et al. 2023, appendix F)."""
    return [(answer[step["start"] : step["end"]], _right(step, neutral)) for step in orjson.loads(step_labels)["steps"]]


def stepwise(prompt: str, answer: str, step_labels: str, *, neutral: bool = True) -> list[dict[str, Any]]:
    """A labelled row as records {prompt, completions, labels}, the shape of TRL's data sets for stepwise supervision:
    the answer up to its last labelled step, and for each step with labelled alternatives one that ends in each of
    them. A step within that nobody labelled ends the record before it."""
    records: list[dict[str, Any]] = []
    texts: list[str] = []
    labels: list[bool] = []
    steps = orjson.loads(step_labels)["steps"]
    for step, (text, right) in zip(steps, labelled(answer, step_labels, neutral=neutral), strict=True):
        for other in step.get("alternatives", ()):
            if (said := _right(other, neutral)) is not None:
                records.append({"prompt": prompt, "completions": [*texts, other["text"]], "labels": [*labels, said]})
        if right is None:
            break
        texts.append(text)
        labels.append(right)
    whole = [{"prompt": prompt, "completions": texts, "labels": labels}] if texts else []
    return whole + records


def _right(step: dict[str, Any], neutral: bool) -> bool | None:
    rating = step.get("rating")
    return None if rating is None else rating > 0 or (neutral and rating == 0)
