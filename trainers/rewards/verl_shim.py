"""verl's reward function. Standard library alone: verl's environment holds neither kedge nor what it needs.

Give verl this file (`reward.custom_reward_function.path`), the name `compute_score`, and as `reward_kwargs` `config`, a
JSON file with a run's `rewards`, `project` and `python` (see client.Client), and `evidence`, the folder for rollouts.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import sys
import threading
from pathlib import Path
from typing import Any

_LOCK = threading.Lock()
_OPEN: dict[tuple[str, str], tuple[Any, Any, str | None]] = {}


def compute_score(data_source: str | None, solution_str: str, ground_truth: Any, extra_info: Any = None, *,
                  config: str, evidence: str | None = None, **more: Any) -> dict[str, Any]:  # fmt: skip
    """The reward of one rollout: `score`, `acc` (1 where the answer is right), `outcome`, `row_id` and each component
    (a failed one as what it counts as). One line for each rollout goes to `evidence`. `extra_info` may hold row_id,
    verifier, prompt (messages or text), split, step, num_tokens and finished. Raises where a component fails too
    often, which ends the run."""
    client, journal, run = _open(config, evidence)
    sample = _sample(data_source, solution_str, ground_truth, dict(extra_info or {}))
    result = client.score([sample])[0]
    if journal is not None:
        journal.write([_module().record(sample, result, run)])
    failed = client.failed_value
    values = {name: failed if value is None else value for name, value in result["components"].items()}
    score = failed if result["reward"] is None else result["reward"]
    return values | {"score": score, "acc": float(result["outcome"] == "right"), "outcome": result["outcome"],
                     "row_id": str(sample["row_id"] or "")}  # fmt: skip


def _sample(data_source: str | None, text: str, truth: Any, extra: dict[str, Any]) -> dict[str, Any]:
    prompt = extra.pop("prompt", None)
    messages = [dict(item) for item in prompt] if isinstance(prompt, list | tuple) else []
    shown = prompt if isinstance(prompt, str) else "\n\n".join(str(item.get("content") or "") for item in messages)
    known = {name: extra.pop(name, None) for name in ("row_id", "step", "num_tokens", "finished")}
    return known | {
        "completion": text, "prompt": messages, "prompt_text": shown,
        "ground_truth": truth if truth is None or isinstance(truth, str) else json.dumps(truth, default=str),
        "verifier": extra.pop("verifier", None) or data_source, "meta": extra | {"data_source": data_source},
    }  # fmt: skip


def _open(config: str, evidence: str | None) -> tuple[Any, Any, str | None]:
    """The client, journal and run of a configuration, opened once in this process."""
    key = (config, evidence or "")
    with _LOCK:
        if key not in _OPEN:
            settings = json.loads(Path(config).read_bytes())
            folder = evidence or settings.get("evidence")
            client = _module().Client(settings)
            atexit.register(client.close)
            _OPEN[key] = (client, _module().Journal(folder) if folder else None, settings.get("run"))
        return _OPEN[key]


def _module() -> Any:
    """client.py beside this file, whatever package this file was loaded as."""
    name = "kedge_reward_client"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("client.py"))
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]
