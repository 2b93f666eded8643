r"""How verifiers read: spellings of one character, boxes, statements of an answer, echoes of the prompt. Every function
takes time that is linear in its text, whatever the text."""

from __future__ import annotations

import re
import unicodedata

THOUGHTS = (("<think>", "</think>"), ("<|begin_of_thought|>", "<|end_of_thought|>"))
_SOLUTION = re.compile(r"<\|(?:begin|end)_of_solution\|>")
_SPELT = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {
    0x3000: " ", 0x00A0: " ", 0x202F: " ", 0x2009: " ", 0x2212: "-", 0x2012: "-", 0x2013: "-", 0x2044: "/",
    **dict.fromkeys((0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF)),
    **{ord(sign): f"^{index}" for index, sign in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
}  # fmt: skip
_VULGAR = re.compile("[¼-¾⅐-⅞↉]")
_TAG = re.compile(r"</?[A-Za-z][\w-]{0,40}\s?/?>")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
# What makes the value that follows no answer: "is not 18", "anything but 18". Looked for right before the value.
NEGATED = re.compile(
    r"(?:\b(?:not|never|neither|nor|except|rather than|instead of|other than|anything but|unlike|no longer)|n['’]t"
    r"|\b(?:cannot|can't|impossible)|≠|\\neq?|!=|\\not\s*=)"
    r"(?:\s|\b(?:be|equal|equals|to|is|option|choice|the|[A-Za-z]\s?=|\d+\s?:\s?)|[=$*(\\])*$",
    re.IGNORECASE,
)
DENIED = re.compile(
    r"(?:\^\{?\\?circ\}?|\\?%|°|\s?\\(?:text|mbox)\s?\{[^{}]{0,30}\})?[\s)*.$\]}]*"
    r"(?:is|was|are|would be|isn['’]t|wasn['’]t)\s*(?:definitely |clearly )?"
    r"(?:not\b|wrong|incorrect|false|untrue|impossible|the wrong)",
    re.IGNORECASE,
)
ECHO_WORDS = 8
WINDOW = 300  # statements of an answer that stand so near to each other belong to one answer (characters)


def plain(text: str) -> str:
    """One spelling of what is the same character: wide forms are ASCII, the minus signs a hyphen, `½` is ` 1/2`, `²` is
    `^2`; invisible characters and tags without attributes are left out. Letters of other scripts stay what they are."""
    text = text.translate(_SPELT)
    text = _VULGAR.sub(lambda found: " " + unicodedata.normalize("NFKC", found[0]).replace("\u2044", "/"), text)
    text = text.replace("\\$", "$").replace("{,}", ",").replace(",\\!", ",")
    return _TAG.sub(" ", text) if "<" in text else text


def after_thought(text: str) -> str | None:
    """What follows the last closed thought, without the marks around a solution; None where a thought is open."""
    for begin, end in THOUGHTS:
        if end in text:
            text = text.rpartition(end)[2]
        if begin in text:
            return None
    return _SOLUTION.sub(" ", text)


def without_echo(text: str, prompt: str) -> str:
    """`text` without what it repeats of its prompt: a prompt of two words or more where it stands in the text, and
    everything where 8 words or more are a part of the prompt (fewer may well be a choice). White space is folded."""
    folded, words = " ".join(prompt.split()), " ".join(text.split())
    if " " in folded and folded in words:
        return words.replace(folded, " ")
    return "" if words.count(" ") + 1 >= ECHO_WORDS and words in folded else text


def boxed(text: str) -> list[str]:
    r"""The contents of the innermost closed `\boxed{...}`, in order, empty ones included."""
    found: list[str] = []
    opened: list[tuple[int, bool]] = []  # where a group's content begins, and whether it is a box
    nested: list[bool] = []  # per open group: a box was found inside
    for mark in _BOX.finditer(text) if "\\boxed" in text or "\\fbox" in text else ():
        if mark[0] == "}":
            if opened:
                start, box = opened.pop()
                inside = nested.pop()
                if box and not inside:
                    found.append(text[start : mark.start()])
                if nested:
                    nested[-1] = nested[-1] or inside or box
        elif mark[0] == "{" or (mark[0].endswith("{") and len(mark[0]) > 2):
            opened.append((mark.end(), mark[0] != "{"))
            nested.append(False)
    return found


def last_lines(text: str) -> list[str]:
    """The lines that are not blank, stripped."""
    return [line.strip() for line in text.splitlines() if line.strip()]
