"""Rendering, tokenising and masking of conversations, beside the bare tokenizer and beside TRL's own preparation.

`python -m tests.benchmarks.rendering` takes the real conversations (GSM8K and Alpaca, Qwen2.5's tokenizer) where they
are there, else made ones and a tokenizer trained on them; `--small` takes every tenth. The first peer is
`encode_batch_fast` of the same tokenizer on the strings that are already rendered: nothing can be faster. It and kedge
alternate, and the ratio is the median over nine pairs, in CPU-seconds. The second is `SFTTrainer._prepare_dataset` on
the same rows, three times alternating: `ratio_to_trl` is in seconds (TRL tokenises row by row on one core),
`cpu_ratio_to_trl` in CPU-seconds.
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from curation.rendering import Rendering, load_template, load_tokenizer
from tests import REAL_DATA

PAIRS = 9
BATCH = 1_024
Rows = list[dict[str, Any]]


def turns(question: str, answer: str) -> dict[str, Any]:
    """A conversation of one exchange, as a row."""
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
            "tools": None}  # fmt: skip


def real_rows() -> Rows:
    """8,472 conversations of 1.78 million tokens."""
    with gzip.open(REAL_DATA / "benchmarks" / "gsm8k_train.jsonl.gz", "rt") as stream:
        rows = [turns(item["question"], item["answer"]) for item in map(json.loads, stream)]
    with gzip.open(REAL_DATA / "sft" / "alpaca_en_demo.json.gz", "rt") as stream:
        rows += [turns(f"{item['instruction']}\n{item['input']}".strip(), item["output"]) for item in json.load(stream)]
    return rows


def made_rows(count: int = 8_000) -> Rows:
    """Conversations in the manner of the quickstart, some 150 words each."""
    return [turns(f"What is {n} plus {n % 97}? Think step by step.",
                  " ".join(f"Step {k}: {n} and {k} make {n + k}." for k in range(20)) + f" The answer is {n + n % 97}.")
            for n in range(count)]  # fmt: skip


def tokenizer_of(rows: Rows, folder: Path) -> str:
    """The real tokenizer's folder, or that of one trained on the rows."""
    if REAL_DATA.is_dir():
        return str(REAL_DATA / "tokenizers" / "qwen2.5")
    from curation.quickstart.tiny_model import make_tokenizer

    texts = [turn["content"] for row in rows[:500] for turn in row["messages"]]
    make_tokenizer(folder, [*texts, "system user assistant tool"], vocabulary=2_000)
    return str(folder)


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """(CPU-seconds, seconds) of a call."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def preparation_by_trl(rows: Rows, tokenizer: Any, template: str, folder: Path) -> Callable[[], Any]:
    """TRL's preparation of the rows, masks included."""
    import datasets
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    datasets.disable_caching()
    datasets.disable_progress_bars()
    tokenizer.chat_template = template
    model = LlamaForCausalLM(LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
                                         vocab_size=len(tokenizer)))  # fmt: skip
    args = SFTConfig(output_dir=str(folder), use_cpu=True, bf16=False, report_to="none", max_length=None,
                     assistant_only_loss=True)  # fmt: skip
    dataset = datasets.Dataset.from_list([{"messages": row["messages"]} for row in rows])
    trainer = SFTTrainer(model, args=args, train_dataset=dataset.select([0]), processing_class=tokenizer)
    return lambda: trainer._prepare_dataset(dataset, tokenizer, args, False, None, "train")


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Run, print the table and the JSON line, and return what the line holds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="every tenth conversation")
    rows = real_rows() if REAL_DATA.is_dir() else made_rows()
    rows = rows[::10] if parser.parse_args(arguments).small else rows
    with tempfile.TemporaryDirectory() as scratch:
        loaded = load_tokenizer(None, tokenizer_of(rows, Path(scratch) / "tokenizer"))
        template = load_template(None, "chatml", loaded)
        rendering = Rendering(loaded, template, "trl_assistant", {})
        texts = [item.text for item in rendering.render_many(rows, "sft")]
        backend = loaded.hf.backend_tokenizer

        def bare() -> None:
            for first in range(0, len(texts), BATCH):
                backend.encode_batch_fast(texts[first : first + BATCH], add_special_tokens=False)

        def own() -> None:
            for first in range(0, len(rows), BATCH):
                rendering.render_many(rows[first : first + BATCH], "sft")

        pairs = [(timed(bare)[0], timed(own)[0]) for _ in range(PAIRS)]
        trl = preparation_by_trl(rows, loaded.hf, template.text, Path(scratch) / "out")
        against = [(timed(trl), timed(own)) for _ in range(PAIRS // 3)]
        tokens = sum(len(item.ids) for item in rendering.render_many(rows, "sft"))
    peer, seconds = (statistics.median(values) for values in zip(*pairs, strict=True))
    with_trl = statistics.median(cpu for (cpu, _), _ in against)
    line = {"rows": len(rows), "tokens": tokens, "rows_per_cpu_second": round(len(rows) / seconds, 1),
            "ratio_to_tokenizers": round(statistics.median(a / b for a, b in pairs), 3),
            "ratio_to_trl": round(statistics.median(of[1] / to[1] for of, to in against), 2),
            "cpu_ratio_to_trl": round(statistics.median(of[0] / to[0] for of, to in against), 2),
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}  # fmt: skip
    table = Table("what", "CPU-seconds", "of kedge", title=f"{len(rows):,} conversations, {tokens:,} tokens")
    for name, value in (("kedge: rendered, tokenised, masked", seconds), ("tokenizers: tokenised", peer),
                        ("TRL: prepared", with_trl)):  # fmt: skip
        table.add_row(name, f"{value:.2f}", f"{value / seconds:.2f}")
    Console(width=100).print(table)
    print(json.dumps(line))
    return line


if __name__ == "__main__":
    main()
