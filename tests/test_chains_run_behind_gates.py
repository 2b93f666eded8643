"""`kedge train RUN --chain`: stages in order, each behind its gates, nothing done twice."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from curation import checkpoints
from curation.catalog import Catalog
from curation.config import find_project
from curation.mixtures import find_frozen
from tests.trl_runs import make_project, train_here, write_run
from trainers.chain import Steps, stages, walk

ONE = {"max_steps": 1, "save_steps": 1, "eval_strategy": "no"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A preference stage, a reward model on it, and a stage that needs both."""
    root = make_project(tmp_path_factory.mktemp("chain"), tiny_model)
    write_run(root, "first", tiny_model, "trl_kto", "pairs", ONE, {})
    child(root, tiny_model, "second", "first")
    child(root, tiny_model, "third", "second", reference="first")
    return root


def child(root: Path, model: Path, name: str, parent: str, trainer: str = "trl_dpo", **more) -> None:
    options = {**ONE, **more.pop("options", {})}
    write_run(root, name, model, trainer, "pairs", options, more)
    path = root / "catalogs" / "runs" / f"{name}.yaml"
    value = yaml.safe_load(path.read_text())
    del value["base"]
    path.write_text(yaml.safe_dump({**value, "parent": parent}))


@pytest.fixture
def inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    monkeypatch.chdir(project)
    train_here(monkeypatch)
    return Catalog(find_project(project))


def hashes(catalog: Catalog) -> dict[str, str]:
    return {name: checkpoints.find(catalog, name).weights_hash for name in ("first", "second", "third")}


def test_a_chain_trains_every_stage_once_and_an_edit_repeats_what_follows_alone(
    inside: Catalog, project: Path, kedge, tiny_model: Path
):
    code, out, err = kedge("train", "third", "--chain")
    assert code == 0, out + err
    assert err.index("stage first") < err.index("stage second") < err.index("stage third")
    assert "names no suite" in err
    before = hashes(inside)
    code, _, err = kedge("train", "third", "--chain")
    assert code == 0 and err.count("is trained as its file is now") == 3 and hashes(inside) == before
    child(project, tiny_model, "second", "first", options={"learning_rate": 5e-4})
    code, _, err = kedge("train", "third", "--chain")
    assert code == 0 and err.count("is trained as its file is now") == 1, err
    after = hashes(inside)
    assert after["first"] == before["first"] and after["second"] != before["second"]
    assert after["third"] != before["third"]


def test_a_mixture_that_is_frozen_again_with_the_same_rows_trains_nothing_again(
    inside: Catalog, project: Path, kedge, tiny_model: Path
):
    assert kedge("train", "third", "--chain")[0] == 0
    before, frozen = hashes(inside), find_frozen(inside, "pairs")
    path = project / "catalogs" / "mixtures" / "pairs.sql"
    path.write_text(path.read_text().replace("FROM kept", "FROM (SELECT * FROM kept)"))
    code, _, err = kedge("train", "third", "--chain")
    assert find_frozen(inside, "pairs").fingerprint != frozen.fingerprint
    assert code == 0 and err.count("is trained as its file is now") == 3 and hashes(inside) == before, err


def test_a_stage_comes_after_all_that_it_starts_from_or_needs(inside: Catalog):
    assert [run.name for run in stages(inside, "third")] == ["first", "second", "third"]


FROZEN = {name: ["freeze"] for name in ("first", "second", "third")}


@pytest.mark.parametrize(("step", "code", "taken"), [
    ("freeze", 2, FROZEN),
    ("audit", 1, FROZEN | {"first": ["freeze", "audit"]}),
    ("train", 4, FROZEN | {"first": ["freeze", "audit", "train"]}),
])  # fmt: skip
def test_a_gate_that_does_not_open_ends_the_chain(inside: Catalog, step: str, code: int, taken: dict):
    def command(name: str):
        return lambda subject: code if name == step else 0

    went = walk(inside, "third", Steps(*(command(name) for name in ("freeze", "audit", "train", "evaluate", "drift"))))
    assert {stage.run: list(stage.codes) for stage in went} == taken and went[0].stopped_at == step


def test_mixtures_that_a_suite_asks_are_frozen_once_and_before_anything_trains(
    inside: Catalog, project: Path, tiny_model: Path
):
    for kind, name, value in (
        ("suites", "judged", {"benchmarks": [{"name": "held"}, {"name": "absent"}]}),
        ("benchmarks", "held", {"kind": "reward", "mixture": "prompts"}),
    ):
        (project / "catalogs" / kind).mkdir(exist_ok=True)
        (project / "catalogs" / kind / f"{name}.yaml").write_text(yaml.safe_dump(value))
    child(project, tiny_model, "fourth", "first", suite="judged")
    told = []
    steps = {name: lambda subject, name=name: told.append((name, subject)) or 0
             for name in ("freeze", "audit", "train", "evaluate", "drift")}  # fmt: skip
    walk(inside, "fourth", Steps(**steps))
    assert told[:3] == [("freeze", "pairs"), ("freeze", "prompts"), ("audit", "first")]


def test_runs_in_a_circle_are_told(inside: Catalog, project: Path, kedge, tiny_model: Path):
    child(project, tiny_model, "hen", "egg")
    child(project, tiny_model, "egg", "hen")
    code, _, err = kedge("train", "hen", "--chain")
    assert code == 2 and "form a circle" in err and "hen" in err and "egg" in err


def test_a_child_with_another_template_needs_to_say_so(inside: Catalog, project: Path, kedge, tiny_model: Path):
    (project / "catalogs" / "templates").mkdir(exist_ok=True)
    chatml = (Path(checkpoints.find(inside, "first").folder(inside)) / "chat_template.jinja").read_text()
    (project / "catalogs" / "templates" / "other.jinja").write_text(chatml.replace("<|im_start|>", "<|im_start|> "))
    child(project, tiny_model, "strange", "first", template="other")
    assert kedge("audit", "strange")[0] == 0
    code, _, err = kedge("train", "strange")
    assert code == 1 and "template_inherited" in err and "template_change: extends" in err
    child(project, tiny_model, "strange", "first", template="other", template_change="extends")
    code, _, err = kedge("train", "strange")
    assert code == 1 and "render otherwise" in err
    waiver = {"check": "template_inherited", "value": 1.0, "reason": "another template on purpose"}
    child(project, tiny_model, "strange", "first", template="other", waivers=[waiver])
    assert kedge("audit", "strange")[0] == 0
    assert kedge("train", "strange")[0] == 0
