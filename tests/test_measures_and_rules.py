"""Every measure keeps its contract; rules give reasons; only what is missing is measured."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation import cli, registry, schema
from curation.catalog import Catalog
from curation.config import find_project
from curation.ingest import ingest
from curation.measures import JoinMeasure, PartMeasure
from curation.measuring import ensure, named, signal_parts
from curation.rule_effects import effects
from tests.lakes import conversation, make_project

GOLD = {"ground_truth": "4"}
STAGES = {
    "midtrain": [{"text": "A page."}, {"text": "é" * 10}],
    "sft": [json.loads(conversation("2+2?", "<think>sum</think>4")), json.loads(conversation("Hi", ""))],
    "preference": [{"prompt": "2+2?", "chosen": "4", "rejected": "five"},
                   {"prompt": "Hi", "chosen": "Hello", "rejected": ""}],
    "rlvr": [{"data_source": "m", "prompt": [{"role": "user", "content": "2+2?"}], "reward_model": GOLD}],
}  # fmt: skip


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small source per stage, named like it."""
    root = tmp_path_factory.mktemp("ingested")
    (root / "kedge.yaml").write_text("tokenizers: {}\n")
    with contextlib.chdir(root):
        for stage, records in STAGES.items():
            Path(f"{stage}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
            assert cli.run(["add", f"{stage}.jsonl", "--stage", stage]) == 0
    return root


@pytest.fixture
def staged(ingested: Path, catalog: Catalog) -> Catalog:
    """A copy of the ingested project to write in."""
    shutil.copytree(ingested, catalog.project.root, dirs_exist_ok=True)
    return catalog


def measures(catalog: Catalog, tiny_model: Path) -> list:
    from curation.measures.anatomy import anatomy_for

    rendered = {"anatomy": ("trl_assistant", "sft"), "pair_anatomy": ("trl_prompt_completion", "preference"),
                "prompt_anatomy": ("whole", "rlvr")}  # fmt: skip
    found = []
    for name in registry.entries("measures"):
        path, stage = rendered.get(name, ("", ""))
        found.append(anatomy_for(catalog.project, str(tiny_model), "chatml", path, {}, stage) if path else named(name))
    return found


def test_every_measure_returns_its_columns_row_by_row_and_the_same_again(staged: Catalog, tiny_model: Path):
    seen: list[tuple[str, str]] = []
    for measure in measures(staged, tiny_model):
        seen += [(stage, name) for stage in measure.stages for name in measure.columns.names]
        ensure(staged, measure)
        for stage in measure.stages:
            parts = signal_parts(staged, measure, stage)
            assert parts is not None, (measure.plugin_name(), stage)
            rows_folder, rows = staged.source(stage)
            for part, of in zip(parts, rows.parts, strict=True):
                assert part.name == of.name
                table = pq.read_table(part)
                assert table.schema.names == ["row_id", *measure.columns.names]
                assert table["row_id"].to_pylist() == pq.read_table(rows_folder / of.name)["row_id"].to_pylist()
                if isinstance(measure, PartMeasure):
                    read = pq.read_table(rows_folder / of.name, columns=list(measure.reads(stage)))
                    again = pa.concat_tables([measure.measure(read.slice(n, 1), stage) for n in range(read.num_rows)])
                    assert again.equals(table.drop_columns("row_id").cast(again.schema)), "a row depends on others"
                    whole = [measure.measure(read, stage) for _ in range(2)]
                    assert whole[0].equals(whole[1]), "not the same twice"
                    assert whole[0].schema.equals(measure.columns), "columns or types differ from those declared"
                    assert read.equals(pq.read_table(rows_folder / of.name, columns=read.column_names))
    assert len(seen) == len(set(seen)), "two measures of one stage share a column"
    kinds = {measure.evidence_kind for measure in measures(staged, tiny_model) if isinstance(measure, JoinMeasure)}
    assert not kinds & set(registry.entries("measures")), "the views of a measure and of evidence share a name"


def test_measures_are_part_or_join_measures_with_a_fingerprint_that_follows_the_configuration(catalog, tiny_model):
    for measure in measures(catalog, tiny_model):
        assert isinstance(measure, PartMeasure | JoinMeasure)
        assert measure.version >= 1 and set(measure.stages) <= set(schema.STAGES)
    from curation.measures.anatomy import anatomy_for

    plain, other = (
        anatomy_for(catalog.project, str(tiny_model), "chatml", path, {}) for path in ("whole", "trl_assistant")
    )
    assert plain.fingerprint() != other.fingerprint()


def test_text_statistics_count_code_points_words_and_turns(staged: Catalog):
    measure = named("text_statistics")
    ensure(staged, measure)
    values = {stage: pq.read_table(signal_parts(staged, measure, stage)[0]).to_pylist() for stage in STAGES}
    assert values["midtrain"][1]["chars"] == 10 and values["midtrain"][1]["words"] == 1
    first, second = values["sft"]
    assert (first["turns"], first["prompt_chars"], first["answer_chars"]) == (2, 4, 19)
    assert second["answer_chars"] == 0
    assert [row["answer_chars"] for row in values["preference"]] == [1, 5], "the chosen side"


def test_only_what_is_missing_is_measured(staged: Catalog, kedge):
    code, out, err = kedge("measure", "sft", "--only", "text_statistics")
    assert code == 0 and "measuring text_statistics of sft" in err
    code, out, err = kedge("measure")
    assert "text_statistics: midtrain, preference, rlvr" in out.replace("\n", " ") and "classifier" not in out
    before = {path: path.stat().st_mtime_ns for path in (staged.lake / "signals").rglob("*")}
    code, out, err = kedge("measure", "--json")
    told = json.loads(out)
    assert {"text_statistics", "exact_duplicates", "phrases"} <= set(told) and not any(told.values())
    assert "measuring" not in err
    assert {path: path.stat().st_mtime_ns for path in (staged.lake / "signals").rglob("*")} == before
    code, _, err = kedge("measure", "sfd")
    assert code == 2 and "did you mean 'sft'" in err
    code, _, err = kedge("measure", "--only", "text_statistic")
    assert code == 2 and "did you mean 'text_statistics'" in err


def test_the_representative_of_duplicates_is_never_the_one_that_came_first(catalog: Catalog, kedge):
    line = conversation("same?", "yes")
    for name in ("zebra", "aardvark"):
        Path(f"{name}.jsonl").write_text(line)
        assert kedge("add", f"{name}.jsonl")[0] == 0
    ensure(catalog, named("exact_duplicates"))
    rank = {name: pq.read_table(signal_parts(catalog, named("exact_duplicates"), name)[0])["duplicate_rank"].to_pylist()
            for name in ("zebra", "aardvark")}  # fmt: skip
    assert rank == {"zebra": [1], "aardvark": [0]}
    evidence = catalog.latest("evidence", "duplicates")
    assert evidence is not None
    table = pq.read_table(evidence[0] / "part-00000.parquet")
    assert table["representative_source"].to_pylist() == ["aardvark"]


SHIPPED = {
    "empty_answer": ("", "the answer is empty"),
    "unclosed_think": ("<think>and so on", "a think block opens and never closes"),
    "template_leftover": ("Dear {{ name }}", "the answer holds a placeholder such as {{name}}"),
}


@pytest.mark.parametrize("rule", SHIPPED)
def test_a_shipped_rule_leaves_out_its_row_with_a_reason(catalog: Catalog, kedge, rule: str):
    answer, reason = SHIPPED[rule]
    lines = [conversation("a?", answer), conversation("b?", "fine"), conversation("c?", "<think>x</think>fine {brace}")]
    Path("a.jsonl").write_text("".join(lines))
    assert kedge("add", "a.jsonl")[0] == 0
    found = {item["rule"]: item for item in effects(catalog)}
    assert (found[rule]["caught"], found[rule]["alone"], found[rule]["example"]) == (1, 1, reason)
    assert sum(item["caught"] for item in found.values() if item["adopted"]) == 1
    _, out, _ = kedge("sql", "SELECT row_id::VARCHAR AS id FROM verdicts", "--json")
    code, out, _ = kedge("why", json.loads(out)[0]["id"])
    assert code == 0 and f"left out by {rule}: {reason}" in out


def rule(text: str, header: str = "stage: sft\nneeds: [text_statistics]\n") -> None:
    Path("catalogs/rules").mkdir(exist_ok=True)
    Path("catalogs/rules/mine.sql").write_text(f"/* ---\n{header}--- */\n{text}")


def test_a_rule_of_ones_own_moves_with_its_file_and_measures_nothing_again(staged: Catalog, kedge):
    rule("SELECT row_id, 'only ' || chars || ' chars' AS reason FROM signals WHERE chars < 5")
    assert {item["caught"] for item in effects(staged) if item["rule"] == "mine"} == {1}
    before = {path: path.stat().st_mtime_ns for path in (staged.lake / "signals").rglob("*.parquet")}
    rule("SELECT row_id, 'only ' || chars || ' chars' AS reason FROM signals WHERE chars < 500")
    (item,) = [item for item in effects(staged) if item["rule"] == "mine"]
    assert (item["caught"], item["example"]) == (2, "only 2 chars")
    assert {path: path.stat().st_mtime_ns for path in (staged.lake / "signals").rglob("*.parquet")} == before


def test_a_rule_that_is_not_adopted_is_shown_and_removes_nothing(staged: Catalog, kedge):
    rule("SELECT row_id, 'any' AS reason FROM signals", "stage: sft\nadopted: false\n")
    (item,) = [item for item in effects(staged) if item["rule"] == "mine"]
    assert (item["adopted"], item["caught"]) == (False, 2)
    Path("catalogs/mixtures").mkdir()
    Path("catalogs/mixtures/m.sql").write_text("/* ---\nstage: sft\n--- */\nSELECT * FROM kept")
    code, out, _ = kedge("mix", "show", "m", "--json")
    assert code == 0 and json.loads(out)["num_rows"] == 1, "the empty answer alone is left out"
    _, out, _ = kedge("sql", "SELECT DISTINCT rule FROM verdicts", "--json")
    assert json.loads(out) == [{"rule": "empty_answer"}], "verdicts are those of adopted rules"
    _, out, _ = kedge("sql", "SELECT row_id::VARCHAR AS id FROM rows_sft WHERE line = 1", "--json")
    code, out, _ = kedge("why", json.loads(out)[0]["id"])
    assert code == 0 and "no adopted rule leaves it out" in out


def test_verdicts_of_a_rule_whose_file_is_gone_are_not_told(staged: Catalog, kedge):
    rule("SELECT row_id, 'any' AS reason FROM signals")
    effects(staged)
    count = "SELECT count(*) AS n FROM verdicts WHERE rule = 'mine'"
    assert json.loads(kedge("sql", count, "--json")[1]) == [{"n": 2}]
    Path("catalogs/rules/mine.sql").unlink()
    assert json.loads(kedge("sql", count, "--json")[1]) == [{"n": 0}]


def test_a_rule_may_end_in_a_comment_and_have_a_quote_in_its_name(staged: Catalog, kedge):
    Path("catalogs/rules").mkdir()
    query = "SELECT row_id, 'second' AS reason FROM signals WHERE line = 2; -- the; second"
    Path("catalogs/rules/it's.sql").write_text(f"/* ---\nstage: all\n--- */\n{query}")
    found = {(item["source"], item["example"]) for item in effects(staged) if item["rule"] == "it's"}
    assert found == {(stage, "second") for stage in ("midtrain", "sft", "preference")}


def test_a_project_can_skip_a_shipped_rule(staged: Catalog):
    Path("kedge.yaml").write_text("skip_rules: [empty_answer]\n")
    found = {item["rule"]: item["adopted"] for item in effects(Catalog(find_project()))}
    assert found["empty_answer"] is False and found["exact_duplicate"] is True


@pytest.mark.parametrize(("text", "header", "expected"), [
    ("SELECT row_id, 'x' AS reason\nFROM signals\nWHERE charz < 5", "stage: sft\nneeds: [text_statistics]\n",
     "mine.sql:7"),
    ("SELECT row_id FROM signals", "stage: sft\n", "no column reason"),
    ("SELECT row_id, 'x' AS reason FROM", "stage: sft\n", "mine.sql"),
    ("SELECT row_id, 'x' AS reason FROM signals", "stage: sfd\n", "stage"),
    ("SELECT row_id, 'x' AS reason FROM signals", "stage: sft\nadoptd: true\n", "did you mean 'adopted'"),
    ("SELECT row_id, 'x' AS reason FROM signals", "stage: sft\nneeds: [lenght]\n", "mine.sql: measures: there is no"),
    ("SELECT row_id, 'x' AS reason FROM signals", "stage: sft\nneeds: [anatomy]\n", "the measure 'anatomy' needs"),
    ("SELECT row_id, 'x' AS reason FROM signals", "stage: []\n", "mine.sql:2: stage"),
    ("DROP TABLE rows", "stage: sft\n", "exactly one SELECT"),
    ("SELECT row_id, nullif(source, 'sft') AS reason FROM signals", "stage: sft\n", "2 rows are left out without a"),
    ("SELECT content_hash AS row_id, 'x' AS reason FROM signals", "stage: sft\n", "2 values are ids of no row"),
    ("SELECT source AS row_id, 'x' AS reason FROM signals", "stage: sft\n", "Could not convert string 'sft' to UUID"),
    ("SELECT row_id, 'x' AS reason FROM signals WHERE random() > 2", "stage: sft\n", "mine.sql:4: random() gives"),
    ("SELECT row_id, 'x' AS reason FROM signals, read_csv('/etc/passwd')", "stage: sft\n", "Cannot access file"),
])  # fmt: skip
def test_a_rule_with_a_mistake_is_one_clear_error(staged, kedge, text: str, header: str, expected: str):
    rule(text, header)
    code, _, err = kedge("rules")
    assert code == 2
    assert expected in err and "Traceback" not in err


def test_a_stage_that_is_named_twice_is_judged_once(staged: Catalog):
    rule("SELECT row_id, 'x' AS reason FROM signals", "stage: [sft, sft]\n")
    assert [item["caught"] for item in effects(staged) if item["rule"] == "mine"] == [2]


def test_the_name_of_held_out_verdicts_is_taken(staged: Catalog, kedge):
    rule("SELECT row_id, 'x' AS reason FROM signals")
    Path("catalogs/rules/mine.sql").rename("catalogs/rules/held_out.sql")
    code, _, err = kedge("rules")
    assert code == 2 and "held_out.sql: the name 'held_out' is taken" in err


def test_bad_rows_are_removed_by_several_rules_and_each_is_named(catalog: Catalog, kedge):
    root = make_project(Path.cwd() / "inner")
    inner = Catalog(find_project(root))
    for source in ("one", "two"):
        ingest(inner, source)
    found = [item for item in effects(inner) if item["caught"]]
    assert {item["rule"] for item in found} == {"exact_duplicate", "held_out"}
    total = sum(item["caught"] for item in found)
    alone = sum(item["alone"] for item in found)
    assert 0 < alone <= total
    parts = [folder / part.name for folder, manifest in inner.manifests("verdicts") for part in manifest.parts]
    reasons = [reason for part in parts for reason in pq.read_table(part)["reason"].to_pylist()]
    assert len(reasons) == total and all(reasons)
