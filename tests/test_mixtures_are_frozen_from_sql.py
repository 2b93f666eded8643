"""Mixtures: takes never fail in silence, previews, freezing in training order, lineage, held-out splits."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curation import cli
from curation.catalog import Catalog
from curation.config import find_project
from curation.errors import GateFailed, UserError
from curation.mixtures import build, find_frozen, preview
from curation.rules import load_rules
from tests.lakes import conversation, lake_bytes

HEADER = "/* ---\nstage: sft\n{more}--- */\n"


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`big` with 60 rows of which 5 repeat and 5 have an empty answer, `small` with 20, `pages` of mid-training."""
    root = tmp_path_factory.mktemp("ingested")
    lines = [conversation(f"big {n}?", "answer " * (n % 7 + 1)) for n in range(50)]
    lines += lines[:5] + [conversation(f"empty {n}?", "") for n in range(5)]
    (root / "big.jsonl").write_text("".join(lines))
    (root / "small.jsonl").write_text("".join(conversation(f"small {n}?", "yes") for n in range(20)))
    (root / "pages.jsonl").write_text("".join(json.dumps({"text": f"page {n}"}) + "\n" for n in range(4)))
    (root / "kedge.yaml").write_text("tokenizers: {}\n")
    with contextlib.chdir(root):
        assert [cli.run(["add", f"{name}.jsonl"]) for name in ("big", "small", "pages")] == [0, 0, 0]
        assert cli.run(["rules"]) == 0
    return root


@pytest.fixture
def lake(ingested: Path, catalog: Catalog) -> Catalog:
    """A copy of the ingested project to write in."""
    shutil.copytree(ingested, catalog.project.root, dirs_exist_ok=True)
    Path("catalogs/mixtures").mkdir()
    return catalog


def write(query: str, more: str = "", name: str = "m") -> None:
    Path(f"catalogs/mixtures/{name}.sql").write_text(HEADER.format(more=more) + query)


def rows(mixture) -> list[dict]:
    return [row for part in mixture.train for row in pq.read_table(part).to_pylist()]


def test_a_preview_counts_what_is_offered_refused_and_left_over(lake, kedge):
    write("SELECT * FROM take_rows('big', 30, seed := 1)")
    seen = preview(lake, "m")
    big = seen["sources"]["big"]
    assert (seen["num_rows"], seen["frozen"], big["offered"], big["left_over"]) == (30, False, 50, 20)
    assert big["refused"] == {"empty_answer": 5, "exact_duplicate": 5}
    small = seen["sources"]["small"]
    assert (small["rows"], small["offered"], small["refused"], small["left_over"]) == (0, 20, {}, 20)
    assert not (lake.lake / "mixtures").exists()
    code, out, _ = kedge("mix", "show", "m")
    assert (
        code == 0 and "big: refused 5 by empty_answer, 5 by exact_duplicate" in out and "next: kedge mix build m" in out
    )


