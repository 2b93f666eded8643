"""The reward function of TRL's GRPO and RLOO trainers."""

from __future__ import annotations

import atexit
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trainers.rewards.client import FAILURES, Client, Journal, record

SETTINGS = ("rewards", "project", "python", "processes", "wall_seconds", "failed_value", "max_failure_share")
COLUMNS = ("row_id", "ground_truth", "verifier")


def trl_function(job: Mapping[str, Any], tokenizer: Any = None) -> Callable[..., list[float | None]]:
    """A reward function for `reward_funcs`, from a job (or the settings of client.Client): `rewards`, `evidence` (the
    folder for rollouts), `record.run`, and for `finished` `eos_token_ids` (a completion is finished where its last
    token is one), else `config.max_completion_length` (where it is shorter). It returns None for a rollout of which no
    component says anything. With the `tokenizer` a completion is read from its tokens: TRL's text lacks special ones,
    which the marks of a thought are in some vocabularies. The mean of each component is logged as `rewards/NAME`, with
    the share of rollouts where it failed (`rewards/NAME/failed`) or had nothing to say (`rewards/NAME/none`)."""
    client = Client({"python": sys.executable} | {name: job[name] for name in SETTINGS if job.get(name) is not None})
    atexit.register(client.close)
    journal = Journal(str(job["evidence"])) if job.get("evidence") else None
    run = (job.get("record") or {}).get("run") or job.get("run")

    def kedge_reward(prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Sequence[Sequence[int]] | None
                     = None, trainer_state: Any = None, log_metric: Callable[[str, float], None] | None = None,
                     log_extra: Callable[[str, list[Any]], None] | None = None, **columns: Any
                     ) -> list[float | None]:  # fmt: skip
        step = getattr(trainer_state, "global_step", None)
        ids: Sequence[Sequence[int] | None] = completion_ids or [None] * len(prompts)
        samples = [_sample(prompt, _text(completion, tokens, tokenizer), tokens, step, job,
                           {name: values[index] for name, values in columns.items() if _is_column(values, prompts)})
                   for index, (prompt, completion, tokens) in
                   enumerate(zip(prompts, completions, ids, strict=True))]  # fmt: skip
        results = client.score(samples)
        if journal is not None:
            journal.write([record(sample, result, run) for sample, result in zip(samples, results, strict=True)])
        for name, value in _metrics(results).items():
            if log_metric is not None:
                log_metric(name, value)
        if log_extra is not None:
            log_extra("row_id", [sample["row_id"] for sample in samples])
            log_extra("outcome", [result["outcome"] for result in results])
        return [result["reward"] for result in results]

    kedge_reward.close = client.close  # type: ignore[attr-defined]
    return kedge_reward


def _is_column(values: Any, prompts: Sequence[Any]) -> bool:
    return isinstance(values, list | tuple) and len(values) == len(prompts)


def _text(completion: Any, tokens: Sequence[int] | None, tokenizer: Any) -> str:
    """What the model wrote, without the tokens that end it. A completion of several messages holds results of tools,
    which the model did not write: its text is TRL's."""
    several = not isinstance(completion, str) and len(completion) != 1
    if tokenizer is None or tokens is None or several:
        return completion if isinstance(completion, str) else "".join(_content(item) for item in completion)
    end = len(tokens)
    while end and tokens[end - 1] in (tokenizer.eos_token_id, tokenizer.pad_token_id):
        end -= 1
    return str(tokenizer.decode(tokens[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _sample(prompt: Any, text: str, tokens: Sequence[int] | None, step: int | None, job: Mapping[str, Any],
            row: dict[str, Any]) -> dict[str, Any]:  # fmt: skip
    messages = [] if isinstance(prompt, str) else [dict(item) for item in prompt]
    return {name: row.pop(name, None) for name in COLUMNS} | {
        "completion": text, "prompt": messages, "step": step,
        "prompt_text": prompt if isinstance(prompt, str) else "\n\n".join(_content(item) for item in messages),
        "num_tokens": None if tokens is None else len(tokens), "finished": _finished(tokens, job), "meta": row,
    }  # fmt: skip


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else "".join(str(part.get("text", "")) for part in content or ())


def _finished(tokens: Sequence[int] | None, job: Mapping[str, Any]) -> bool | None:
    if tokens is None:
        return None
    if job.get("eos_token_ids"):
        return bool(tokens) and tokens[-1] in job["eos_token_ids"]
    limit = (job.get("config") or {}).get("max_completion_length")
    return None if limit is None else len(tokens) < int(limit)


def _metrics(results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    found: dict[str, float] = {}
    values: defaultdict[str, list[float]] = defaultdict(list)
    for result in results:
        for name, value in result["components"].items():
            if value is not None:
                values[name].append(value)
    for name in results[0]["outcomes"] if results else ():
        outcomes = [result["outcomes"][name] for result in results]
        failed = sum(outcome in FAILURES for outcome in outcomes)
        if values[name]:
            found[f"rewards/{name}"] = sum(values[name]) / len(values[name])
        found[f"rewards/{name}/failed"] = failed / len(results)
        found[f"rewards/{name}/none"] = (len(results) - len(values[name]) - failed) / len(results)
    return found
