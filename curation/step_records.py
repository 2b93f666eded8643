"""Records whose steps are labelled -> unpaired preference rows: `chosen` where every step is right, else `rejected`.

The answer is the steps with a newline between; `step_labels` is JSON text: {"steps": [{"start", "end" (in characters
of the answer), "rating": 1 | 0 | -1 | null, and where there are some "human": true, "flagged": true, "alternatives":
[{"text", "rating"}]}], "label": what else the source says of the labelling}. Null is a step that nobody rated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from curation.conversations import Rejected, check_order, messages, text_of

RATINGS = (1, 0, -1)
Step = dict[str, Any]


def is_stepwise(record: Mapping[str, Any]) -> bool:
    """{prompt, completions: [...], labels: [...]}, as TRL's data sets for stepwise supervision."""
    return "prompt" in record and all(isinstance(record.get(key), list) for key in ("completions", "labels"))


def stepwise(record: Mapping[str, Any], stage: str) -> tuple[dict[str, Any], set[str]]:
    """A record of TRL's shape (trl-lib/math_shepherd, trl-lib/prm800k); labels are true and false, or 1, 0 and -1 where
    a -1 is among them, else 1 and 0 for right and wrong, or null. Raises Rejected."""
    texts, labels = record.get("completions"), record.get("labels")
    if not isinstance(texts, list) or not isinstance(labels, list):
        raise Rejected("'completions' and 'labels' are not both lists")
    if len(texts) != len(labels):
        raise Rejected(f"{len(texts)} completions have {len(labels)} labels")
    graded = any(label == -1 for label in labels)
    steps = [{"text": text_of(text, "completions"), "rating": _label(label, graded)}
             for text, label in zip(texts, labels, strict=True)]  # fmt: skip
    prompt = record.get("prompt")
    return _row(prompt, steps, {}, finished=True), {"prompt", "completions", "labels"}


def _label(label: Any, graded: bool) -> int | None:
    if label is None:
        return None
    if isinstance(label, int | float) and label in (0, 1, -1):
        return int(label) if graded and not isinstance(label, bool) else 1 if label else -1
    raise Rejected(f"the label {label!r:.40} of a step is none of true, false, 1, 0, -1")


def is_prm800k(record: Mapping[str, Any]) -> bool:
    """A line of openai/prm800k."""
    question, label = record.get("question"), record.get("label")
    return isinstance(question, dict) and "problem" in question and isinstance(label, dict) and "steps" in label


def prm800k(record: Mapping[str, Any], stage: str) -> tuple[dict[str, Any], set[str]]:
    """A line of openai/prm800k (Lightman et al. 2023), both phases: the labelled trajectory, which is the chosen
    completion of each step, else what the labeller wrote (rated 1), else, where labelling ended, the first completion;
    the others are its alternatives. An answer that was given up is no chosen one, whatever its steps. `question` stays
    in meta. Raises Rejected, also for problems that the labeller called bad."""
    question, label = record.get("question"), record.get("label")
    if not isinstance(question, dict) or not isinstance(label, dict) or not isinstance(label.get("steps"), list):
        raise Rejected("has no question or no labelled steps")
    finish = label.get("finish_reason")
    if finish == "bad_problem":
        raise Rejected("the labeller called the problem bad")
    steps: list[Step] = []
    for number, given in enumerate(label["steps"], 1):
        step, ends = _prm800k_step(given, number)
        if step is not None:
            steps.append(step)
        if ends:
            break
    rest = {key: value for key, value in label.items() if key != "steps" and value is not None}
    return _row(question.get("problem"), steps, rest, finished=finish == "solution"), {"label"}


def _prm800k_step(given: Any, number: int) -> tuple[Step | None, bool]:
    """A step of the trajectory, and whether the trajectory ends with it."""
    if not isinstance(given, dict):
        raise Rejected(f"step {number} is no object")
    completions = given.get("completions")
    if not isinstance(completions or [], list):
        raise Rejected(f"the completions of step {number} are no list")
    options = [_option(item, number) for item in completions or []]
    chosen, human = given.get("chosen_completion"), given.get("human_completion")
    if chosen is not None:
        if isinstance(chosen, bool) or not isinstance(chosen, int) or not 0 <= chosen < len(options):
            raise Rejected(f"chosen_completion {chosen!r:.20} of step {number} is none of {len(options)} completions")
        step = options.pop(chosen)
    elif human is not None:
        step = {"text": text_of(human.get("text") if isinstance(human, dict) else human, "human_completion"),
                "rating": 1, "human": True}  # fmt: skip
    elif options:
        step = options.pop(0)
    else:
        return None, True
    return step | ({"alternatives": options} if options else {}), chosen is None and human is None


def _option(given: Any, number: int) -> Step:
    if not isinstance(given, dict):
        raise Rejected(f"a completion of step {number} is no object")
    rating = given.get("rating")
    if rating is not None and (isinstance(rating, bool) or rating not in RATINGS):
        raise Rejected(f"the rating {rating!r:.20} in step {number} is none of 1, 0, -1")
    flagged = {"flagged": True} if given.get("flagged") is True else {}
    return {"text": text_of(given.get("text"), "text"), "rating": None if rating is None else int(rating)} | flagged


def _row(prompt: Any, steps: list[Step], label: Mapping[str, Any], *, finished: bool) -> dict[str, Any]:
    """The row of labelled steps. Raises Rejected where there are none, one is blank, or none is rated."""
    if isinstance(prompt, list):
        asked = messages(prompt, "prompt")
        check_order(asked, ends=None)
    else:
        asked = [{"role": "user", "content": text_of(prompt, "prompt")}]
    if not any(turn.get("content", "").strip() for turn in asked):
        raise Rejected("the prompt is empty")
    if not steps or all(step["rating"] is None for step in steps):
        raise Rejected("no step has a label")
    if not all(step["text"].strip() for step in steps):
        raise Rejected("a step is blank")
    place, spans = 0, []
    for step in steps:
        spans.append({"start": place, "end": place + len(step["text"])}
                     | {key: value for key, value in step.items() if key != "text"})  # fmt: skip
        place += len(step["text"]) + 1
    answer = [{"role": "assistant", "content": "\n".join(step["text"] for step in steps)}]
    right = finished and all(step["rating"] is not None and step["rating"] >= 0 for step in steps)
    try:
        labels = orjson.dumps({"steps": spans} | ({"label": label} if label else {}), option=orjson.OPT_SORT_KEYS)
    except (TypeError, ValueError) as error:
        raise Rejected(f"holds what JSON cannot: {error}") from error
    return {"prompt": asked, "chosen": answer if right else None, "rejected": None if right else answer,
            "step_labels": labels.decode()}  # fmt: skip
