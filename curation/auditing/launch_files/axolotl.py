"""axolotl's YAML, as `axolotl train FILE` takes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from curation.auditing.launch_files.reading import OWN_TEMPLATE, Launch, LaunchFile
from curation.errors import Problem, UserError

PAIRS = ("dpo", "ipo", "orpo", "simpo", "kto")
FALLBACK = "tokenizer_default_fallback_"
OF_DATASET = ("roles_to_train", "train_on_eos", "overlap_len", "skip")  # options of a dataset that touch its rows
# Keys of a dataset that say how its records are laid out.
FORMAT = (
    "type", "ds_type", "split", "name", "field", "text_column", "field_messages", "field_chosen", "field_rejected",
    "field_prompt", "field_completion", "field_label", "field_tools", "field_thinking", "field_system",
    "field_instruction", "field_input", "field_output", "message_property_mappings", "message_field_role",
    "message_field_content", "roles",
)  # fmt: skip
OTHERS = ("eval_sample_packing", "eval_sequence_len", "tokenizer_type", "model_type", "test_datasets")


def recognises(file: LaunchFile) -> bool:
    """Whether a file is axolotl's: it names a base_model and datasets."""
    return "base_model" in file.value and ("datasets" in file.value or "pretraining_dataset" in file.value)


def read(file: LaunchFile, dataset: Path | None = None) -> Launch:
    """The launch of one file. Raises UserError for data that is not here and stages that no mirror knows."""
    key, entries = _datasets(file)
    trainer, stage, options, keys = _trainer(file, key, entries)
    known = {name: value for name, value in file.value.items() if value is not None} if trainer != "trl_grpo" else {}
    fields, problems = file.checked(trainer, known | options, keys)
    notes = (
        []
        if "sequence_len" in file.value or trainer == "trl_grpo"
        else ["sequence_len is not given: axolotl takes 512"]
    )
    if file.get("val_set_size"):
        notes.append(f"val_set_size {file.get('val_set_size')}: those rows are held out of training, and audited here "
                     "with the rest")  # fmt: skip
    if trainer == "trl_grpo":
        notes.append("axolotl passes prompts to TRL's GRPOTrainer as they are: the mirror is that of TRL")
    problems += file.misspelt(["sequence_len", "excess_length_strategy", "sample_packing", "min_sample_len",
                               "train_on_inputs", "chat_template", "datasets", "tokenizer_config"], OTHERS)  # fmt: skip
    tokenizer = file.reference(file.get("tokenizer_config") or file.get("base_model"))
    template = None
    if stage != "midtrain":
        template, said, wrong = _template(file, key, entries, tokenizer)
        notes += said + _prompt_types(entries)
        problems += wrong
    problems += _entry_problems(file, key, entries)
    named: list[tuple[str, tuple[str | int, ...]]] = [
        (name, (key, number, *where)) for number, entry in enumerate(entries) for name, where in _files(file, entry)
    ]
    formats = [_format(entry) for entry in entries for _ in _files(file, entry)][: 1 if dataset else None]
    return Launch(
        "axolotl", stage, trainer, fields, file.data(named, dataset), tuple(formats), tokenizer, template, {},
        file.reference(file.get("base_model")), dict(file.value), notes, problems)  # fmt: skip


def _datasets(file: LaunchFile) -> tuple[str, list[dict[str, Any]]]:
    key = "pretraining_dataset" if file.get("pretraining_dataset") else "datasets"
    value = file.get(key)
    entries = [{"path": item} if isinstance(item, str) else item for item in
               (value if isinstance(value, list) else [value])]  # fmt: skip
    if not all(isinstance(entry, dict) for entry in entries):
        raise UserError("must be a list of datasets", "write '- path: FILE' below it", where=file.where(key), key=key)
    return key, entries


def _trainer(file: LaunchFile, key: str, entries: list[dict[str, Any]]) -> tuple[
    str, str, dict[str, Any], dict[str, tuple[str | int, ...]]
]:  # fmt: skip
    """(mirror, stage, options beyond the top-level ones, where those stand)."""
    rl = file.get("rl")
    if rl in PAIRS:
        return "axolotl_dpo", "preference", {"rl": rl}, {}
    if rl == "grpo":
        named = {"max_completion_length": ("trl", "max_completion_length"), "num_generations": ("trl",
                 "num_generations"), "mask_truncated_completions": ("trl", "mask_truncated_completions"),
                 "vllm_max_model_length": ("vllm", "max_model_len")}  # fmt: skip
        options = {name: file.get(*path) for name, path in named.items() if file.get(*path) is not None}
        return "trl_grpo", "rlvr", options, dict(named)
    for name in ("reward_model", "process_reward_model"):
        rl = name if file.get(name) else rl
    if rl:
        key = "rl" if "rl" in file.value else str(rl)
        step = "audit sft, pretraining, dpo, ipo, orpo, simpo, kto or grpo"
        raise UserError(f"axolotl's training of the kind {rl} has no mirror", step, where=file.where(key), key=key)
    options = {name: entries[0][name] for name in OF_DATASET if entries[0].get(name) is not None}
    places: dict[str, tuple[str | int, ...]] = {name: (key, 0, name) for name in (*OF_DATASET, "type")}
    kind = entries[0].get("type")
    if key == "pretraining_dataset" or kind == "completion":
        text = "completion" if kind == "completion" else "pretrain"
        return "axolotl_pretrain", "midtrain", options | {"type": text}, places
    return "axolotl_sft", "sft", options, places