@pytest.mark.parametrize(("query", "expected"), [
    ("SELECT * FROM take_rows('bigg', 3)", "did you mean 'big'"),
    ("SELECT * FROM take_rows('pages', 3)", "holds midtrain rows"),
    ("SELECT * FROM take_weighted(MAP {'big': 0.5, 'smal': 0.5}, rows := 4)", "did you mean 'small'"),
    ("SELECT * FROM take_weighted(MAP {'big': 1.0})", "exactly one of rows, tokens and trained_tokens"),
    ("SELECT * FROM take_tokens('big', 100)", "add tokenizer"),
    ("SELECT *\nFROM kept\nWHERE no_such_column > 1", "m.sql:6"),
    ("SELECT * FROM", "m.sql:4"),
    ("DELETE FROM kept", "exactly one SELECT"),
    ("SELECT source FROM kept", "no column 'row_id'"),
    ("SELECT * FROM kept WHERE false", "the query returns no rows"),
    ("SELECT row_id FROM rows_sft", "are not kept rows of this stage"),
    ("FROM take_rows('big', 3) UNION ALL BY NAME FROM take_rows('big', 3)", "come twice in one epoch"),
    ("SELECT * FROM take_rows('big', -3)", "less than nothing"),
    ("SELECT * FROM take_epochs('big', 1001)", "more than 1,000 times the 50"),
    ("SELECT * FROM read_csv('/etc/passwd')", "m.sql:4: Cannot access file"),
    ("SELECT *\nFROM kept,\n  take_rows('smal', 3)", "m.sql:6: there is no source 'smal'; did you mean 'small'"),
    ("SELECT *\nFROM take_rows('small', 3, sed := 1)", "m.sql:5: Macro take_rows() does not support"),
    ("SELECT * FROM take_rowz('small', 3)", "m.sql:4: Table Function with name take_rowz does not exist"),
    ("SELECT * FROM take_rows('small', NULL)", "m.sql:4: a take needs an amount"),
    ("SELECT * FROM take_rows('small', 1e400)", "a take needs an amount"),
    ("SELECT * FROM take_rows('small', 0.5)", "a take of 0.5 is no whole number"),
    ("SELECT * FROM take_epochs('small', NULL)", "a take needs an amount"),
    ("SELECT * FROM take_weighted(MAP {'big': 0.0}, rows := 4)", "weights that are not below zero, and one above it"),
    ("SELECT * FROM take_weighted(MAP {'big': 2, 'small': -1}, rows := 4)", "weights that are not below zero"),
    ("SELECT * FROM take_weighted(MAP {'big': 2, 'small': NULL}, rows := 4)", "weights that are not below zero"),
    ("SELECT * FROM kept\nWHERE random() < 0.5", "m.sql:5: random() gives other rows at each run"),
    ("SELECT * FROM kept WHERE now() > '2020-01-01'", "now() gives other rows"),
    ("SELECT * FROM kept WHERE current_date IS NULL", "current_date gives other rows"),
    ("SELECT * FROM take_rows('big', 9) TABLESAMPLE 50%", "a sample gives other rows at each run"),
    ("SELECT * FROM query('FROM take_rows(''small'', 99)')", "m.sql:4: query() hides what it reads"),
    ("SELECT 'x' AS row_id", "m.sql: Could not convert string 'x' to UUID"),
])  # fmt: skip
def test_a_mixture_with_a_mistake_is_one_clear_error(lake, kedge, query: str, expected: str):
    write(query)
    for command in ("show", "build"):
        code, _, err = kedge("mix", command, "m")
        assert code == 2, err
        assert expected in err and "catalogs/mixtures/m.sql" in err and "Traceback" not in err
    assert not list((lake.lake / "mixtures").rglob("manifest.json"))


@pytest.mark.parametrize(("header", "expected"), [
    ("tokenzer: x\n", "did you mean 'tokenizer'"), ("on_shortfall: ignore\n", "on_shortfall"),
    ("needs: [text_statistic]\n", "did you mean 'text_statistics'"),
])  # fmt: skip
def test_a_header_with_a_mistake_is_one_clear_error(lake, kedge, header: str, expected: str):
    write("SELECT * FROM kept", header)
    code, _, err = kedge("mix", "build", "m")
    assert code == 2 and expected in err and "Traceback" not in err


def test_a_shortfall_fails_unless_the_header_accepts_or_repeats_it(lake, kedge):
    query = "SELECT * FROM take_weighted(MAP {'big': 0.5, 'small': 0.5}, rows := 80, seed := 2)"
    write(query)
    assert preview(lake, "m")["short"][0]["source"] == "small"
    code, _, err = kedge("mix", "build", "m")
    assert code == 1 and "asks for 40 rows of 'small', which has 20" in err
    write(query, "on_shortfall: accept\n")
    assert Counter(row["source"] for row in rows(build(lake, "m"))) == {"big": 40, "small": 20}
    write(query, "on_shortfall: repeat\n")
    repeated = rows(build(lake, "m"))
    assert Counter(row["source"] for row in repeated) == {"big": 40, "small": 40}
    assert Counter(row["epoch"] for row in repeated if row["source"] == "small") == {0: 20, 1: 20}


