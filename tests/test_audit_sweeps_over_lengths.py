"""`kedge audit` of a mixture or a file without a length: what each length keeps, and what to set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curation.auditing.audit import mirror_for
from curation.auditing.case import Case
from curation.auditing.sweep import sweep
from tests import REAL_DATA


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """One hundred conversations: thoughts of 10 to 1,000 repeats, so that lengths spread over the sweep."""
    path = tmp_path / "rows.jsonl"
    with path.open("w") as stream:
        for number in range(100):
            thought = f"<think>{'12+3 ' * (10 * (number + 1))}</think>"
            turns = [{"role": "user", "content": f"{number}?"}, {"role": "assistant", "content": thought + "fifteen"}]
            stream.write(json.dumps({"messages": turns}) + "\n")
    return path


def test_a_longer_context_never_keeps_less_and_the_proposal_is_the_smallest(rows: Path, tiny_model: Path, kedge):
    code, out, err = kedge("audit", rows, "--tokenizer", tiny_model, "--json")
    assert code == 0, err
    made = json.loads(out)
    entries = made["lengths"]
    assert [entry["max_length"] for entry in entries] == [512, 1024, 2048, 4096, 8192][: len(entries)]
    for name in ("rows_whole", "answers_kept", "think_closed_after", "kept_trained_tokens"):
        values = [entry[name] for entry in entries]
        assert values == sorted(values), name
    assert entries[-1]["rows_whole"] == 100
    assert entries[-1]["failed"] == ["R3"], "nothing is cut, but the tiny model has fewer positions"
    assert {"A1", "A2", "A5"} <= set(entries[0]["failed"])
    proposal = made["proposals"]["answers"]
    for length, passes in ((proposal, True), (proposal - 1, False)):
        _, out, _ = kedge("audit", rows, "--tokenizer", tiny_model, "--max-length", length, "--json")
        (everything,) = [item for item in json.loads(out)["sources"] if item["source"] == "all"]
        assert (everything["answers_kept"] >= 99) is passes


def test_a_sweep_agrees_with_the_audit_at_each_length(rows: Path, tiny_model: Path, kedge):
    _, out, _ = kedge("audit", rows, "--tokenizer", tiny_model, "--json")
    for entry in json.loads(out)["lengths"]:
        code, out, _ = kedge("audit", rows, "--tokenizer", tiny_model, "--max-length", entry["max_length"], "--json")
        audit = json.loads(out)
        (everything,) = [item for item in audit["sources"] if item["source"] == "all"]
        assert {name: entry[name] for name in everything if name != "source"} == {
            name: value for name, value in everything.items() if name != "source"}  # fmt: skip
        assert [check["id"] for check in audit["checks"] if check["level"] == "error"] == entry["failed"]
        assert (code == 1) == bool(entry["failed"])


def test_a_mixture_is_swept_and_published_and_nothing_is_tokenised_twice(rows: Path, tiny_model, catalog, kedge,
                                                                         monkeypatch):  # fmt: skip
    from curation.rendering import Rendering

    Path("kedge.yaml").write_text(f"tokenizers: {{tiny: {tiny_model}}}\n")
    assert kedge("add", rows)[0] == 0
    Path("catalogs/mixtures").mkdir()
    Path("catalogs/mixtures/m.sql").write_text(
        "/* ---\nstage: sft\ntokenizer: tiny\ntemplate: chatml\n--- */\nFROM kept"
    )
    assert kedge("mix", "build", "m")[0] == 0
    code, out, err = kedge("audit", "m", "--to", "report")
    assert code == 0, err
    assert "measuring anatomy of the mixture m" in err
    assert "keeps 99 % of the answers of every source" in out and "report: report/report.html" in out
    page = Path("report/report.html").read_text()
    assert "<svg" in page and "Answers kept, by source" in page and "<script" not in page
    monkeypatch.setattr(Rendering, "render_many", None)
    code, again, err = kedge("audit", "m")
    assert code == 0 and "measuring" not in err
    assert again.splitlines()[:-1] == out.splitlines()[:-1]
    published = [manifest for _, manifest in catalog.manifests("sweeps")]
    assert [manifest.name for manifest in published] == ["m"]


def test_what_a_sweep_needs_is_asked_for(rows: Path, tmp_path: Path, kedge, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = kedge("audit", rows)
    assert code == 2 and "needs --tokenizer" in err
    (tmp_path / "kedge.yaml").write_text("")
    code, _, err = kedge("audit", "nothing")
    assert code == 2 and "there is no run, mixture or file 'nothing'" in err


@pytest.mark.real_data
def test_the_sky_t1_traces_need_nearly_four_thousand_tokens(kedge):
    path = REAL_DATA / "reasoning" / "sky_t1_5k_27b_math500.jsonl.gz"
    code, out, _ = kedge("audit", path, "--tokenizer", REAL_DATA / "tokenizers" / "qwen2.5", "--json")
    made = json.loads(out)
    kept = {entry["max_length"]: entry["answers_kept"] for entry in made["lengths"]}
    assert code == 0
    assert kept[512] < kept[1024] < kept[2048] < kept[4096] == kept[8192]
    assert 2048 < made["proposals"]["answers"] < 4096


def test_a_mixture_without_answers_proposes_nothing(tiny_model: Path):
    import pyarrow as pa

    from curation.measures.anatomy import anatomy_for
    from curation.schema import MESSAGES

    anatomy = anatomy_for(None, str(tiny_model), "chatml", "trl_assistant", {})
    turns = [[{"role": "user", "content": "only asked"}]] * 3
    table = pa.table({"messages": pa.array(turns, MESSAGES), "tools": pa.nulls(3, pa.string())})
    rows = pa.table({"source": ["s"] * 3})
    made = sweep(Case("x", "sft", rows, anatomy.measure(table, "sft"), mirror_for("trl_sft", {})))
    assert made.proposals["answers"] is None and made.proposals["thoughts"] is None