def _files(file: LaunchFile, entry: dict[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    """What a dataset reads: its data_files where its path is a folder or the name of a format, else its path."""
    path, files = entry.get("path"), entry.get("data_files")
    files = [files] if isinstance(files, str) else files or []
    if not files:
        return [(str(path), ("path",))]
    base = file.local(path) if isinstance(path, str) and path not in ("json", "parquet", "csv", "text") else None
    inside = [str(base / name) if base is not None and base.is_dir() and (base / name).exists() else str(name)
              for name in files]  # fmt: skip
    return [(name, ("data_files",)) for name in inside]


def _format(entry: dict[str, Any]) -> dict[str, Any]:
    found = {name: entry[name] for name in FORMAT if entry.get(name) is not None}
    return found | (entry["type"] if isinstance(entry.get("type"), dict) else {})


def _template(file: LaunchFile, key: str, entries: list[dict[str, Any]], tokenizer: str | None) -> tuple[
    str, list[str], list[Problem]
]:  # fmt: skip
    """(template, notes, problems): a dataset's own chat_template goes before the file's."""
    inner: tuple[str | int, ...] = (key, 0) if {"chat_template", "chat_template_jinja"} & set(entries[0]) else ()
    given = entries[0] if inner else file.value
    name, jinja = given.get("chat_template"), given.get("chat_template_jinja")
    if jinja and name in (None, "jinja"):
        path = file.local(str(jinja)) if "{" not in str(jinja) else None
        if path is not None:
            return str(path), [], []
        step = "write it to a file that ends in .jinja, and give its path"
        what = "an inline template (or one that is not here) cannot be audited: the tokenizer's own is used"
        return OWN_TEMPLATE, [], [file.problem(what, step, *inner, "chat_template_jinja")]
    if name in (None, "", "tokenizer_default"):
        return OWN_TEMPLATE, [], []
    if str(name).startswith(FALLBACK):
        if carries_template(tokenizer) is not False:
            return OWN_TEMPLATE, [], []
        name = str(name).removeprefix(FALLBACK)
    if name == "chatml":
        return "chatml", [], []
    if str(name).endswith(".jinja"):
        return str(file.local(str(name)) or name), [], []
    note = (f"axolotl renders with its own copy of the template '{name}'; the audit uses the tokenizer's own (to audit "
            "the copy: chat_template: jinja and chat_template_jinja: FILE.jinja)")  # fmt: skip
    return OWN_TEMPLATE, [note], []


def carries_template(tokenizer: str | None) -> bool | None:
    """Whether a local tokenizer folder has a chat template; None where it is no local folder."""
    folder = None if tokenizer is None else Path(tokenizer)
    if folder is None or not folder.is_dir():
        return None
    settings = folder / "tokenizer_config.json"
    inside = settings.is_file() and json.loads(settings.read_text()).get("chat_template") is not None
    return inside or (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file()


def _prompt_types(entries: list[dict[str, Any]]) -> list[str]:
    own = sorted({str(entry.get("type")) for entry in entries if isinstance(entry.get("type"), str)
                  and not str(entry["type"]).startswith(("chat_template", "completion", "sharegpt"))})  # fmt: skip
    own += ["(user defined)"] if any(isinstance(entry.get("type"), dict) for entry in entries) else []
    return [f"type {', '.join(own)} writes prompts of its own; the audit renders the rows as chats, so lengths are "
            "approximate"] if own else []  # fmt: skip


def _entry_problems(file: LaunchFile, key: str, entries: list[dict[str, Any]]) -> list[Problem]:
    found = []
    kinds = {entry.get("type") == "completion" for entry in entries}
    if len(kinds) > 1 and key == "datasets":
        found.append(file.problem("mixes type completion with chats, which are cut differently", "audit them apart: "
                                  "one file for each", key))  # fmt: skip
    for number, entry in enumerate(entries):
        if str(entry.get("type")).startswith("sharegpt"):
            found.append(file.problem("type sharegpt is refused: axolotl dropped it", "use type: chat_template", key,
                                      number, "type"))  # fmt: skip
        for name in ("conversation",):
            if entry.get(name):
                found.append(file.problem("has no effect: axolotl dropped it", "use chat_template", key, number, name))
        if number and any(entry.get(name) != entries[0].get(name) for name in OF_DATASET):
            found.append(file.problem("trains other turns than the first dataset", "audit them apart: one file for "
                                      "each", key, number))  # fmt: skip
    return found
