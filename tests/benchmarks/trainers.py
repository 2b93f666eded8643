"""What the trainers' own commands cost beside what others run for the same.

`python -m tests.benchmarks.trainers` merges two models of some 1.6 GB in bfloat16 in shards of at most 1 GB (`--small`:
0.4 GB in shards of 0.25 GB) by `kedge checkpoint merge`, a process of its own that is watched. It hashes both inputs
and what it wrote besides. Peers, each a process of its own in the same run: both models loaded whole with transformers,
averaged in float32 tensor by tensor and saved; and shard by shard with safetensors and torch, tensors taken lazily as
mergekit does it. All three must give the same numbers. `merge_peak_ratio` is the peak memory of the command over the
bytes of the larger model's biggest shard, `merge_ratio_to_...` the bytes merged per CPU-second over the peer's.

Before that it trains the quickstart's tiny model for 200 steps (`--small`: 10) by kedge's training process and by TRL's
SFTTrainer called directly, which take turns: `wrapper_overhead`, see training_steps.py. `--only` leaves one part out.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.training_steps import Run, overhead
from tests.benchmarks.watching import Cost, kedge, watch

MODEL = {"hidden_size": 2048, "intermediate_size": 5632, "num_attention_heads": 16, "num_key_value_heads": 4,
         "vocab_size": 32_000, "tie_word_embeddings": True}  # fmt: skip
SHARE = 0.25  # of the second model: a power of two, so that no order of rounding makes a difference
WHOLE = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
one, other = (AutoModelForCausalLM.from_pretrained(path, dtype="auto") for path in sys.argv[1:3])
second = other.state_dict()
mean = {name: (tensor.float() * 0.75 + second[name].float() * 0.25).to(tensor.dtype)
        for name, tensor in one.state_dict().items()}
one.load_state_dict(mean)
one.save_pretrained(sys.argv[3], max_shard_size=int(sys.argv[4]))
AutoTokenizer.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[3])
"""
BY_SHARD = """
import glob, os, sys, torch
from safetensors import safe_open
from safetensors.torch import save_file
places = {}
for path in sorted(glob.glob(sys.argv[2] + "/*.safetensors")):
    file = safe_open(path, "pt")
    places |= {name: file for name in file.keys()}
os.makedirs(sys.argv[3])
for path in sorted(glob.glob(sys.argv[1] + "/*.safetensors")):
    with safe_open(path, "pt") as file:
        shard = {}
        for name in file.keys():
            tensor = file.get_tensor(name)
            shard[name] = (tensor.float() * 0.75 + places[name].get_tensor(name).float() * 0.25).to(tensor.dtype)
        save_file(shard, os.path.join(sys.argv[3], os.path.basename(path)), metadata={"format": "pt"})
"""


def merging(small: bool) -> tuple[dict[str, Cost], dict[str, float]]:
    """Costs of the command and of the peers, and the figures of the JSON line."""
    root = Path(tempfile.mkdtemp(prefix="merging-"))
    shard = 250_000_000 if small else 1_000_000_000
    try:
        (root / "kedge.yaml").write_text("tokenizers: {}\n")
        for name, seed in (("one", 1), ("other", 2)):
            watch([sys.executable, "-c", MAKE, name, str(seed), str(4 if small else 16), str(shard)], root)
            watch(kedge("checkpoint", "add", name, "--run", name), root)
        command = kedge("checkpoint", "merge", "one", "other", "--weight", str(SHARE), "--run", "valve")
        paths = [str(root / name) for name in ("one", "other")]
        costs = {
            "kedge checkpoint merge": watch(command, root),
            "transformers, whole": watch([sys.executable, "-c", WHOLE, *paths, str(root / "whole"), str(shard)], root),
            "safetensors, by shard": watch([sys.executable, "-c", BY_SHARD, *paths, str(root / "shards")], root),
        }
        merged = next((root / "lake" / "runs" / "valve" / "merged").iterdir())
        for peer in ("whole", "shards"):
            require_equal(merged, root / peer)
        sizes = [path.stat().st_size for name in ("one", "other") for path in (root / name).glob("*.safetensors")]
        return costs, figures(costs, max(sizes), sum(sizes))
    finally:
        shutil.rmtree(root, ignore_errors=True)


