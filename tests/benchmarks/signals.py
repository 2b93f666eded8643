"""Signals of quality and coverage over rows like those of GSM8K, beside what others run for the same.

`python -m tests.benchmarks.signals` takes 100,000 rows of a question and a worked answer (`--small`: 10,000): GSM8K's
own training rows where they are there, the rest made. Every signal is measured apart, five of them are added up, the
language stands apart from those. Times are CPU-seconds of this process, the least of three rounds, without the time to
compile kernels and to load models.

Peers, on a part of the same rows (question and answer as one text): datatrove's four quality filters (Gopher quality,
Gopher repetition, C4, FineWeb), one after the other; keywords of refusals and self-reference with regular expressions
for e-mail, telephone, IP and keys in plain Python, text by text, as filters of data-juicer and open-instruct do it (no
check digits, no sides, no examples told apart); and `classify` of py3langid.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import resource
import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from curation import schema
from curation.errors import UserError
from curation.measures import PartMeasure
from curation.measuring import named
from tests import REAL_DATA

TOGETHER = ("repetition", "characters", "phrases", "personal_data", "trace_structure")
APART = ("language",)
PART = 25_000  # rows measured at once
PEER_ROWS, ROUNDS = 500, 3
KEYWORDS = ("as an ai", "as a language model", "language model trained", "developed by openai", "i am chatgpt",
            "i'm sorry, but", "i am sorry, but", "i cannot assist", "i can't assist", "i cannot help", "i can't help",
            "i cannot provide",
            "i'm unable to", "i am unable to", "i'm not able to", "i must decline", "not appropriate for me",
            "my knowledge cutoff", "lorem ipsum", "[your name]", "<|im_end|>", "### response:")  # fmt: skip
FORMS = (r"\{\{\s*[a-zA-Z_]+\s*\}\}", r"[A-Za-z0-9.\-+_]+@[a-z0-9.\-+_]+\.[a-z]+", r"(?:\d{1,3}\.){3}\d{1,3}",
         r"\+?\d(?:[ .()-]?\d){8,14}", r"\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_\w{36}|sk-\w{32})")  # fmt: skip
NAMES = ("Natalia", "Weng", "Betty", "Julie", "James", "Mark", "Albert", "Ken", "Alexis", "Tina")
GOODS = (
    "clips",
    "pages",
    "flowers",
    "slices of pizza",
    "pounds of jelly beans",
    "notebooks",
    "tickets",
    "bags of rice",
)


def made_row(draw: random.Random) -> tuple[str, str]:
    """A question of some 45 words and an answer in steps, as GSM8K has them."""
    name, friend, good = draw.choice(NAMES), draw.choice(NAMES), draw.choice(GOODS)
    first, rate, price = draw.randrange(3, 90), draw.randrange(2, 9), draw.randrange(2, 30)
    question = (f"{name} sold {first} {good} to her friends in April, and then she sold {rate} times as many in May. "
                f"Each of them costs ${price}, but {friend} pays only half of that for the last {rate} {good}. "
                f"How much money did {name} get for all the {good} in April and May?")  # fmt: skip
    second = first * rate
    total, paid, less = first + second, (first + second) * price, rate * price / 2
    answer = (f"{name} sold {first}*{rate} = <<{first}*{rate}={second}>>{second} {good} in May.\n"
              f"Altogether she sold {first}+{second} = <<{first}+{second}={total}>>{total} {good}.\n"
              f"At the full price that is {total}*${price} = $<<{total}*{price}={paid}>>{paid}.\n"
              f"{friend} saves {rate}*{price}/2 = $<<{rate}*{price}/2={less:g}>>{less:g}.\n"
              f"So {name} gets {paid}-{less:g} = $<<{paid}-{less:g}={paid - less:g}>>{paid - less:g}.\n"
              f"#### {paid - less:g}")  # fmt: skip
    return question, answer


def exchanges(count: int) -> list[tuple[str, str]]:
    """`count` questions with answers: GSM8K's own first, where it is there, then made ones."""
    found: list[tuple[str, str]] = []
    if REAL_DATA.is_dir():
        with gzip.open(REAL_DATA / "benchmarks" / "gsm8k_train.jsonl.gz", "rt") as stream:
            found = [(item["question"], item["answer"]) for item in map(json.loads, stream)][:count]
    draw = random.Random(0)
    return found + [made_row(draw) for _ in range(count - len(found))]


