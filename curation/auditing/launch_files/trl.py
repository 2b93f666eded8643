"""TRL's YAML, as `trl sft --config FILE` and its sister commands take it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from curation.auditing.launch_files.reading import OWN_TEMPLATE, Launch, LaunchFile, mirror_class
from curation.errors import Problem, UserError

# command -> stage of the rows
COMMANDS = {"sft": "sft", "dpo": "preference", "reward": "preference", "kto": "preference", "grpo": "rlvr",
            "rloo": "rlvr"}  # fmt: skip
SAID = re.compile(r"\btrl\s+(sft|dpo|reward|kto|grpo|rloo)\b")
IN_NAME = {"rm": "reward"} | {name: name for name in COMMANDS}
# Keys beside the trainer's options: ScriptArguments, DatasetMixtureConfig and ModelConfig of TRL 1.16.
SCRIPT = frozenset({
    "dataset_name", "dataset_config", "dataset_train_split", "dataset_test_split", "dataset_streaming",
    "ignore_bias_buffers", "datasets", "streaming", "test_split_size", "env", "reward_model_name_or_path",
    "reward_funcs", "model_name_or_path", "model_revision", "dtype", "attn_implementation", "use_peft", "lora_r",
    "lora_alpha", "lora_dropout", "lora_target_modules", "lora_target_parameters", "lora_modules_to_save",
    "lora_task_type", "use_rslora", "use_dora", "load_in_8bit", "load_in_4bit", "bnb_4bit_quant_type",
    "use_bnb_nested_quant", "bnb_4bit_quant_storage",
})  # fmt: skip
FORMAT = ("dataset_text_field", "dataset_config", "dataset_train_split", "columns", "split", "name")
LIMITED = ("sft", "dpo", "reward", "kto")  # commands with a max_length
BUILDERS = ("json", "parquet", "csv", "text", "arrow")


def recognises(file: LaunchFile) -> bool:
    """Whether a file is TRL's: it names a model, and its data as TRL does or a command of TRL."""
    return "model_name_or_path" in file.value and (
        bool({"dataset_name", "datasets", "dataset_mixture"} & set(file.value))
        or SAID.search(_comments(file.text)) is not None
    )


def read(file: LaunchFile, dataset: Path | None = None) -> Launch:
    """The launch of one file. Raises UserError for data that is not here."""
    command, problems = _command(file)
    trainer, stage = f"trl_{command}", COMMANDS[command]
    template, taken, notes, wrong = _template(file)
    options = {name: value for name, value in file.value.items() if name not in SCRIPT and name not in taken}
    fields, found = file.checked(trainer, options, {})
    model = file.reference(file.get("model_name_or_path"))
    if command in LIMITED and "max_length" not in file.value:
        notes.append("max_length is not given: TRL takes 1024")
    datasets, formats, said = _datasets(file, dataset)
    kwargs = file.get("chat_template_kwargs", default={})
    return Launch("trl", stage, trainer, fields, datasets, formats, model, template,
                  kwargs if isinstance(kwargs, dict) else {}, model, dict(file.value), notes + said,
                  problems + found + wrong)  # fmt: skip


def _comments(text: str) -> str:
    return "\n".join(line.partition("#")[2] for line in text.splitlines() if "#" in line)


def _command(file: LaunchFile) -> tuple[str, list[Problem]]:
    """The command that the file is for: a comment says so (`# trl dpo`), or its name, or its keys, which one alone of
    the configurations has."""
    said = set(SAID.findall(_comments(file.text)))
    words = {IN_NAME[word] for word in re.split(r"[^a-z0-9]+", file.path.stem.lower()) if word in IN_NAME}
    for found in (said, words, _by_keys(file)):
        if len(found) == 1:
            return found.pop(), []
    fitting = said or words or _by_keys(file) or set(COMMANDS)
    what = f"nothing says which command this is for: {', '.join(sorted(fitting))} would take it; audited as trl sft"
    return "sft", [Problem(what, "add a comment line: # trl dpo --config FILE", file.where())]