MAKE = f"""
import sys, torch
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
from curation.quickstart.tiny_model import make_tokenizer
make_tokenizer(Path(sys.argv[1]), ["one plus one is two"], vocabulary=300)
torch.manual_seed(int(sys.argv[2]))
torch.set_default_dtype(torch.bfloat16)
model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=int(sys.argv[3]), **{MODEL!r}))
model.save_pretrained(sys.argv[1], max_shard_size=int(sys.argv[4]))
"""


def require_equal(one: Path, other: Path) -> None:
    """Raises RuntimeError where two folders hold other numbers."""
    import torch
    from safetensors import safe_open

    places = {}
    for path in sorted(other.glob("*.safetensors")):
        file = safe_open(path, "pt")
        places |= dict.fromkeys(file.keys(), file)
    for path in sorted(one.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                if not torch.equal(file.get_tensor(name), places[name].get_tensor(name)):
                    raise RuntimeError(f"{name} differs between {one} and {other}")


def figures(costs: dict[str, Cost], biggest_shard: int, num_bytes: int) -> dict[str, float]:
    """The keys of the JSON line: peaks over the biggest shard, and bytes per CPU-second over the peers'."""
    own, whole, shards = costs.values()
    return {
        "merge_peak_ratio": round(own.peak_bytes / biggest_shard, 3),
        "merge_peak_ratio_transformers": round(whole.peak_bytes / biggest_shard, 3),
        "merge_peak_ratio_by_shard": round(shards.peak_bytes / biggest_shard, 3),
        "merge_ratio_to_transformers": round(whole.cpu_seconds / own.cpu_seconds, 3),
        "merge_ratio_to_by_shard": round(shards.cpu_seconds / own.cpu_seconds, 3),
        "merge_bytes_per_cpu_second": round(num_bytes / own.cpu_seconds),
        "merge_peak_memory_bytes": own.peak_bytes,
        "merge_biggest_shard_bytes": biggest_shard,
    }


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Run, print the tables and the JSON line, and return what the line holds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="10 steps; 0.4 GB in shards of 0.25 GB")
    parser.add_argument("--only", choices=("steps", "merging"), help="one of the two")
    options = parser.parse_args(arguments)
    line: dict[str, float] = {}
    if options.only != "merging":
        runs, found = overhead(*((10, 1) if options.small else (200, 2)))
        line |= found
        print_runs(runs)
    if options.only != "steps":
        costs, found = merging(options.small)
        line |= found
        print_costs(costs, found["merge_biggest_shard_bytes"])
    print(json.dumps(line))
    return line


def print_runs(runs: dict[str, list[Run]]) -> None:
    table = Table(title="training, CPU-seconds")
    for name in ("what trains", "all steps", "from the start of the process"):
        table.add_column(name, justify="left" if name == "what trains" else "right")
    for side, of in runs.items():
        for run in of:
            table.add_row(side, f"{sum(run.steps):,.2f}", f"{run.process:,.2f}")
    Console(width=140).print(table)


def print_costs(costs: dict[str, Cost], biggest_shard: float) -> None:
    table = Table(title="merging two models")
    for name in ("how", "seconds", "CPU-seconds", "peak MiB", "peak over the biggest shard"):
        table.add_column(name, justify="left" if name == "how" else "right")
    for name, cost in costs.items():
        table.add_row(name, f"{cost.seconds:,.1f}", f"{cost.cpu_seconds:,.1f}", f"{cost.peak_bytes / 2**20:,.0f}",
                      f"{cost.peak_bytes / biggest_shard:.2f}")  # fmt: skip
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