@pytest.mark.parametrize("query", [
    "WITH a AS (SELECT * FROM take_rows('small', 21)) SELECT * FROM a",
    "SELECT * FROM kept WHERE row_id IN (SELECT row_id FROM TAKE_ROWS('small', (SELECT 21)))",
    "SELECT * FROM temp.take_rows(lower('SMALL'), n := 21) AS t",
    "SELECT * FROM take_rows('big', 1) UNION ALL BY NAME\n(SELECT * FROM \"take_rows\"('small', 21) LIMIT 3)",
])  # fmt: skip
def test_a_shortfall_is_found_wherever_the_take_stands(lake, kedge, query: str):
    write(query)
    code, _, err = kedge("mix", "build", "m")
    assert code == 1 and f"m.sql:{4 + query.count(chr(10))}: take_rows asks for 21 rows of 'small'" in err
    write(query, "on_shortfall: accept\n")
    assert build(lake, "m").num_rows >= 4


@pytest.mark.parametrize("ending", [";", " -- all of it", "; -- done; really", ";\n/* the; end */\n", ";;"])
def test_a_query_may_end_in_semicolons_and_comments(lake, ending: str):
    write("SELECT * FROM kept WHERE source <> ';' -- not this one;\nAND source = 'small'" + ending)
    assert preview(lake, "m")["num_rows"] == 20


def test_nothing_to_repeat_is_said_and_not_passed_over(lake, kedge):
    Path("none.jsonl").write_text(conversation("only?", ""))
    assert kedge("add", "none.jsonl")[0] == 0
    write("SELECT * FROM take_rows('none', 5) UNION ALL BY NAME SELECT * FROM take_rows('big', 5)",
          "on_shortfall: repeat\n")  # fmt: skip
    code, _, err = kedge("mix", "build", "m")
    assert code == 2 and "'none', and none is kept" in err


def test_epochs_above_one_are_whole_repeats_and_a_deterministic_remainder(lake):
    write("SELECT * FROM take_epochs('small', 2.25, seed := 4)")
    mixture = build(lake, "m")
    found = rows(mixture)
    assert Counter(row["epoch"] for row in found) == {0: 20, 1: 20, 2: 5}
    counts = mixture.manifest.counts["sources"]["small"]
    assert (counts["rows"], counts["distinct_rows"], counts["left_over"]) == (45, 20, 0)
    remainder = {row["row_id"] for row in found if row["epoch"] == 2}
    write("SELECT * FROM take_epochs('small', 0.25, seed := 4)", name="less")
    assert {row["row_id"] for row in rows(build(lake, "less"))} == remainder


def test_the_frozen_mixture_loads_with_plain_datasets(lake, kedge):
    import datasets

    write("SELECT * FROM take_rows('big', 30, seed := 1) UNION ALL BY NAME SELECT * FROM take_rows('small', 10)")
    mixture = build(lake, "m")
    loaded = datasets.load_dataset("parquet", data_files=[str(part) for part in mixture.train], split="train",
                                   cache_dir=str(lake.lake.parent / "cache"))  # fmt: skip
    assert loaded.num_rows == 40
    assert set(loaded.column_names) == {"row_id", "source", "epoch", "prompt_hash", "messages", "tools", "meta"}
    assert loaded[0]["messages"][0]["role"] == "user" and len(loaded[0]["row_id"]) == 32
    assert loaded["row_id"] == [row["row_id"] for row in rows(mixture)]