def _by_keys(file: LaunchFile) -> set[str]:
    """Commands that have every key of the file that any of them has."""
    known = {}
    for command in COMMANDS:
        cls = mirror_class(f"trl_{command}")
        if cls is not None:
            known[command] = cls.option_names() or frozenset(cls.model_fields)
    used = {key for key in file.value if key not in SCRIPT and any(key in names for names in known.values())}
    return {command for command, names in known.items() if used <= names}


def _template(file: LaunchFile) -> tuple[str, set[str], list[str], list[Problem]]:
    """(template, keys that are spoken for, notes, problems)."""
    notes, taken = [], {"chat_template_path", "eos_token", "pad_token", "chat_template_kwargs"} & set(file.value)
    if file.get("eos_token"):
        notes.append(f"the run makes {file.get('eos_token')!r} the end of sequence: audit with a tokenizer whose eos "
                     "that is")  # fmt: skip
    value = file.get("chat_template_path")
    if value is None:
        return OWN_TEMPLATE, taken, notes, []
    path = file.local(str(value))
    if path is not None and path.is_dir():
        path = path / "chat_template.jinja"
    if path is not None and path.is_file():
        return str(path), taken, notes, []
    return OWN_TEMPLATE, taken, notes, [file.problem(f"the template '{value}' is not on this machine: the tokenizer's "
                                                     "own is used", "give a .jinja file, or a folder that holds "
                                                     "chat_template.jinja", "chat_template_path")]  # fmt: skip


def _datasets(file: LaunchFile, given: Path | None) -> tuple[tuple[Path, ...], tuple[dict[str, Any], ...], list[str]]:
    """(files or folders, their formats, notes): `datasets` goes before `dataset_name`."""
    entries, key = _entries(file)
    notes, formats = [], []
    named: list[tuple[str, tuple[str | int, ...]]] = []
    for number, entry in enumerate(entries):
        inside = _named(file, entry)
        named += [(name, (*key, number, inner)) for name, inner in inside]
        formats += [{name: entry[name] for name in FORMAT if entry.get(name) is not None}] * len(inside)
        for part in ("fraction", "weight", "split", "columns"):
            if entry.get(part) not in (None, "train"):
                notes.append(f"datasets[{number}] has {part} {entry[part]}: the audit reads its file whole")
    if not entries and file.get("dataset_name"):
        named = [(str(file.get("dataset_name")), ("dataset_name",))]
        formats = [{name: file.value[name] for name in FORMAT if file.get(name) is not None}]
    if file.get("test_split_size"):
        notes.append(f"test_split_size {file.get('test_split_size')}: those rows are held out of training, and audited "
                     "here with the rest")  # fmt: skip
    return file.data(named, given), tuple(formats[: 1 if given else None]), notes


def _entries(file: LaunchFile) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """(`datasets`, where they stand). The dataset_mixture of the alignment handbook, which TRL refuses, is read all the
    same: its ids are paths."""
    key: tuple[str, ...] = ("datasets",)
    if "datasets" not in file.value and isinstance(file.get("dataset_mixture"), dict):
        key = ("dataset_mixture", "datasets")
    entries = file.get(*key, default=[])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError("must be a list of datasets", "write '- path: FOLDER' below it", where=file.where(*key),
                        key=".".join(key))  # fmt: skip
    return entries, key


def _named(file: LaunchFile, entry: dict[str, Any]) -> list[tuple[str, str]]:
    """(file or folder, the key that names it) of one dataset: its data_files (inside of its path, where that is a
    folder), else its path."""
    key = "id" if "id" in entry else "path"
    path, files = str(entry.get(key)), entry.get("data_files")
    if not files:
        return [(str(Path(path) / entry["data_dir"]) if entry.get("data_dir") else path, key)]
    if isinstance(files, dict):
        files = files.get(entry.get("split", "train"), [])
    base = None if path in BUILDERS else file.local(path)
    names = [files] if isinstance(files, str) else list(files)
    return [(str(base / name) if base is not None and (base / name).exists() else str(name), "data_files")
            for name in names]  # fmt: skip
