"""Two generated skills that a tiny model can learn, each with its reasoning: adding numbers and reversing words."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

Skill = Callable[[random.Random], tuple[str, str, str]]


def addition(rng: random.Random) -> tuple[str, str, str]:
    """(question, reasoning, answer) of a sum of two numbers below 100, column by column."""
    a, b = rng.randint(0, 99), rng.randint(0, 99)
    units = a % 10 + b % 10
    tens = a // 10 + b // 10 + units // 10
    thought = f"{a % 10}+{b % 10}={units}, {a // 10}+{b // 10}+{units // 10}={tens}"
    return f"add {a:02d}+{b:02d}", thought, str(a + b)


def reversal(rng: random.Random) -> tuple[str, str, str]:
    """(question, reasoning, answer) of a random word of three to six letters spelled backwards."""
    word = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(3, 6)))
    return f"reverse {word}", " ".join(word), word[::-1]


SKILLS: dict[str, Skill] = {"addition": addition, "reversal": reversal}


def conversation(question: str, thought: str, answer: str) -> dict[str, Any]:
    """A record in the OpenAI messages shape with a think block."""
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": f"<think>{thought}</think>{answer}"},
        ]
    }


def mistaken(question: str, thought: str, answer: str, rng: random.Random) -> tuple[str, str]:
    """(reasoning, answer) as a half-trained model gets them wrong: a sum whose tens are one off, which the answer then
    follows; a word of which two neighbouring letters have changed places (the right one where they are equal)."""
    if question.startswith("reverse "):
        place = rng.randrange(len(answer) - 1)
        return thought, answer[:place] + answer[place + 1] + answer[place] + answer[place + 2 :]
    sums, _, tens = thought.rpartition("=")
    off = 1 if tens == "0" else rng.choice((-1, 1))
    return f"{sums}={int(tens) + off}", str(int(answer) + 10 * off)


def preference_rows(count: int, seed: int, forbidden: set[str]) -> list[dict[str, Any]]:
    """Some `count` pairs of both skills: the right reasoning and answer chosen, mistaken ones rejected."""
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for row in training_rows(list(SKILLS), count, seed, forbidden):
        prompt, chosen = row["messages"]
        thought, _, answer = chosen["content"].removeprefix("<think>").partition("</think>")
        rejected = conversation(prompt["content"], *mistaken(prompt["content"], thought, answer, rng))["messages"][1]
        if rejected != chosen:
            rows.append({"prompt": [prompt], "chosen": [chosen], "rejected": [rejected], "skill": row["skill"]})
    return rows


def in_words(answer: str) -> str:
    """An answer as a model that likes to talk gives it, which no exact verifier calls right."""
    return f"it is {answer}"


def wordy_rows(count: int, seed: int, forbidden: set[str]) -> list[dict[str, Any]]:
    """`count` conversations of both skills, two in three of which end with their answer `in_words`."""
    rng = random.Random(seed)
    rows = training_rows(list(SKILLS), count, seed, forbidden)
    for row in rows:
        thought, mark, answer = row["messages"][1]["content"].partition("</think>")
        if rng.random() < 2 / 3:
            row["messages"][1]["content"] = f"{thought}{mark}{in_words(answer)}"
    return rows


def style_rows(pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Pairs of the same questions: the right reasoning and the bare answer chosen, the answer `in_words` rejected."""
    rows = []
    for row in pairs:
        (chosen,) = row["chosen"]
        thought, mark, answer = chosen["content"].partition("</think>")
        rows.append(row | {"rejected": [chosen | {"content": f"{thought}{mark}{in_words(answer)}"}]})
    return rows


def verifiable_rows(skills: list[str], count: int, seed: int, forbidden: set[str]) -> list[dict[str, Any]]:
    """`count` distinct questions of `skills` with the answer that a verifier compares."""
    rows: dict[str, dict[str, Any]] = {}
    for row in training_rows(skills, 2 * count, seed, forbidden):
        question, right = row["messages"]
        truth = {"ground_truth": right["content"].partition("</think>")[2], "verifier": "exact"}
        rows[question["content"]] = {"prompt": [question], **truth, "skill": row["skill"]}
    return list(rows.values())[:count]


def held_out_items(skill: str, count: int) -> list[tuple[str, str, str]]:
    """`count` distinct benchmark items of a skill, the same on every call."""
    rng = random.Random(f"benchmark-{skill}")
    items: dict[str, tuple[str, str, str]] = {}
    while len(items) < count:
        item = SKILLS[skill](rng)
        items[item[0]] = item
    return list(items.values())


def training_rows(skills: list[str], count: int, seed: int, forbidden: set[str]) -> list[dict[str, Any]]:
    """`count` conversations drawn from `skills`, each with its name, none of whose questions is in `forbidden`."""
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    while len(rows) < count:
        skill = rng.choice(skills)
        question, thought, answer = SKILLS[skill](rng)
        if question not in forbidden:
            rows.append(conversation(question, thought, answer) | {"skill": skill})
    return rows


def spoil(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows as they come in real life: some are repeated, some thoughts never close, one record is broken."""
    broken = [
        {
            "messages": [
                row["messages"][0],
                {**row["messages"][1], "content": row["messages"][1]["content"].split("</")[0]},
            ]
        }
        for row in rows[10:16]
    ]
    return [*rows, *rows[:8], *broken, {"messages": []}]


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> None:
    """One JSON object a line; nothing is written where the file holds the same bytes already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    if not path.is_file() or path.read_bytes() != data:
        path.write_bytes(data)


def write_data(folder: Path, *, rows: int, items: int) -> None:
    """The quickstart's files: `skills` (both, for mid-training), `addition`, `reversal` and `wordy` (for SFT), `pairs`
    (for preference optimisation), `styles` (for a reward model), `questions` (for RL), and two benchmarks of `items`
    questions that no training file holds."""
    tests = {skill: held_out_items(skill, items) for skill in SKILLS}
    forbidden = {question for entries in tests.values() for question, _, _ in entries}
    write_jsonl(folder / "skills.jsonl", training_rows(["addition", "reversal"], 2 * rows, 1, forbidden))
    write_jsonl(folder / "addition.jsonl", spoil(training_rows(["addition"], rows, 2, forbidden)))
    write_jsonl(folder / "reversal.jsonl", training_rows(["reversal"], rows // 4, 3, forbidden))
    pairs = preference_rows(rows // 4, 4, forbidden)
    write_jsonl(folder / "pairs.jsonl", pairs)
    write_jsonl(folder / "styles.jsonl", style_rows(pairs))
    write_jsonl(folder / "wordy.jsonl", wordy_rows(rows // 2, 6, forbidden))
    write_jsonl(folder / "questions.jsonl", verifiable_rows(list(SKILLS), rows // 4, 5, forbidden))
    for skill, entries in tests.items():
        write_jsonl(folder / f"{skill}_test.jsonl", [
            {"id": f"{skill}-{index:04d}", "question": question, "answer": answer}
            for index, (question, _, answer) in enumerate(entries)
        ])  # fmt: skip