def as_rows(pairs: list[tuple[str, str]]) -> pa.Table:
    """Rows of the stage sft."""
    empty = {"reasoning": None, "tool_calls": None, "tool_call_id": None, "name": None}
    messages = [[{"role": "user", "content": question, **empty}, {"role": "assistant", "content": answer, **empty}]
                for question, answer in pairs]  # fmt: skip
    return pa.table({"messages": pa.array(messages, schema.MESSAGES), "tools": pa.nulls(len(pairs), pa.string()),
                     "meta": pa.nulls(len(pairs), pa.string())})  # fmt: skip


def cpu_seconds(work: Callable[[], Any]) -> float:
    """The least CPU-seconds of ROUNDS calls: what disturbs a measurement only ever adds."""
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def measure(one: PartMeasure, rows: pa.Table) -> None:
    """A measure over all rows, part by part, as the engine does it."""
    for first in range(0, rows.num_rows, PART):
        part = rows.slice(first, PART)
        one.measure(part.select([name for name in one.reads("sft") if name in part.column_names]), "sft")


def known(names: tuple[str, ...]) -> dict[str, PartMeasure]:
    """The measures that are there; whichever is not is named."""
    found: dict[str, PartMeasure] = {}
    for name in names:
        try:
            one = named(name)
        except UserError as error:
            print(f"left out: {error}")
            continue
        assert isinstance(one, PartMeasure)
        found[name] = one
    return found


def by_datatrove(texts: list[str]) -> Callable[[], Any] | None:
    """datatrove's quality filters, or None where it is not installed."""
    try:
        from datatrove.data import Document
        from datatrove.pipeline.filters import (
            C4QualityFilter,
            FineWebQualityFilter,
            GopherQualityFilter,
            GopherRepetitionFilter,
        )
    except ImportError:
        return None
    filters = [GopherQualityFilter(), GopherRepetitionFilter(), C4QualityFilter(), FineWebQualityFilter()]

    def work() -> None:
        for text in texts:
            for one in filters:
                one.filter(Document(text=text, id="0"))

    return work


def by_python(texts: list[str]) -> Callable[[], Any]:
    """Keywords and the forms of personal data in plain Python."""
    forms = [re.compile(form) for form in FORMS]

    def work() -> None:
        for text in texts:
            lower = text.lower()
            any(keyword in lower for keyword in KEYWORDS)
            for form in forms:
                form.search(text)

    return work


def by_py3langid(texts: list[str]) -> Callable[[], Any]:
    """py3langid as its users call it."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    return lambda: [model.classify(text) for text in texts]


def peers(pairs: list[tuple[str, str]]) -> dict[str, float]:
    """Documents a CPU-second of every peer that is installed."""
    step = max(1, len(pairs) // PEER_ROWS)
    texts = [f"{question}\n{answer}" for question, answer in pairs[::step]]
    found = {"datatrove_quality_filters": by_datatrove(texts), "python_keywords_and_forms": by_python(texts),
             "py3langid_classify": by_py3langid(texts)}  # fmt: skip
    speeds = {}
    for name, work in found.items():
        if work is None:
            print(f"left out: {name} is not installed")
            continue
        try:
            work()
        except ImportError as error:
            print(f"left out: {name}: {error}")
            continue
        speeds[name] = round(len(texts) / cpu_seconds(work), 1)
    return speeds


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run, print the table and the JSON line, and return what the line holds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="10,000 rows")
    pairs = exchanges(10_000 if parser.parse_args(arguments).small else 100_000)
    rows = as_rows(pairs)
    seconds = {}
    for name, one in known(TOGETHER + APART).items():
        measure(one, rows.slice(0, 100))  # compiles kernels and loads models
        seconds[name] = cpu_seconds(lambda one=one: measure(one, rows))  # type: ignore[misc]
    speeds = {name: round(len(pairs) / value, 1) for name, value in seconds.items()}
    together = round(len(pairs) / sum(seconds[name] for name in TOGETHER if name in seconds), 1)
    text_bytes = sum(len(question) + len(answer) for question, answer in pairs)
    others = peers(pairs)
    line = {"rows": len(pairs), "chars_per_row": round(text_bytes / len(pairs), 1), "docs_per_cpu_second": together,
            "together": [name for name in TOGETHER if name in seconds], "apart": speeds, "peers": others,
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}  # fmt: skip
    table = Table("what", "rows a CPU-second", title=f"{len(pairs):,} rows of {text_bytes / len(pairs):.0f} characters")
    shown = {**speeds, f"the first {len(line['together'])} together": together,  # type: ignore[arg-type]
             **{f"peer: {name}": value for name, value in others.items()}}  # fmt: skip
    for name, value in shown.items():
        table.add_row(name, f"{value:,.0f}")
    Console(width=100).print(table)
    print(json.dumps(line))
    return line


if __name__ == "__main__":
    main()
