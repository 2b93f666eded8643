"""init, show, sql, why, doctor, plugins, rebuild: on an empty project and on the quickstart's."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest


@pytest.fixture
def inside(quickstart: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(quickstart)
    return quickstart


def test_init_makes_a_project_and_a_second_time_changes_nothing(tmp_path: Path, kedge, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert kedge("init")[0] == 0
    assert (tmp_path / "kedge.yaml").is_file()
    assert "lake/" in (tmp_path / ".gitignore").read_text()
    assert {"sources", "rules", "mixtures", "taxonomies", "skills"} <= {
        path.name for path in (tmp_path / "catalogs").iterdir()}  # fmt: skip
    code, out, _ = kedge("init")
    assert (code, out) == (0, "")


def test_a_command_outside_of_a_project_says_to_run_init(tmp_path: Path, kedge, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = kedge("show", "sources")
    assert code == 2
    assert "run: kedge init" in err
    assert "Traceback" not in err


def test_an_unknown_command_and_an_unknown_option_are_user_errors(kedge):
    assert kedge("quikstart")[0] == 2
    assert kedge("doctor", "--jason")[0] == 2


def test_the_doctor_finds_a_part_that_was_cut_off(catalog, kedge):
    from tests.test_catalog import publish

    part = publish(catalog) / "part-0.parquet"
    assert kedge("doctor")[0] == 0
    os.truncate(part, 100)
    code, out, _ = kedge("doctor")
    assert code == 4
    assert "part-0.parquet is absent or has another size" in out


def test_plugins_lists_every_kind_with_versions(kedge):
    code, out, _ = kedge("plugins", "--json")
    found = {(item["kind"], item["name"]): item for item in json.loads(out)}
    assert code == 0
    for known in (("sources", "jsonl"), ("measures", "anatomy"), ("mirrors", "trl_sft"), ("trainers", "trl_sft"),
                  ("harnesses", "lighteval_harness")):  # fmt: skip
        assert found[known]["version"] >= 1


def test_sql_reads_rows_and_writes_nothing(inside: Path, kedge):
    code, out, _ = kedge("sql", "SELECT count(*) AS n FROM rows WHERE source = 'addition'", "--json")
    assert (code, json.loads(out)) == (0, [{"n": 10_014}])
    for query in ("DELETE FROM manifests", "COPY rows TO 'x.csv'", "CREATE TABLE x AS SELECT 1"):
        assert kedge("sql", query)[0] == 2
    code, _, err = kedge("sql", "SELECT nothing FROM rows")
    assert code == 2
    assert "nothing" in err and "Traceback" not in err


def test_why_tells_the_whole_story_of_a_trained_row(inside: Path, kedge):
    _, out, _ = kedge("sql", "SELECT row_id FROM mixture_rows WHERE mixture = 'sft' ORDER BY row_id LIMIT 1", "--json")
    row_id = json.loads(out)[0]["row_id"]
    code, out, _ = kedge("why", row_id, "--json")
    told = json.loads(out)
    assert code == 0
    assert told["row"]["source"] == "addition"
    assert told["row"]["file"].endswith("addition.jsonl") and told["row"]["line"] >= 1
    assert told["signals"]["anatomy"]["tokens"] > 0
    assert told["verdicts"] == []
    assert {item["mixture"] for item in told["mixtures"]} == {"sft"}
    assert {item["run"] for item in told["runs"]} == {"sft"}
    code, out, _ = kedge("why", row_id[:16])
    assert code == 0
    assert "trained on by run sft" in out


def test_why_tells_why_a_row_was_left_out(inside: Path, kedge):
    _, out, _ = kedge("sql", "SELECT row_id::VARCHAR AS id, reason FROM verdicts WHERE source = 'addition' "
                      "AND rule = 'exact_duplicate' ORDER BY ALL LIMIT 1", "--json")  # fmt: skip
    row = json.loads(out)[0]
    code, out, _ = kedge("why", row["id"])
    assert code == 0
    assert row["reason"] in out
    assert "in no mixture" in out


@pytest.mark.parametrize(("row_id", "message"), [("xyz", "is no row id"), ("ffffffffffffffff", "no row of the lake")])
def test_why_without_such_a_row_is_one_clear_error(row_id: str, message: str, inside: Path, kedge):
    code, _, err = kedge("why", row_id)
    assert code == 2
    assert message in err


@pytest.mark.parametrize("name", ["addition", "sft", "mid", "sources", "mixtures", "checkpoints", "anatomy", "sft@150"])
def test_show_describes_things_and_kinds(name: str, inside: Path, kedge):
    code, out, err = kedge("show", name, "--json")
    assert code == 0, err
    assert json.loads(out)


@pytest.mark.parametrize(
    ("name", "kind", "holds"),
    [("safety", "taxonomy", "look_alikes:"), ("general", "skill", "tool_use:"), ("refusals", "phrase", "phrases:")],
)
def test_show_describes_what_measures_read(catalog, kedge, name: str, kind: str, holds: str):
    code, out, err = kedge("show", name, "--json")
    assert code == 0, err
    (found,) = [item for item in json.loads(out) if item["kind"] == kind]
    assert found["name"] == name and found["file"].endswith(f"{name}.yaml") and holds in found["text"]
    code, out, _ = kedge("show", "taxonomies" if kind == "taxonomy" else f"{kind}s", "--json")
    assert name in {item["name"] for item in json.loads(out)}


def test_a_projects_own_skills_and_taxonomies_are_shown_and_phrases_are_the_shipped_ones(catalog, kedge):
    for kind in ("taxonomies", "skills", "phrases"):
        (catalog.project.catalogs / kind).mkdir()
        (catalog.project.catalogs / kind / "ours.yaml").write_text("{}\n")
    listed = {kind: [item["name"] for item in json.loads(kedge("show", kind, "--json")[1])]
              for kind in ("taxonomies", "skills", "phrases")}  # fmt: skip
    assert listed["taxonomies"] == ["ours", "safety"] and listed["skills"] == ["general", "ours"]
    assert "ours" not in listed["phrases"], "no measure reads phrases of a project"


def test_show_proposes_a_close_name(inside: Path, kedge):
    code, _, err = kedge("show", "adition")
    assert code == 2
    assert "did you mean 'addition'" in err


def test_rebuild_makes_the_same_index_again(inside: Path, kedge):
    query = "SELECT kind, name, fingerprint FROM manifests ORDER BY ALL"
    before = kedge("sql", query, "--json")[1]
    (inside / "lake" / "catalog.duckdb").unlink()
    assert kedge("rebuild")[0] == 0
    assert kedge("sql", query, "--json")[1] == before
    assert kedge("doctor")[0] == 0


def test_the_quickstart_can_be_walked_again_and_does_nothing_twice(quickstart: Path):
    from curation import cli
    from curation.quickstart import journey

    weights = sorted((quickstart / "lake" / "runs").rglob("*.safetensors"))
    times = [path.stat().st_mtime_ns for path in weights]
    journey.prepare(quickstart)
    journey.walk(quickstart, cli.run)
    assert [path.stat().st_mtime_ns for path in weights] == times
    assert sorted((quickstart / "lake" / "runs").rglob("*.safetensors")) == weights


def test_the_trained_skill_rises_and_the_skill_left_out_regresses(inside: Path, kedge):
    code, out, _ = kedge("drift", "mid", "--json")
    assert code == 0
    first = {item["benchmark"]: item for item in json.loads(out)["comparisons"] if item["against"] == "start"}
    assert first["addition"]["score_a"] < 0.05 and first["addition"]["score_b"] > 0.5
    code, out, _ = kedge("drift", "sft", "--json")
    report = json.loads(out)
    last = {item["benchmark"]: item for item in report["comparisons"] if item["b"] == report["last"]
            and item["against"] == "start"}  # fmt: skip
    assert code == 1
    assert (last["reversal"]["verdict"], last["reversal"]["direction"]) == ("FAIL", "regressed")
    assert last["addition"]["verdict"] == "PASS"


def test_the_drift_report_is_three_files_and_the_same_bytes_again(inside: Path, kedge, tmp_path: Path):
    for name in ("a", "b"):
        assert kedge("drift", "sft", "--to", tmp_path / name)[0] == 1
    for name in ("report.html", "report.md", "drift.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    page = (tmp_path / "a" / "report.html").read_text()
    for expected in ("Right before, lost now", "Probes, never gated", "share of trained tokens", "same template"):
        assert expected in page
    assert "| reversal |" in (tmp_path / "a" / "report.md").read_text()


def test_both_skills_are_scored_for_every_checkpoint(inside: Path, kedge):
    _, out, _ = kedge("sql", "SELECT benchmark, avg(score) AS score, count(*) AS n FROM scores GROUP BY ALL", "--json")
    assert {row["benchmark"] for row in json.loads(out)} == {"addition", "reversal"}
