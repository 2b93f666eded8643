"""Run files that kedge ships: every option is one that the installed framework takes, and they disturb no project."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from curation import environments, registry
from curation.auditing.audit import mirror_for
from curation.config import SHIPPED, load_yaml
from curation.errors import UserError
from curation.run_files import RunFile
from curation.runs import Run, all_runs
from tests.verl_cpu import kedge_project
from trainers.monitors.rules import rules_for
from trainers.process import trl as process
from trainers.process import verl_prepare, verl_settings
from trainers.rewards.combining import components

RECIPES = sorted((SHIPPED / "recipes").glob("*.yaml"))
FILES = [*RECIPES, *sorted((SHIPPED / "quickstart" / "runs").glob("*.yaml"))]
IDS = [path.stem for path in FILES]
STAGES = {"trl_sft": "sft", "trl_dpo": "preference", "trl_reward": "preference", "trl_grpo": "rlvr", "verl_rl": "rlvr"}


def read(path: Path) -> tuple[RunFile, str, dict[str, Any]]:
    """The run, and its trainer's name and options."""
    file = load_yaml(path, RunFile)
    return file, file.trainer["name"], {key: value for key, value in file.trainer.items() if key != "name"}


def of(framework: str) -> list[Path]:
    return [path for path in FILES if read(path)[1].startswith(framework)]


def job_of(path: Path, folder: Path) -> dict[str, Any]:
    file, name, options = read(path)
    trainer: Any = registry.make("trainers", name, options)
    return {"trainer": name, "config": trainer.config(), "output": str(folder / "weights"), "kwargs": {}, "model": "m",
            "stage": STAGES[name], "trust_remote_code": False, "record": {"run": path.stem}, "evidence": str(folder),
            "rewards": [item.model_dump() for item in file.rewards],
            "num_processes": file.num_processes}  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_wrapper_audit_rewards_and_monitors_take_what_the_file_says(path: Path):
    file, name, options = read(path)
    registry.make("trainers", name, options, where=path.name)
    mirror_for(name, options, path.name)
    assert rules_for(STAGES[name], file.monitors)
    assert bool(file.rewards) == (STAGES[name] == "rlvr")
    if file.rewards:
        components([item.model_dump() for item in file.rewards])


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_a_recipe_names_its_source_and_what_its_user_supplies(path: Path):
    text = path.read_text()
    header = text[: text.index("trainer:")].replace("\n# ", " ")
    assert re.search(r"@[0-9a-f]{7}|arXiv \d{4}\.\d{5}|: \"", header), "a commit, a paper or a title"
    assert "Copy it into the catalogs/runs/ of a project" in header and "Yours to supply: the " in header
    for line in text[text.index("trainer:") : text.index("mixture:")].splitlines():
        value, _, comment = line.partition("#")
        assert comment or not re.search(r"\d", value.partition(": ")[2]), f"{value.strip()}: where is it from?"


@pytest.mark.parametrize("path", of("trl"), ids=[path.stem for path in of("trl")])
def test_the_configuration_of_trl_takes_every_option(path: Path, tmp_path: Path):
    import trl

    job = job_of(path, tmp_path)
    made = getattr(trl, f"{process.KINDS[job['trainer']].name}Config")(**process.arguments(job))
    for name, value in job["config"].items():
        found = getattr(made, name)
        assert found == value or list(found) == [value] or getattr(found, "value", None) == value, name


@pytest.mark.verl
def test_verl_composes_and_validates_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    try:
        python = environments.python("verl")
    except UserError as absent:
        pytest.skip(str(absent))
    for name, value in kedge_project.environment().items():
        monkeypatch.setenv(name, value)
    lengths = {"train": 200_000, "val": 0}
    cases = {}
    for path in of("verl"):
        job = job_of(path, tmp_path)
        given = verl_settings.settings(job, "rl", lengths)
        given[f"{verl_settings.STORAGE}.total_storage_size"] = max(100_000, verl_settings.room(given, lengths))
        assert given["actor_rollout_ref.rollout.name"] == "vllm", "which is not installed where there is no GPU"
        given |= {"actor_rollout_ref.rollout.name": "hfcpu", "actor_rollout_ref.model.external_lib": "verl_cpu_rollout"}
        cases[path.stem] = verl_prepare.case_of("rl", given, lengths)
    answers = verl_prepare.ask(python, cases, tmp_path)
    told = {name: [str(verl_prepare.problem(item)) for item in answer["problems"]] for name, answer in answers.items()}
    assert len(told) >= 2 and not any(told.values()), told


