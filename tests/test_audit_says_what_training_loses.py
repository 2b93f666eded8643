"""The launch audit of bare files: verdicts, checks that trip and that do not, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curation import schema
from curation.auditing.audit import mirror_for
from curation.auditing.checks import Check
from curation.auditing.gate import waive
from curation.auditing.mirrors.trl_sft import TRLSFT
from curation.errors import UserError
from curation.measures.anatomy import anatomy_for
from curation.rendering import load_template, load_tokenizer
from curation.run_files import Waiver
from tests import REAL_DATA


def chat(answer: str, system: str = "") -> list[dict[str, Any]]:
    turns = [{"role": "system", "content": system}] if system else []
    return [*turns, {"role": "user", "content": "12 plus 3?"}, {"role": "assistant", "content": answer}]


def anatomy_of(tokenizer: Path, talks: list[list[dict[str, Any]]], template: str = "tokenizer", path: str = "whole"):
    rows = pa.table({"messages": pa.array(talks, schema.MESSAGES), "tools": pa.nulls(len(talks), pa.string())})
    return anatomy_for(None, str(tokenizer), template, path, {}).measure(rows, "sft")


@pytest.fixture
def audit(tmp_path: Path, tiny_model: Path, kedge, monkeypatch):
    """Audit conversations in an empty folder without a project: exit code and JSON."""
    monkeypatch.chdir(tmp_path)

    def call(talks: list[list[dict[str, Any]]], max_length: int, *more: str) -> tuple[int, dict[str, Any]]:
        Path("DATA.jsonl").write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
        arguments = ("--tokenizer", str(tiny_model), "--max-length", str(max_length), "--json")
        code, out, err = kedge("audit", "DATA.jsonl", *arguments, *more)
        return code, json.loads(out) if out else {"error": err}

    return call


def levels(report: dict[str, Any]) -> dict[str, str]:
    return {check["id"]: check["level"] for check in report["checks"]}


LONG = chat("<think>" + "12+3 " * 40 + "</think>The answer is 15.")
SHORT = chat("<think>12+3</think>The answer is 15.")


def test_a_file_alone_passes_where_nothing_is_cut(audit):
    code, report = audit([SHORT, LONG], 1024)
    assert code == 0
    assert report["passed"]
    assert set(levels(report).values()) == {"ok"}


def test_a_length_that_cuts_thoughts_fails_and_names_a_length_that_does_not(audit):
    code, report = audit([SHORT, LONG], 60)
    assert code == 1
    assert {name: levels(report)[name] for name in ("A1", "A2", "A5", "A7")} == dict.fromkeys(
        ("A1", "A2", "A5", "A7"), "error"
    )
    (source,) = [row for row in report["sources"] if row["source"] == "all"]
    assert (source["rows_whole"], source["rows_cut"], source["rows_dropped"]) == (1, 1, 0)
    assert (source["think_closed_before"], source["think_closed_after"]) == (2, 1)
    advice = next(check["next"] for check in report["checks"] if check["id"] == "A5")
    proposed = int(next(word for word in advice.replace(",", "").split() if word.isdigit()))
    assert audit([SHORT, LONG], proposed)[0] == 0


def test_the_report_shows_the_cut_in_the_text_and_escapes_it(audit, tmp_path):
    audit([chat("<script>alert(1)</script> " * 30)], 60, "--to", str(tmp_path / "out"))
    page = (tmp_path / "out" / "report.html").read_text()
    assert 'class="lost"' in page
    assert 'class="trained"' in page
    assert "<script" not in page
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["passed"] is False


def test_a_thought_that_never_closes_is_named_before_any_cut(audit):
    assert levels(audit([SHORT, chat("<think>12+3 and so on")], 1024)[1])["A6"] == "error"
    assert levels(audit([SHORT], 1024)[1])["A6"] == "ok"


def test_marks_in_a_system_prompt_close_no_thought(tiny_model):
    table = anatomy_of(tiny_model, [chat("<think>12+3", "Think in <think> and </think>."),
                                    chat("<think>12+3</think>15", "Think in <think> and </think>.")])  # fmt: skip
    assert [value >= 0 for value in table["think_close"].to_pylist()] == [False, True]
    assert [value >= 0 for value in table["answer_end"].to_pylist()] == [False, True]


def test_a_template_that_raises_is_counted_and_stops_no_other_row(tiny_model, tmp_path):
    template = tmp_path / "strict.jinja"
    template.write_text(
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"
        "{{ m.content }}{% endfor %}"
    )
    table = anatomy_of(tiny_model, [chat("15", "Be brief."), chat("15")], str(template))
    assert table["render_error"].to_pylist() == ["no system turns", None]
    assert table["tokens"].to_pylist()[0] == 0 < table["tokens"].to_pylist()[1]
    (reason,) = TRLSFT().refuses(table)
    assert "1 rows" in reason
    assert "no system turns" in reason


def test_a_tokenizer_without_the_templates_special_tokens_is_an_error():
    if not REAL_DATA.is_dir():
        pytest.skip("no tokenizer without ChatML tokens")
    with pytest.raises(UserError, match=r"no token <\|im_end\|>, <\|im_start\|>"):
        load_template(None, "chatml", load_tokenizer(None, str(REAL_DATA / "tokenizers" / "gpt2")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_lenght": 5}, "did you mean 'max_length'"),
        ({"max_seq_length": 5}, "use max_length"),
        ({"packing_strategy": "wrapped"}, "has no effect without packing"),
        ({"truncation_mode": "keep_end", "packing": True}, "has no effect with packing"),
        ({"packing": True, "packing_strategy": "ffd"}, "packing_strategy"),
        ({"shuffle_dataset": True}, "not mirrored yet"),
        ({"dataset_kwargs": {"skip_prepare_dataset": True}}, "not mirrored yet"),
        ({"completion_only_loss": True, "assistant_only_loss": True}, "both losses at once"),
        ({"max_length": 0}, "max_length"),
    ],
)
def test_an_option_the_mirror_cannot_vouch_for_is_an_error(options, message):
    pytest.importorskip("trl")
    with pytest.raises(UserError, match=message):
        mirror_for("trl_sft", options)


def test_options_that_touch_no_row_are_left_to_the_trainer():
    options = {"learning_rate": 1e-3, "max_steps": 5, "warmup_steps": 1, "lora": {"r": 8}, "dtype": "float32"}
    assert mirror_for("trl_sft", options) == TRLSFT()


def test_another_version_of_the_trainer_says_which_mirror_to_write(monkeypatch):
    monkeypatch.setattr("curation.auditing.audit.installed_version", lambda package: "1.17.0")
    with pytest.raises(UserError, match=r"write a mirror for 1\.17\.0"):
        mirror_for("trl_sft", {})


def test_a_waiver_lapses_when_the_value_worsens():
    waiver = Waiver(check="A1", value=0.2, reason="the tail is known and small")
    for value, waived in ((0.2, True), (0.1, True), (0.21, False)):
        check = Check("A1", "overlong", "error", value, 0.05, "")
        waive([check], (waiver,))
        assert bool(check.waived) is waived
    other = Check("A2", "stop kept", "error", 0.1, 0.01, "")
    waive([other], (waiver,))
    assert not other.waived


@pytest.mark.real_data
def test_sky_t1_traces_lose_their_solution_to_short_contexts():
    import gzip

    talks = []
    for path in sorted((REAL_DATA / "reasoning").glob("sky_t1*.jsonl.gz")):
        for line in gzip.decompress(path.read_bytes()).splitlines():
            record = json.loads(line)
            talks.append([{"role": "user", "content": record["question"]},
                          {"role": "assistant", "content": record["code"][0]}])  # fmt: skip
    ends = ["<|end_of_solution|>" in talk[1]["content"] for talk in talks]
    assert (len(talks), ends.count(False)) == (570, 359)
    table = anatomy_of(REAL_DATA / "tokenizers" / "qwen2.5", talks)
    solved = pa.table({"end": table["answer_end"], "ends": pa.array(ends)}).to_pylist()
    lost = {length: sum(row["ends"] and row["end"] > length for row in solved) for length in (512, 2048, 8192)}
    print(f"of 211 traces that end their solution, lost at a context length: {lost}")
    assert all(row["end"] > 0 for row in solved if row["ends"])
    assert lost[512] > lost[2048] >= lost[8192]