def test_the_training_order_is_a_hash_over_all_sources_and_follows_the_seed(lake):
    query = "SELECT * FROM take_rows('big', 40) UNION ALL BY NAME SELECT * FROM take_rows('small', 20)"
    write(query)
    first = [row["row_id"] for row in rows(build(lake, "m"))]
    write(query, "seed: 9\n", "other")
    second = [row["row_id"] for row in rows(build(lake, "other"))]
    assert first != second and sorted(first) == sorted(second)
    sources = [row["source"] for row in rows(build(lake, "m"))]
    assert len(set(sources[:20])) == 2, "sources are mixed"
    write(query, "needs: [text_statistics]\norder: [answer_chars]\n", "curriculum")
    lengths = [len(row["messages"][1]["content"]) for row in rows(build(lake, "curriculum"))]
    assert lengths == sorted(lengths)


def test_the_bytes_of_a_frozen_mixture_follow_from_its_inputs_alone(lake, kedge):
    write("SELECT * FROM take_weighted(MAP {'big': 0.7, 'small': 0.3}, rows := 40)")
    kinds = ("mixtures", "verdicts", "signals", "evidence")
    found = []
    for _ in range(2):
        for kind in kinds:
            shutil.rmtree(lake.lake / kind, ignore_errors=True)
        build(lake, "m")
        found.append(lake_bytes(Path.cwd(), *kinds))
    assert found[0] and found[0] == found[1]


def test_a_frozen_mixture_stays_until_its_file_or_sources_change(lake, kedge):
    write("SELECT * FROM take_rows('big', 30)")
    mixture = build(lake, "m")
    before = mixture.train[0].stat().st_mtime_ns
    assert build(lake, "m").train[0].stat().st_mtime_ns == before
    write("SELECT * FROM take_rows('big', 31)")
    with pytest.raises(UserError, match="is not frozen as its file and sources are now; run: kedge mix build m"):
        find_frozen(lake, "m")
    assert find_frozen(lake, f"m@{mixture.fingerprint[:8]}").num_rows == 30
    assert build(lake, "m").fingerprint != mixture.fingerprint