# What recipes for earlier versions of TRL still say, and the option to use.
GONE = [
    ("trl_sft", "max_seq_length", "use max_length"),
    ("trl_sft", "tokenizer", "use the run's tokenizer"),
    ("trl_sft", "overwrite_output_dir", "remove it: kedge decides"),
    ("trl_sft", "group_by_length", "use train_sampling_strategy: group_by_length"),
    ("trl_sft", "warmup_ratio", "use warmup_steps"),
    ("trl_sft", "no_cuda", "remove it: kedge takes the CPU"),
    ("trl_sft", "evaluation_strategy", "use eval_strategy"),
    ("trl_sft", "save_safetensors", "remove it: weights are always saved so"),
    ("trl_dpo", "max_prompt_length", "use max_length"),
    ("trl_dpo", "max_completion_length", "use max_length"),
    ("trl_dpo", "rpo_alpha", "use loss_type: [sigmoid, sft] with loss_weights"),
    ("trl_dpo", "reference_free", "remove it"),
    ("trl_dpo", "padding_free", "remove it: DPOTrainer forces it back to false"),
    ("trl_kto", "max_prompt_length", "use max_length"),
    ("trl_reward", "max_seq_length", "use max_length"),
    ("trl_grpo", "max_prompt_length", "use a rule on the length of prompts"),
    ("trl_grpo", "use_liger_loss", "use use_liger_kernel"),
    ("trl_rloo", "rloo_k", "use num_generations"),
    ("trl_distillation", "max_seq_length", "use max_completion_length"),
]


@pytest.mark.parametrize(("name", "option", "said"), GONE, ids=[f"{name}.{option}" for name, option, _ in GONE])
def test_an_option_that_trl_lost_is_an_error_that_names_the_one_to_use(name: str, option: str, said: str):
    with pytest.raises(ValidationError, match=re.escape(said)):
        registry.load("trainers", name)(**{option: 1})
    with pytest.raises(UserError, match=re.escape(said)):
        mirror_for(name, {option: 1})


@pytest.mark.parametrize("name", process.KINDS)
def test_what_to_use_instead_is_an_option_that_the_configuration_has(name: str):
    import trl

    fields = {item.name for item in dataclasses.fields(getattr(trl, f"{process.KINDS[name].name}Config"))}
    forced = {"padding_free", "truncation_mode"}  # taken, and without an effect
    mirror: Any = registry.load("mirrors", name)
    for option, use in mirror.dead_options.items():
        assert option not in fields - forced, f"{option} is not dead"
        first = re.match(r"\w+", use)[0]
        assert first in fields or re.match(r"nothing|the run's tokenizer|the reward length|a rule on", use), use


@pytest.mark.parametrize(("option", "said"), [("learning_rat", "did you mean 'learning_rate'"),
                                              ("packing_strateg", "did you mean 'packing_strategy'")])  # fmt: skip
def test_an_option_that_trl_never_had_is_an_error_with_the_nearest(option: str, said: str):
    with pytest.raises(ValidationError, match=said):
        registry.load("trainers", "trl_sft")(**{option: 1})
    with pytest.raises(UserError, match=said):
        mirror_for("trl_sft", {option: 1})


def test_recipes_are_no_runs_of_a_project_until_they_are_copied(catalog, kedge):
    assert all_runs(catalog) == [] and len(RECIPES) >= 6
    code, out, _ = kedge("show", "recipes")
    assert code == 0 and all(path.stem in out for path in RECIPES)
    code, out, _ = kedge("show", "smollm3_sft")
    assert code == 0 and "recipe smollm3_sft" in out and "packing_strategy: bfd" in out
    (catalog.project.catalogs / "runs").mkdir()
    for path in RECIPES:
        shutil.copy(path, catalog.project.catalogs / "runs")
    assert all_runs(catalog) == [path.stem for path in RECIPES]
    assert Run(catalog, "smollm3_apo").file.parent == "smollm3_sft"
    code, _, err = kedge("audit", "smollm3_mid")
    assert code == 2 and "Traceback" not in err and "smollm3_mid" in err
