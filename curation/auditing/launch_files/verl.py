"""verl's settings: a YAML file with nested or dotted keys, or the Hydra overrides of a shell script that starts
`verl.trainer.main_ppo` or `verl.trainer.sft_trainer`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from curation.auditing.launch_files.reading import OWN_TEMPLATE, Launch, LaunchFile, nested
from curation.errors import Problem

RENDERING = ("apply_chat_template_kwargs",)  # goes to the template, not to the mirror
FORMAT = ("prompt_key", "messages_key", "response_key", "tools_key", "reward_fn_key", "enable_thinking_key")
RL_ROOTS = ("actor_rollout_ref", "algorithm", "critic")


def recognises(file: LaunchFile) -> bool:
    """Whether a file is verl's: a script that starts it, or settings with its names."""
    file = dotted(file)
    return (
        bool(file.main)
        or isinstance(file.value.get("actor_rollout_ref"), dict)
        or (isinstance(file.value.get("data"), dict) and "train_files" in file.value["data"])
    )


def read(file: LaunchFile, dataset: Path | None = None) -> Launch:
    """The launch of one file. Raises UserError for data that is not here."""
    file = dotted(file)
    online = "main_ppo" in file.main or (not file.main and any(root in file.value for root in RL_ROOTS))
    trainer = "verl_rl" if online else "verl_sft"
    options = {name: value for name, value in file.get("data", default={}).items()
               if value is not None and name not in RENDERING}  # fmt: skip
    keys: dict[str, tuple[str | int, ...]] = {name: ("data", name) for name in options}
    if not online and file.get("engine", "ulysses_sequence_parallel_size") is not None:
        keys["ulysses_sequence_parallel_size"] = ("engine", "ulysses_sequence_parallel_size")
        options["ulysses_sequence_parallel_size"] = file.get(*map(str, keys["ulysses_sequence_parallel_size"]))
    fields, problems = file.checked(trainer, options, keys)
    told = {problem.key for problem in problems}
    own = _rl_problems(file) if online else []
    problems += [problem for problem in own if problem.key not in told]
    base = ("actor_rollout_ref", "model") if online else ("model",)
    model = file.reference(file.get(*base, "path") or file.get(*base, "partial_pretrain"))
    template, said, wrong = _template(file, base)
    notes = said + (
        [] if online or file.get("data", "max_length") else ["data.max_length is not given: verl takes 1024"]
    )
    kwargs = file.get("data", "apply_chat_template_kwargs", default={})
    datasets = file.data(_files(file), dataset)
    layout = {name: file.get("data", name) for name in FORMAT if file.get("data", name) is not None}
    return Launch(
        "verl", "rlvr" if online else "sft", trainer, fields, datasets, (layout,) * len(datasets),
        file.reference(file.get(*base, "tokenizer_path")) or model, template,
        kwargs if isinstance(kwargs, dict) else {}, model, dict(file.value), notes, problems + wrong)  # fmt: skip


def dotted(file: LaunchFile) -> LaunchFile:
    """The same settings with dotted keys (`data.train_files: ...`, also `+data.x`) as nested mappings."""
    if not any(isinstance(key, str) and "." in key for key in file.value):
        return file
    made = nested(file.path, _leaves(file, file.value, (), ()), file.text, file.main)
    return replace(made, lines=made.lines | {key: line for key, line in file.lines.items() if key not in made.lines})


def _leaves(file: LaunchFile, value: dict[str, Any], written: tuple[str, ...], path: tuple[str, ...]) -> Iterator[
    tuple[str, Any, int]
]:  # fmt: skip
    for key, item in value.items():
        here = (*written, str(key))
        name = (*path, str(key).lstrip("+"))
        if isinstance(item, dict) and item:
            yield from _leaves(file, item, here, name)
        else:
            yield ".".join(name), item, file.lines.get(here, 1)


def _files(file: LaunchFile) -> list[tuple[str, tuple[str | int, ...]]]:
    value = file.get("data", "train_files")
    names = value if isinstance(value, list) else [] if value is None else [value]
    return [(str(name), ("data", "train_files")) for name in names]


def _rl_problems(file: LaunchFile) -> list[Problem]:
    found = []
    filtered = file.get("data", "filter_overlong_prompts") is True
    if file.get("data", "truncation") is not None and not filtered:
        found.append(file.problem("this option is dead: verl stores it and reads it nowhere; a prompt that is too long "
                                  "is cut on the left", "remove it, and set data.filter_overlong_prompts=True",
                                  "data", "truncation"))  # fmt: skip
    if file.get("custom_reward_function", "path"):
        found.append(file.problem("this option is dead: main_ppo reads reward.custom_reward_function, and the default "
                                  "scorer runs", "use reward.custom_reward_function.path", "custom_reward_function",
                                  "path"))  # fmt: skip
    if file.get("actor_rollout_ref", "rollout", "name") == "hf":
        found.append(file.problem("verl 0.9 has no rollout 'hf'", "use vllm, sglang or trtllm", "actor_rollout_ref",
                                  "rollout", "name"))  # fmt: skip
    mode = file.get("actor_rollout_ref", "actor", "policy_loss", "loss_mode")
    if isinstance(mode, str) and "-" in mode:
        found.append(file.problem(f"there is no loss_mode '{mode}'", f"did you mean '{mode.replace('-', '_')}'?",
                                  "actor_rollout_ref", "actor", "policy_loss", "loss_mode"))  # fmt: skip
    return found


def _template(file: LaunchFile, base: tuple[str, ...]) -> tuple[str, list[str], list[Problem]]:
    """(template, notes, problems): verl takes the tokenizer's own, or text in custom_chat_template."""
    text = file.get(*base, "custom_chat_template")
    if text is None:
        return OWN_TEMPLATE, [], []
    path = file.local(str(text)) if "{" not in str(text) and len(str(text)) < 500 else None
    if path is not None and path.is_file():
        return str(path), ["verl takes custom_chat_template as text, not as a path"], []
    step = "write it to a .jinja file, and name that in custom_chat_template for the audit"
    return OWN_TEMPLATE, [], [file.problem("an inline template cannot be audited: the tokenizer's own is used", step,
                                           *base, "custom_chat_template")]  # fmt: skip
