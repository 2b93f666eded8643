"""The gate before a run: an audit under the run's own key, waivers, and one tokenisation for every length."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from curation.errors import GateFailed, UserError

MIXTURE = (
    "/* ---\nstage: sft\ntokenizer: tiny\ntemplate: chatml\nrendering: trl_assistant\n--- */\nSELECT row_id FROM kept"
)


@pytest.fixture
def write_run(project_folder: Path, tiny_model: Path, kedge, monkeypatch):
    """A project with a frozen mixture of 20 rows of which four are long; writes the run `short` under options."""
    monkeypatch.chdir(project_folder)
    Path("kedge.yaml").write_text(f"tokenizers: {{tiny: {tiny_model}}}\n")
    with Path("sums.jsonl").open("w") as stream:
        for number in range(20):
            thought = f"<think>{'12+3 ' * (60 if number < 4 else 1)}</think>"
            talk = [{"role": "user", "content": f"{number} plus 3?"},
                    {"role": "assistant", "content": f"{thought}The answer is {number + 3}."}]  # fmt: skip
            stream.write(json.dumps({"messages": talk}) + "\n")
    Path("catalogs/mixtures").mkdir()
    Path("catalogs/mixtures/sums.sql").write_text(MIXTURE)
    Path("catalogs/runs").mkdir()
    assert kedge("add", "sums.jsonl", "--name", "sums", "--stage", "sft")[0] == 0
    code, _, err = kedge("mix", "build", "sums")
    assert code == 0, err

    def write(waivers: tuple[dict, ...] = (), **options):
        trainer = {"name": "trl_sft", "assistant_only_loss": True} | options
        run = {"trainer": trainer, "mixture": "sums", "base": str(tiny_model), "template": "chatml"}
        Path("catalogs/runs/short.yaml").write_text(yaml.safe_dump(run | {"waivers": list(waivers)}))

    return write


def loaded(catalog):
    from curation.runs import Run

    return Run(catalog, "short")


def test_a_run_without_an_audit_does_not_start(write_run, catalog):
    from curation.auditing.gate import require_passing

    write_run(max_length=1024)
    with pytest.raises(GateFailed, match="run: kedge audit short"):
        require_passing(catalog, loaded(catalog))


def test_a_passing_audit_lets_the_run_start_until_an_option_changes(write_run, catalog, kedge):
    from curation.auditing.gate import require_passing

    write_run(max_length=1024)
    assert kedge("audit", "short")[0] == 0
    assert require_passing(catalog, loaded(catalog)).passed
    for change in ({"max_length": 1000}, {"max_length": 1024, "packing": True},
                   {"max_length": 1024, "assistant_only_loss": False}):  # fmt: skip
        write_run(**change)
        with pytest.raises(GateFailed, match="no audit"):
            require_passing(catalog, loaded(catalog))
    write_run(max_length=1024, learning_rate=1e-3)
    assert require_passing(catalog, loaded(catalog)).passed


def test_failed_checks_need_a_waiver_each(write_run, catalog, kedge):
    from curation.auditing.gate import audit_run, require_passing

    write_run(max_length=60)
    code, out, _ = kedge("audit", "short")
    assert code == 1
    assert "FAILED" in out
    with pytest.raises(GateFailed, match="A5"):
        require_passing(catalog, loaded(catalog))
    failed = [check for check in audit_run(catalog, loaded(catalog)).checks if check.level == "error"]
    waivers = tuple({"check": check.id, "value": check.value, "reason": "a test of the gate"} for check in failed)
    write_run(waivers[:-1], max_length=60)
    assert kedge("audit", "short")[0] == 1
    write_run(waivers, max_length=60)
    assert kedge("audit", "short")[0] == 0
    assert require_passing(catalog, loaded(catalog)).passed
    write_run(waivers, max_length=30)
    assert kedge("audit", "short")[0] == 1


def test_fates_stand_in_the_order_of_the_mixture(write_run, catalog):
    from curation.auditing.gate import audit_run
    from curation.mixtures import find_frozen

    write_run(max_length=60)
    audit = audit_run(catalog, loaded(catalog))
    fates = pq.read_table(audit.folder / "fates.parquet")
    rows = pq.read_table(find_frozen(catalog, "sums").train[0])
    assert fates["row_id"].to_pylist() == rows["row_id"].to_pylist()
    assert fates["position"].to_pylist() == list(range(20))
    assert fates["fate"].to_pylist().count("cut") == 4


def test_another_length_tokenises_nothing_again(write_run, catalog, kedge, monkeypatch):
    from curation.rendering import Rendering

    write_run(max_length=1024)
    assert kedge("audit", "short")[0] == 0
    monkeypatch.setattr(Rendering, "render_many", None)
    write_run(max_length=1000)
    code, _, err = kedge("audit", "short")
    assert code == 0, err


def test_a_misspelt_option_is_named_before_anything_is_measured(write_run, catalog):
    from curation.auditing.gate import audit_run

    pytest.importorskip("trl")
    write_run(max_lenght=60)
    with pytest.raises(UserError, match="did you mean 'max_length'"):
        audit_run(catalog, loaded(catalog))
