"""LLaMA-Factory's YAML, as `llamafactory-cli train FILE` takes it, and the dataset_info.json that it points to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from curation.auditing.launch_files.reading import OWN_TEMPLATE, Launch, LaunchFile
from curation.auditing.mirrors.llama_factory_sft import EFFICIENT_EOS
from curation.config import shown
from curation.errors import Problem, UserError, did_you_mean

# stage of LLaMA-Factory -> (mirror, stage of the rows)
STAGES = {
    "sft": ("llama_factory_sft", "sft"), "pt": ("llama_factory_sft", "midtrain"),
    "dpo": ("llama_factory_dpo", "preference"), "rm": ("llama_factory_dpo", "preference"),
    "kto": ("llama_factory_dpo", "preference"),
}  # fmt: skip
OWN_KEYS = {"stage", "finetuning_type", "cutoff_len", "template", "dataset_dir", "neat_packing", "mask_history",
            "train_on_prompt", "do_train"}  # fmt: skip
OTHERS = ("eval_dataset", "eval_template")
REASONING = ("qwen3", "deepseekr1", "glm4_moe", "hunyuan")  # the best known of ReasoningTemplate
FORMAT = ("formatting", "ranking", "columns", "tags", "subset", "split", "num_samples")


def recognises(file: LaunchFile) -> bool:
    """Whether a file is a training of LLaMA-Factory's: it names a model and a stage or dataset, and uses keys that are
    its own."""
    keys = set(file.value)
    return "model_name_or_path" in keys and bool({"stage", "dataset"} & keys) and bool(OWN_KEYS & keys) \
        and not {"datasets", "dataset_name"} & keys  # fmt: skip


def read(file: LaunchFile, dataset: Path | None = None) -> Launch:
    """The launch of one file. Raises UserError for data that is not here and stages that no mirror knows."""
    kind = str(file.get("stage", default="sft"))
    if kind not in STAGES:
        raise UserError(f"stage {kind} has no mirror", f"{did_you_mean(kind, STAGES)}", where=file.where("stage"),
                        key="stage")  # fmt: skip
    trainer, stage = STAGES[kind]
    known = {name: value for name, value in file.value.items() if value is not None}
    fields, problems = file.checked(trainer, known | {"stage": kind}, {})
    problems += file.misspelt(["cutoff_len", "template", "dataset", "dataset_dir", "packing", "neat_packing",
                               "mask_history", "train_on_prompt", "stage"], OTHERS)  # fmt: skip
    datasets, formats = ((dataset,), ()) if dataset is not None else _datasets(file)
    model = file.reference(file.get("model_name_or_path"))
    template = None if stage == "midtrain" else OWN_TEMPLATE
    if stage != "midtrain":
        problems += _template_problems(file)
    return Launch("llama_factory", stage, trainer, fields, datasets, formats, model, template, {}, model,
                  dict(file.value), _notes(file, kind), problems)  # fmt: skip


def _notes(file: LaunchFile, kind: str) -> list[str]:
    name = file.get("template")
    found = [] if "cutoff_len" in file.value else ["cutoff_len is not given: LLaMA-Factory takes 2048"]
    if kind != "pt" and name:
        found.append(f"LLaMA-Factory formats '{name}' by its own code; the audit renders with the tokenizer's template")
    if name in EFFICIENT_EOS and kind == "sft":
        found.append(f"'{name}' appends the end of sequence after the cut, and trains it")
    if kind != "pt" and (name in REASONING or file.get("enable_thinking") is not None):
        found.append({True: "enable_thinking: rows without a thought are trained to write an empty one",
                      False: "enable_thinking false: thoughts are taken out of the answers, and an empty one goes into "
                      "the prompt"}[bool(file.get("enable_thinking", default=True))])  # fmt: skip
    if file.get("max_samples"):
        found.append(f"max_samples {file.get('max_samples')}: only that many rows of each dataset are trained")
    if file.get("val_size"):
        found.append(f"val_size {file.get('val_size')}: those rows are held out of training, and audited here with the "
                     "rest")  # fmt: skip
    return found


def _template_problems(file: LaunchFile) -> list[Problem]:
    if file.get("template"):
        return []
    return [file.problem("no template is named: LLaMA-Factory then takes the tokenizer's own where it can read it",
                         "name one (template: qwen)", "template")]  # fmt: skip


def _datasets(file: LaunchFile) -> tuple[tuple[Path, ...], tuple[dict[str, Any], ...]]:
    """(files or folders, their formats) of the datasets that the file names in dataset_info.json."""
    value = file.get("dataset")
    names = [part.strip() for part in value.split(",")] if isinstance(value, str) else list(value or [])
    folder, entries = _info(file)
    step = "give the local file: kedge audit FILE DATASET"
    found: list[Path] = []
    problems: list[Problem] = []
    formats: list[dict[str, Any]] = []
    for name in names:
        entry = entries.get(str(name))
        if not isinstance(entry, dict):
            near = did_you_mean(str(name), entries)
            problems.append(file.problem(f"dataset_info.json has no dataset '{name}'", near, "dataset"))
            continue
        given = entry.get("file_name") or next((entry[key] for key in entry if key.endswith("_url")), None)
        path = folder / str(given) if entry.get("file_name") else file.local(str(given))
        if path is None or not path.exists():
            problems.append(file.problem(f"the dataset '{name}' ({given}) is not on this machine", f"download it, and "
                                         f"{step}", "dataset"))  # fmt: skip
        else:
            found.append(path)
            formats.append({key: entry[key] for key in FORMAT if key in entry})
    if problems:
        raise UserError(problems)
    if not found:
        raise UserError("names no dataset", step, where=file.where("dataset"), key="dataset")
    return tuple(found), tuple(formats)


def _info(file: LaunchFile) -> tuple[Path, dict[str, Any]]:
    """(dataset_dir, dataset_info.json in it)."""
    name = str(file.get("dataset_dir", default="data"))
    folder = file.local(name)
    path = None if folder is None else folder / "dataset_info.json"
    if folder is None or path is None or not path.is_file():
        raise UserError(f"there is no {name}/dataset_info.json, neither here nor beside the file",
                        "run where LLaMA-Factory runs, or give the local file: kedge audit FILE DATASET",
                        where=file.where("dataset_dir" if "dataset_dir" in file.value else "dataset"),
                        key="dataset_dir")  # fmt: skip
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"is no valid JSON: {error}", "mend it", where=shown(path)) from error
    if not isinstance(value, dict):
        raise UserError("must be a mapping of names to datasets", "mend it", where=shown(path))
    return folder, value
