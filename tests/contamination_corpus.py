"""A labelled corpus for decontamination: benchmark items planted in rows by mechanism, and rows that only look alike.

Rows are of stage midtrain. Positives hold one item each: `verbatim`; `case` (capitals, punctuation gone); `edit8` and
`edit15` (each word replaced with that probability); `rewrapped` (other line breaks, own paragraphs); `embedded` (in 800
to 3,000 words); `split` (over turns of a conversation, with other turns between); `answer` (its answer alone). Twins
have other numbers and names. Negatives: `clean` (random words of the benchmarks' own vocabulary), `neardup` (copies of
clean rows), `hard` (real or generated rows of the same author), `boilerplate` (quotes, instructions and formulas that
items and many rows share).
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
import zipfile
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tests import REAL_DATA

Item = dict[str, Any]
POSITIVES = {"verbatim": 16, "case": 8, "edit8": 8, "edit15": 8, "rewrapped": 6, "embedded": 6, "split": 6, "answer": 6}
OTHERS = {"twin": 6, "boilerplate": 12, "neardup": 100}  # like POSITIVES: per thousand rows
BOILERPLATE = (
    "where m and n are relatively prime positive integers. Find m + n.",
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness",
    "Please answer the following question and think step by step before you give the final answer in a box.",
)
NAMES = [
    "Ada",
    "Boris",
    "Chen",
    "Dalia",
    "Emeka",
    "Farah",
    "Goran",
    "Hana",
    "Idris",
    "Jonas",
    "Keiko",
    "Lars",
    "Mina",
    "Noor",
    "Otto",
    "Priya",
    "Quinn",
    "Rosa",
]
WORDS_OF = re.compile(r"[^\W_]+|[^\w\s]|_")


@dataclass(frozen=True)
class Corpus:
    """Items (dicts of question, answer, choices), rows of stage midtrain (text, messages) as dicts, and for each row
    its mechanism and the index of the item planted there (-1: none)."""

    items: list[Item]
    rows: list[dict[str, Any]]
    mechanism_N: list[str]
    item_N: list[int]


def real_items() -> tuple[list[Item], list[str]]:
    """(items of GSM8K test and MMLU test with distinct questions, rows of GSM8K train), or generated ones where the
    real data is absent."""
    folder = REAL_DATA / "benchmarks"
    if not folder.is_dir():
        return generated_items(15_000, 0), [
            f"{item['question']}\n{item['answer']}" for item in generated_items(7000, 1)
        ]
    items = _lines(folder / "gsm8k_test.jsonl.gz")
    with zipfile.ZipFile(folder / "mmlu.zip") as archive:
        for name in sorted(name for name in archive.namelist() if "/test/" in name and name.endswith(".csv")):
            for question, *choices, gold in csv.reader(io.StringIO(archive.read(name).decode())):
                items.append({"question": question, "choices": choices, "answer": choices["ABCD".index(gold)]})
    train = _lines(folder / "gsm8k_train.jsonl.gz")
    distinct = {item["question"]: item for item in reversed(items)}
    return list(distinct.values())[::-1], [f"{item['question']}\n{item['answer']}" for item in train]


def _lines(path: Path) -> list[Item]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [{key: record[key] for key in ("question", "answer")} for record in map(json.loads, stream)]


def generated_items(count: int, seed: int) -> list[Item]:
    """Word problems over a made vocabulary: few templates' worth of grammar, everything else drawn."""
    vocabulary = made_words(4000)
    rng = random.Random(seed)
    items = []
    for _ in range(count):
        sentences = []
        for _ in range(rng.randint(2, 5)):
            words = rng.choices(vocabulary, k=rng.randint(4, 14))
            words.insert(rng.randrange(len(words)), str(rng.randint(2, 400)))
            sentences.append(f"{rng.choice(NAMES)} {' '.join(words)}.")
        steps = " ".join(rng.choices(vocabulary, k=rng.randint(14, 40)))
        items.append({"question": f"{' '.join(sentences)} How many are left?",
                      "answer": f"{steps}. #### {rng.randint(1, 999)}"})  # fmt: skip
    return items