def unbound(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on a mixture's query may not be run."""
    monkeypatch.setattr("curation.mixtures._bind", lambda *_: pytest.fail("the query was run"))


def test_a_frozen_mixture_is_shown_from_its_manifest_and_just_as_before(lake, kedge, tiny_model, monkeypatch):
    Path("kedge.yaml").write_text(f"tokenizers: {{tiny: {tiny_model}}}\n")
    lake = Catalog(find_project())
    write("SELECT * FROM take_epochs('small', 1.5) UNION ALL BY NAME SELECT * FROM take_rows('big', 60)",
          "tokenizer: tiny\ntemplate: chatml\non_shortfall: accept\n")  # fmt: skip
    live = preview(lake, "m")
    assert (live["frozen"], live["frozen_at"], live["short"][0]["source"]) == (False, None, "big")
    assert live["coverage"]["skill"][0]["tokens"] > 0
    shown = kedge("mix", "show", "m")[1].splitlines()
    assert shown[-1].endswith("next: kedge mix build m")
    mixture = build(lake, "m")
    unbound(monkeypatch)
    frozen = preview(lake, "m")
    assert frozen == live | {"frozen": True, "frozen_at": lake.provenance(mixture.folder)["created_at"]}
    again = kedge("mix", "show", "m")[1].splitlines()
    assert again[:-1] == shown[:-1]
    assert f" UTC as {mixture.fingerprint[:12]}, and nothing it is made of changed" in again[-1]


CHANGES = {
    "the file": lambda: write("SELECT * FROM take_rows('big', 29)"),
    "a comment in the file": lambda: write("SELECT * FROM take_rows('big', 30) -- all"),
    "its header": lambda: write("SELECT * FROM take_rows('big', 30)", "seed: 4\n"),
    "a source": lambda: add_lines("big", conversation("more?", "yes")),
    "a source that it does not take": lambda: add_lines("small", conversation("more?", "yes")),
    "a held-out prompt of another stage": lambda: hold_out("pages"),
    "a rule": lambda: own_rule("SELECT row_id, 'odd' AS reason FROM signals WHERE source = 'big' AND line = 3"),
    "a skipped rule": lambda: Path("kedge.yaml").write_text("tokenizers: {}\nskip_rules: [empty_answer]\n"),
    "the order of sources": lambda: Path("kedge.yaml").write_text("tokenizers: {}\nsource_priority: [small]\n"),
}


def add_lines(source: str, text: str) -> None:
    with Path(f"{source}.jsonl").open("a") as stream:
        stream.write(text)
    assert cli.run(["add", source]) == 0


def hold_out(source: str) -> None:
    path = Path(f"catalogs/sources/{source}.yaml")
    path.write_text(path.read_text() + "held_out: 0.5\n")
    assert cli.run(["add", source]) == 0


def own_rule(query: str) -> None:
    Path("catalogs/rules").mkdir()
    Path("catalogs/rules/odd.sql").write_text(f"/* ---\nstage: sft\ndescription: Odd.\n--- */\n{query}\n")


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_a_frozen_mixture_is_made_of_changes_the_preview_is_live(lake, monkeypatch, change: str):
    write("SELECT * FROM take_rows('big', 30)")
    before = build(lake, "m").fingerprint
    CHANGES[change]()
    catalog = Catalog(find_project())
    seen = preview(catalog, "m")
    assert (seen["frozen"], seen["frozen_at"]) == (False, None) and seen["fingerprint"] != before
    big = seen["sources"]["big"]
    assert (big["offered"], "odd" in big["refused"], "empty_answer" in big["refused"]) == {
        "a source": (51, False, True), "a rule": (49, True, True), "a skipped rule": (55, False, False),
        }.get(change, (50, False, True))  # fmt: skip
    frozen = build(catalog, "m")
    unbound(monkeypatch)
    assert preview(catalog, "m") == seen | {
        "frozen": True,
        "frozen_at": catalog.provenance(frozen.folder)["created_at"],
    }


def test_lineage_and_counts_are_in_the_manifest(lake):
    write("SELECT * FROM take_rows('big', 30) UNION ALL BY NAME SELECT * FROM take_rows('small', 20)")
    manifest = build(lake, "m").manifest
    assert set(manifest.inputs["sources"]) == {"big", "small"}
    assert set(manifest.inputs["rules"]) == {rule.name for rule in load_rules(lake, "sft")}
    assert {"empty_answer", "exact_duplicate", "contaminated"} <= set(manifest.inputs["rules"])
    takes = [
        (item["source"], item["requested"], item["offered"], item["delivered"]) for item in manifest.counts["takes"]
    ]
    assert takes == [("big", 30, 50, 30), ("small", 20, 20, 20)]
    text = (build(lake, "m").folder / "mixture.sql").read_text()
    assert "take_rows('big', 30)" in text
    assert str(Path.cwd()) not in manifest.model_dump_json(), "a manifest holds no paths"
    big = manifest.counts["sources"]["big"]
    assert (big["rows"], big["offered"], big["left_over"]) == (30, 50, 20)
    assert big["refused"] == {"empty_answer": 5, "exact_duplicate": 5}


def test_held_out_prompts_are_frozen_beside_the_mixture_and_never_trained_on(lake, kedge):
    Path("held.jsonl").write_text("".join(conversation(f"held {n}?", "yes") for n in range(300)))
    copies = "".join(conversation(f"HELD  {n}?", "no") for n in range(300))
    Path("copies.jsonl").write_text(copies)
    assert kedge("add", "held.jsonl", "--held-out", "0.2")[0] == 0
    assert kedge("add", "copies.jsonl")[0] == 0
    write("SELECT * FROM kept WHERE source IN ('held', 'copies')")
    mixture = build(lake, "m")
    held = [row for part in mixture.held_out for row in pq.read_table(part).to_pylist()]
    assert 30 < len(held) < 90 and {row["source"] for row in held} == {"held"}
    trained = {row["prompt_hash"] for row in rows(mixture)}
    assert not trained & {row["prompt_hash"] for row in held}
    assert len(rows(mixture)) == 600 - 2 * len(held), "the same prompt is left out of every source"
    assert mixture.manifest.counts["held_out_rows"] == len(held)


def test_token_budgets_are_counted_under_the_headers_template(lake, tiny_model: Path):
    Path("kedge.yaml").write_text(f"tokenizers: {{tiny: {tiny_model}}}\n")
    again = Catalog(find_project())
    write("SELECT * FROM take_tokens('big', 500, seed := 3)", "tokenizer: tiny\ntemplate: chatml\n")
    seen = preview(again, "m")
    (take,) = seen["takes"]
    assert take["unit"] == "tokens" and 400 < take["delivered"] <= 500 < take["offered"]
    assert seen["tokens"] == take["delivered"]
    write("SELECT * FROM take_weighted(MAP {'big': 0.7, 'small': 0.3}, tokens := 600)",
          "tokenizer: tiny\ntemplate: chatml\n")  # fmt: skip
    delivered = {item["source"]: item["delivered"] for item in preview(again, "m")["takes"]}
    assert 360 < delivered["big"] <= 420 and 120 < delivered["small"] <= 180


def test_a_template_that_raises_and_a_tokenizer_without_its_tokens_are_clear_errors(lake, kedge, tiny_model: Path):
    Path("kedge.yaml").write_text(f"tokenizers: {{tiny: {tiny_model}}}\n")
    Path("catalogs/templates").mkdir()
    Path("catalogs/templates/angry.jinja").write_text("{{ raise_exception('no systems here') }}")
    Path("catalogs/templates/foreign.jinja").write_text(
        "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>{{ m.content }}<|eot_id|>{% endfor %}"
    )
    write("SELECT * FROM take_rows('big', 30)")
    assert kedge("mix", "build", "m")[0] == 0
    Path("catalogs/runs").mkdir()
    for template, expected in (
        ("angry", "no systems here"),
        ("foreign", "<|eot_id|>"),
        ("chatl", "did you mean 'chatml'"),
    ):
        run = {"trainer": {"name": "trl_sft", "max_length": 512}, "mixture": "m", "base": str(tiny_model),
               "template": template}  # fmt: skip
        Path("catalogs/runs/r.yaml").write_text(json.dumps(run))
        code, out, err = kedge("audit", "r")
        assert code in (1, 2) and expected in out + err and "Traceback" not in err, template


def test_weights_are_shares_of_one_budget(lake):
    write("SELECT * FROM take_weighted(MAP {'big': 3, 'small': 1}, rows := 40)")
    counts = Counter(row["source"] for row in rows(build(lake, "m")))
    assert counts == {"big": 30, "small": 10}
    write("SELECT * FROM take_weighted(MAP {'big': 0.71::DOUBLE, 'small': 0.29::DOUBLE}, rows := 100)",
          "on_shortfall: repeat\n", "binary")  # fmt: skip
    counts = preview(lake, "binary")["sources"]
    assert (counts["big"]["rows"], counts["small"]["rows"]) == (71, 29), "a binary fraction costs no row"
    write("SELECT * FROM take_weighted(MAP {'big': 0.5, 'small': 0.25}, rows := 31)", name="odd")
    assert sum(Counter(row["source"] for row in rows(build(lake, "odd"))).values()) == math.floor(31 * 2 / 3) + 31 // 3


def test_a_shortfall_is_a_gate_and_not_a_crash(lake):
    write("SELECT * FROM take_rows('small', 21)")
    with pytest.raises(GateFailed, match="ask for less, or set on_shortfall"):
        build(lake, "m")