def made_words(count: int) -> list[str]:
    """Distinct words of two to four syllables, the same every time."""
    rng = random.Random(7)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er")]
    words = dict.fromkeys("".join(rng.choices(syllables, k=rng.randint(2, 4))) for _ in range(2 * count))
    return list(words)[:count]


def make_corpus(num_rows: int, seed: int, items: Sequence[Item] | None = None, hard: Sequence[str] | None = None
                ) -> Corpus:  # fmt: skip
    """A corpus of `num_rows` rows; the same for the same arguments."""
    if items is None or hard is None:
        items, hard = real_items()
    rng, numbers = random.Random(seed), np.random.default_rng(seed)
    items = list(items)
    templated = [{"question": f"{rng.choice(items)['question']} The result is m/n, {BOILERPLATE[0]}", "answer": "7"}
                 for _ in range(20)]  # fmt: skip
    items += templated
    vocabulary, filler = _filler(items, hard, num_rows, numbers)
    letters = [word for word in vocabulary if word.isalpha() and word.islower()]
    mechanisms: list[str] = []
    planted: list[int] = []
    for mechanism, share in (POSITIVES | OTHERS).items():
        count = max(1, num_rows * share // 1000)
        mechanisms += [mechanism] * count
    mechanisms += ["hard"] * min(len(hard), num_rows * 8 // 100)
    mechanisms += ["clean"] * (num_rows - len(mechanisms))
    rng.shuffle(mechanisms)
    with_answers = [n for n, item in enumerate(items) if len(WORDS_OF.findall(item["answer"])) >= 14]
    with_numbers = [n for n, item in enumerate(items) if len(re.findall(r"\d+", item["question"])) >= 2
                    and len(item["question"].split()) >= 14]  # fmt: skip
    rows: list[dict[str, Any]] = []
    hard_rows = iter(rng.sample(list(hard), len(hard)))
    clean: list[list[str]] = []
    for mechanism, words in zip(mechanisms, filler, strict=True):
        number = -1
        if mechanism in POSITIVES or mechanism == "twin":
            pool = {"answer": with_answers, "twin": with_numbers}.get(mechanism)
            number = rng.choice(pool) if pool else rng.randrange(len(items) - len(templated))
        planted.append(number)
        if mechanism == "hard":
            rows.append({"text": next(hard_rows)})
        elif mechanism == "neardup" and clean:
            rows.append({"text": " ".join(rng.choice(vocabulary) if rng.random() < 0.03 else word
                                          for word in rng.choice(clean))})  # fmt: skip
        elif mechanism == "boilerplate":
            rows.append({"text": _inserted(words, rng.choice(BOILERPLATE).split(), rng)})
        elif number >= 0:
            rows.append(_planted(mechanism, items[number], words, vocabulary, letters, rng))
        else:
            clean.append(words)
            rows.append({"text": " ".join(words)})
    return Corpus(items, rows, mechanisms, planted)


def _filler(items: Sequence[Item], hard: Sequence[str], num_rows: int, numbers: np.random.Generator
            ) -> tuple[list[str], list[list[str]]]:  # fmt: skip
    """(the 30,000 commonest words, random words by their frequency: log-normal lengths, median 100)."""
    texts = [f"{item['question']} {item['answer']}" for item in items] + list(hard)
    counts = Counter(word for text in texts for word in text.split())
    vocabulary = [word for word, _ in counts.most_common(30_000)]
    weights = np.array([counts[word] for word in vocabulary], float)
    lengths = np.clip(numbers.lognormal(4.6, 0.7, num_rows).astype(int), 20, 1200)
    drawn = numbers.choice(len(vocabulary), size=int(lengths.sum()), p=weights / weights.sum()).tolist()
    filler, at = [], 0
    for length in lengths.tolist():
        filler.append([vocabulary[index] for index in drawn[at : at + length]])
        at += length
    return vocabulary, filler


def _inserted(words: list[str], text: list[str], rng: random.Random) -> str:
    cut = rng.randrange(len(words) + 1)
    return " ".join(words[:cut] + text + words[cut:])


def edited(text: str, share: float, words: Sequence[str], rng: random.Random) -> list[str]:
    """The words of a text, each replaced with probability `share` by a word of letters."""
    return [rng.choice(words) if rng.random() < share else word for word in text.split()]


def twin_of(text: str, rng: random.Random) -> str:
    """The text with other numbers, and other names where it has some of NAMES or capitalised words inside a
    sentence."""
    other = re.sub(r"\d+", lambda found: str(int(found[0][:6]) + rng.randint(1, 9)), text)
    return re.sub(rf"\b({'|'.join(NAMES)})\b", lambda found: rng.choice([n for n in NAMES if n != found[0]]), other)


def _planted(mechanism: str, item: Item, words: list[str], vocabulary: Sequence[str], letters: Sequence[str],
             rng: random.Random) -> dict[str, Any]:  # fmt: skip
    question = item["question"]
    if mechanism == "split":
        return {"messages": _split(question.split(), words, rng)}
    if mechanism == "rewrapped":
        width = rng.randint(4, 12)
        pieces = question.split()
        lines = "\n".join(" ".join(pieces[at : at + width]) for at in range(0, len(pieces), width))
        cut = rng.randrange(len(words) + 1)
        return {"text": f"{' '.join(words[:cut])}\n\n{lines}\n\n{' '.join(words[cut:])}"}
    if mechanism == "embedded":
        words = rng.choices(words, k=rng.randint(800, 3000))
    text = {
        "case": lambda: re.sub(r"[^\w\s]", " ", question).upper().split(),
        "edit8": lambda: edited(question, 0.08, letters, rng),
        "edit15": lambda: edited(question, 0.15, letters, rng),
        "answer": lambda: item["answer"].split(),
        "twin": lambda: twin_of(question, rng).split(),
    }.get(mechanism, question.split)()
    return {"text": _inserted(words, text, rng)}


def _split(question: list[str], words: list[str], rng: random.Random) -> list[dict[str, str]]:
    """The first part in one user turn, a short or long answer, the rest in the next user turn; or the rest at once as
    the answer."""
    cut = round(len(question) * rng.uniform(0.3, 0.7))
    one, two = " ".join(question[:cut]), " ".join(question[cut:])
    between = " ".join(words[: rng.choice((3, 8, 60))])
    if rng.random() < 0.4:
        return [{"role": "user", "content": one}, {"role": "assistant", "content": f"{two} {between}"}]
    return [{"role": "user", "content": one}, {"role": "assistant", "content": between},
            {"role": "user", "content": two}, {"role": "assistant", "content": " ".join(words[:20])}]  # fmt: skip


def row_table(corpus: Corpus, schema: pa.Schema) -> pa.Table:
    """The rows as a row part of stage midtrain; row_id is the number of the row."""
    count = len(corpus.rows)
    columns = {"row_id": pa.array([number.to_bytes(16, "big") for number in range(count)], pa.binary(16)),
               "text": pa.array([row.get("text") for row in corpus.rows], pa.string()),
               "messages": pa.array([row.get("messages") for row in corpus.rows],
                                    schema.field("messages").type)}  # fmt: skip
    return _completed(columns, count, "corpus", "midtrain", schema)


def item_table(corpus: Corpus, schema: pa.Schema) -> pa.Table:
    """The items as a row part of stage benchmark; row_id is the number of the item."""
    count = len(corpus.items)
    columns = {"row_id": pa.array([number.to_bytes(16, "big") for number in range(count)], pa.binary(16))}
    for name in ("question", "answer", "passage", "choices"):
        columns[name] = pa.array([item.get(name) for item in corpus.items], schema.field(name).type)
    return _completed(columns, count, "items", "benchmark", schema)


def _completed(columns: dict[str, pa.Array], count: int, source: str, stage: str, schema: pa.Schema) -> pa.Table:
    """The other columns of a row part, with equal values."""
    columns["row_id"] = pa.ExtensionArray.from_storage(pa.uuid(), columns["row_id"])
    columns |= {"stage": pa.array([stage] * count), "source": pa.array([source] * count)}
    for field in schema:
        ids = field.name in ("content_hash", "prompt_hash")
        columns.setdefault(field.name, columns["row_id"] if ids else pa.nulls(count, field.type))
    return pa.table([columns[field.name] for field in schema], schema=schema)


@dataclass(frozen=True)
class Judgement:
    """Figures over a corpus: `recall` per positive mechanism, with the checkable items as its base; `precision` per
    positive mechanism: of its flagged rows, the share where the item named is the planted one (by its question's
    words); `flagged` per negative mechanism and `twins`: (rows, all rows). A row is flagged for a copy or an edited
    copy."""

    precision: float
    recall: float
    f1: float
    recall_by_mechanism: dict[str, float]
    precision_by_mechanism: dict[str, float]
    flagged: dict[str, tuple[int, int]]
    twins_reported: tuple[int, int]
    not_checkable: int

    def lines(self) -> list[str]:
        """One line per mechanism, and the sum."""
        return [*(f"{name:12} recall {recall:.4f} precision {self.precision_by_mechanism[name]:.4f}"
                  for name, recall in self.recall_by_mechanism.items()),
                *(f"{name:12} flagged {flagged} of {rows}" for name, (flagged, rows) in self.flagged.items()),
                f"twins reported {self.twins_reported[0]} of {self.twins_reported[1]}",
                f"planted items that are not checkable: {self.not_checkable}",
                f"P {self.precision:.4f} R {self.recall:.4f} F1 {self.f1:.4f}"]  # fmt: skip


def judge(corpus: Corpus, flagged: dict[int, set[int]], checkable: dict[str, Sequence[bool]],
          twins: Collection[int] = ()) -> Judgement:  # fmt: skip
    """Compare findings with the labels. `flagged` is row -> items named (empty where a system names none), `checkable`
    component -> per item, `twins` the rows in which a twin was reported."""
    key = [" ".join(WORDS_OF.findall(item["question"].lower())) for item in corpus.items]
    rows: dict[str, list[int]] = {}
    for row, mechanism in enumerate(corpus.mechanism_N):
        rows.setdefault(mechanism, []).append(row)
    base = {name: [row for row in rows.get(name, [])
                   if checkable["answer" if name == "answer" else "question"][corpus.item_N[row]]]
            for name in POSITIVES}  # fmt: skip
    hits = {name: [row for row in mine if row in flagged] for name, mine in base.items()}
    right = {name: sum(not flagged[row] or key[corpus.item_N[row]] in {key[item] for item in flagged[row]}
                       for row in mine) for name, mine in hits.items()}  # fmt: skip
    negatives = {name: rows.get(name, []) for name in ("hard", "clean", "neardup", "boilerplate")}
    false = {name: sum(row in flagged for row in mine) for name, mine in negatives.items()}
    true, positives = sum(map(len, hits.values())), sum(map(len, base.values()))
    precision, recall = true / max(1, true + sum(false.values())), true / max(1, positives)
    planted = sum(len(rows.get(name, [])) for name in POSITIVES)
    return Judgement(
        precision, recall, 2 * precision * recall / max(1e-9, precision + recall),
        {name: len(hits[name]) / max(1, len(base[name])) for name in POSITIVES},
        {name: right[name] / max(1, len(hits[name])) for name in POSITIVES},
        {name: (false[name], len(mine)) for name, mine in negatives.items()},
        (sum(row in twins or row in flagged for row in rows.get("twin", [])), len(rows.get("twin", []))),
        planted - positives,
    )  # fmt: skip
