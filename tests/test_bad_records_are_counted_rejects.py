"""What cannot become a row is a counted reject with file, line and reason; a file that cannot be read, one error."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation import parsing
from curation.catalog import Catalog
from curation.config import find_project

GOOD = '{"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]}'


def turns(*roles: str, **more) -> str:
    found = [{"role": role, "content": f"turn {n}"} for n, role in enumerate(roles)]
    return json.dumps({"messages": found} | more)


def write(*lines: str | bytes, share: float = 1.0, name: str = "a.jsonl", reader: str = "jsonl") -> None:
    Path(name).write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines))
    describe(name, share, reader)


def describe(name: str | list[str], share: float, reader: str = "jsonl", **more: str) -> None:
    Path("catalogs/sources").mkdir(exist_ok=True)
    source = {"reader": reader, "path": name, "stage": "sft", "shape": "messages", "reject_share": share} | more
    Path("catalogs/sources/a.yaml").write_text(json.dumps(source))


def rejects() -> list[dict]:
    catalog = Catalog(find_project())
    parts = [folder / part.name for folder, manifest in catalog.manifests("rejects") for part in manifest.parts]
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def num_rows() -> int:
    return sum(pq.read_metadata(part).num_rows for part in Catalog(find_project()).row_parts())


@pytest.mark.parametrize(("line", "reason"), [
    ('{"conversation_id": 7}', "has no messages"),
    ('{"messages": []}', "'messages' is empty"),
    ('{"messages": "hello"}', "'messages' is text"),
    ('{"messages": [["user", "x"]]}', "a message is a list, not an object"),
    ('{"messages": [{"role": "narrator", "content": "x"}]}', "unknown role 'narrator'"),
    ('{"messages": [{"role": "user"}]}', "a message of role user has no content"),
    (turns("assistant", "user"), "the first turn is assistant, not user"),
    (turns("user", "user", "assistant"), "two user turns in a row"),
    (turns("user", "assistant", "assistant"), "two assistant turns in a row"),
    (turns("user", "assistant", "system", "user", "assistant"), "a system turn comes after the conversation began"),
    (turns("user", "tool", "assistant"), "a tool result without a tool call"),
    (turns("system"), "holds a system turn alone"),
    (turns("user", "assistant", "user"), "the last turn is user, not assistant"),
    ('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": NaN}]}', "is no valid JSON"),
    ('{"messages": [{"role": "user", "content": "\\ud800"}]}', "is no valid JSON"),
    ('{"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]}', "a part of type 'image'"),
    ('["not", "an", "object"]', "is no JSON object"),
    ('{"messages": ', "is no valid JSON"),
    (b'{"messages": "\xff"}', "is not UTF-8 at byte 14"),
    ('{"messages": ' + "[" * 3_000 + "]" * 3_000 + "}", "depth limit"),
    ('{"messages": [{"role": "user", "content": [{"type": ["x"]}]}]}', "a part of content is an object without a type"),
    ('{"messages": [{"role": "user", "content": "a"}, {"from": "tool_call", "value": null}]}', "a tool call is absent"),
    ('{"messages": [{"role": "user", "content": "a"}, {"from": "tool_call", "value": "run it"}]}', "no valid JSON"),
])  # fmt: skip
def test_a_bad_record_is_kept_with_file_line_and_reason(catalog, kedge, line, reason: str):
    write(GOOD, line, GOOD.replace("2+2", "3+3"))
    code, out, err = kedge("add", "a")
    assert code == 0, err
    assert "2 sft rows, 1 rejects" in out
    (found,) = rejects()
    assert (found["source"], found["file"], found["line"]) == ("a", "a.jsonl", 2)
    assert reason in found["reason"]
    assert num_rows() == 2


@pytest.mark.parametrize(("shape", "stage", "record", "reason"), [
    ("alpaca", "sft", {"instruction": "q", "output": "a", "history": [["alone"]]}, "'history' holds something else"),
    ("alpaca", "sft", {"instruction": "q", "output": "a", "history": [{"q": "a"}]}, "'history' holds something else"),
    ("alpaca", "sft", {"instruction": None, "output": "a"}, "'instruction' is absent, not text"),
    ("prompt_completion", "sft", {"prompt": "q"}, "'completion' is absent, not text"),
    ("gsm8k", "rlvr", {"question": "q", "answer": "four"}, "the answer has no '####'"),
    ("verl", "rlvr", {"data_source": "d", "prompt": [{"role": "user", "content": "q"}]}, "no ground_truth"),
    ("preference", "preference", {"chosen": "a", "rejected": "b"}, "has no prompt"),
    ("preference", "preference", {"prompt": "q", "chosen": "a", "rejected": "b", "margin": 10**400}, "no finite"),
    ("preference", "preference", {"prompt": "q", "chosen": "\ud800", "rejected": "b"}, "holds what JSON cannot"),
    ("preference", "preference", {"prompt": "q", "chosen": "a", "rejected": "b", "\ud800": 1}, "what JSON cannot"),
    ("preference", "preference", {"prompt": "q", "chosen": "a", "rejected": "b", "x": 10**30}, "what JSON cannot"),
    ("kto", "preference", {"prompt": "q", "completion": "a", "label": "yes"}, "'label' is not true or false"),
    ("text", "midtrain", {"text": " \n"}, "'text' is empty"),
])  # fmt: skip
def test_a_record_that_its_shape_cannot_take_is_a_reject(
    catalog, kedge, shape: str, stage: str, record: dict, reason: str
):  # fmt: skip
    good = {"alpaca": {"instruction": "q", "output": "a"}, "prompt_completion": {"prompt": "q", "completion": "a"},
            "gsm8k": {"question": "q", "answer": "#### 4"}, "kto": {"prompt": "q", "completion": "a", "label": True},
            "verl": {"data_source": "d", "prompt": [{"role": "user", "content": "q"}],
                     "reward_model": {"ground_truth": "4"}},
            "preference": {"prompt": "q", "chosen": "a", "rejected": "b"}, "text": {"text": "t"}}[shape]  # fmt: skip
    Path("a.json").write_text(json.dumps([good, record, good]))
    describe("a.json", 0.5, "json_array", stage=stage, shape=shape)
    code, _, err = kedge("add", "a")
    assert code == 0, err
    (found,) = rejects()
    assert found["line"] == 2 and reason in found["reason"]
    assert num_rows() == 2


@pytest.mark.parametrize(("column", "reason"), [
    ({"margin": [1.0, float("nan"), 2.0]}, "'margin' is no finite number"),
    ({"seen": pa.array([0, 2**62, 0], pa.timestamp("us"))}, "holds a value that cannot be read"),
    ({"note": pa.Array.from_buffers(pa.string(), 3, [None, pa.py_buffer(struct.pack("4i", 0, 1, 3, 4)),
                                                     pa.py_buffer(b"a\xff\xfeb")])}, "codec can't decode byte 0xff"),
])  # fmt: skip
def test_a_value_of_a_parquet_file_that_is_no_value_costs_its_own_row_alone(catalog, kedge, column, reason: str):
    pq.write_table(pa.table({"prompt": ["q1", "q2", "q3"], "chosen": ["a"] * 3, "rejected": ["b"] * 3} | column),
                   "a.parquet")  # fmt: skip
    describe("a.parquet", 0.5, "parquet", stage="preference", shape="preference")
    code, _, err = kedge("add", "a")
    assert code == 0, err
    (found,) = rejects()
    assert found["line"] == 2 and reason in found["reason"]
    assert num_rows() == 2


def test_nan_inside_tools_is_a_reject_and_never_a_null(catalog, kedge):
    pq.write_table(pa.Table.from_pylist([json.loads(GOOD) | {"tools": [{"x": float("nan")}]}, json.loads(GOOD)]),
                   "a.parquet")  # fmt: skip
    describe("a.parquet", 0.5, "parquet")
    assert kedge("add", "a")[0] == 0
    (found,) = rejects()
    assert (found["line"], found["reason"]) == (1, "holds a value that JSON cannot: NaN or infinity")


def test_an_array_nested_without_end_is_a_reject(catalog, kedge):
    Path("a.json").write_text(f"[{GOOD}, {'[' * 100_000}{']' * 100_000}]")
    describe("a.json", 0.5, "json_array")
    assert kedge("add", "a")[0] == 0
    assert [(row["line"], "recursion" in row["reason"]) for row in rejects()] == [(2, True)]


def test_a_byte_order_mark_is_no_part_of_the_first_record(catalog, kedge):
    write(b"\xef\xbb\xbf" + GOOD.encode(), share=0.0)
    assert kedge("add", "a")[0] == 0
    assert num_rows() == 1


def test_more_rejects_than_the_source_allows_fail_and_name_the_first(catalog, kedge):
    write(*[GOOD.replace("2+2", f"{n}") for n in range(9)], '{"messages": []}', share=0.05)
    code, _, err = kedge("add", "a")
    assert code == 1
    assert "a.jsonl:10" in err and "'messages' is empty" in err and "reject_share" in err and "Traceback" not in err
    assert len(rejects()) == 1 and num_rows() == 0
    describe("a.jsonl", 0.1)
    assert kedge("add", "a")[0] == 0
    assert num_rows() == 9


def test_a_rejected_ingest_leaves_the_rows_that_were_there(catalog, kedge):
    write(GOOD)
    assert kedge("add", "a")[0] == 0
    write(GOOD, *['{"messages": []}'] * 3, share=0.5)
    assert kedge("add", "a")[0] == 1
    assert num_rows() == 1


def test_an_empty_file_is_one_clear_error(catalog, kedge):
    Path("a.jsonl").write_text("")
    code, _, err = kedge("add", "a.jsonl")
    assert code == 2 and "a.jsonl: is empty" in err
    describe("a.jsonl", 0)
    code, _, err = kedge("add", "a")
    assert code == 2 and "a.jsonl: is empty" in err


def test_a_file_of_blank_lines_holds_no_record(catalog, kedge):
    write("", "", "")
    code, _, err = kedge("add", "a")
    assert code == 2 and "no record was found" in err


def test_a_truncated_gzip_keeps_what_was_whole_and_rejects_the_rest(catalog, kedge):
    import random

    rng = random.Random(0)
    lines = [turns("user", "assistant", noise=rng.random()) for _ in range(20_000)]
    packed = gzip.compress("\n".join(lines).encode())
    Path("a.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    describe("a.jsonl.gz", 0.5)
    code, _, err = kedge("add", "a")
    assert code == 0, err
    (found,) = rejects()
    assert "the file is cut off or broken" in found["reason"]
    assert 0 < num_rows() == found["line"] - 1 < 20_000


@pytest.mark.parametrize(("name", "reader", "data"), [
    ("a.parquet", "parquet", b"PAR1 but not really"), ("a.jsonl.zst", "jsonl", b"\x28\xb5\x2f\xfd and no more"),
    ("a.json", "json_array", b'[{"messages": 1}, '), ("a.json", "json_array", b'{"messages": 1}'),
])  # fmt: skip
def test_a_file_of_another_format_is_rejected_as_a_whole(catalog, kedge, name: str, reader: str, data: bytes):
    Path(name).write_bytes(data)
    describe(name, 0.0, reader)
    code, _, err = kedge("add", "a")
    assert code == 1 and name in err and "Traceback" not in err
    assert rejects()


def test_a_line_of_fifty_megabytes_is_one_reject_and_is_never_held_whole(catalog, kedge):
    long = b'{"messages": "' + b"x" * (50 << 20) + b'"}'
    write(GOOD, long, GOOD.replace("2+2", "3+3"))
    code, _, err = kedge("add", "a")
    assert code == 0, err
    (found,) = rejects()
    assert found["line"] == 2 and "more than 33,554,432" in found["reason"]
    assert len(found["record"]) <= 2_000
    assert num_rows() == 2


def test_rejects_without_end_are_kept_in_parts(catalog, kedge, monkeypatch):
    monkeypatch.setattr(parsing, "REJECTS_PER_PART", 10)
    write(GOOD, *[f'{{"messages": {n}}}' for n in range(35)])
    assert kedge("add", "a")[0] == 0
    assert [row["line"] for row in sorted(rejects(), key=lambda row: row["line"])] == list(range(2, 37))
    (_, manifest), *_ = Catalog(find_project()).manifests("rejects")
    assert len(manifest.parts) == 4


def test_every_record_is_a_row_or_a_reject(catalog, kedge):
    lines = [GOOD.replace("2+2", str(n)) if n % 3 else '{"messages": []}' for n in range(300)]
    write(*lines)
    assert kedge("add", "a")[0] == 0
    assert (num_rows(), len(rejects())) == (200, 100)
    code, out, _ = kedge("show", "a", "--json")
    assert code == 0 and {"num_rows": 200, "num_rejects": 100} in [item.get("counts") for item in json.loads(out)]


@pytest.mark.parametrize(("line", "reason"), [
    (b"only one", "has 1 values where the header has 2"), (b"q,\xff", "holds what JSON cannot"),
    (b"q\xff", "has 1 values where the header has 2"), (b'q,"a"b', "is no valid CSV"),
    (b"q,", "'completion' is absent"),
])  # fmt: skip
def test_a_bad_row_of_a_table_costs_its_own_row_alone(catalog, kedge, line: bytes, reason: str):
    Path("a.csv").write_bytes(b"prompt,completion\nq1,a\n" + line + b"\n\nq2,a\nq3,a\n")
    describe("a.csv", 0.5, "csv_table", shape="prompt_completion")
    code, _, err = kedge("add", "a")
    assert code == 0, err
    (found,) = rejects()
    assert found["line"] == 3 and reason in found["reason"]
    assert num_rows() == 3


def test_a_table_that_names_a_column_twice_is_not_read(catalog, kedge):
    Path("a.csv").write_text("prompt,completion,completion\nq,a,b\n")
    code, _, err = kedge("add", "a.csv")
    assert code == 2 and "the header names 'completion' twice" in err


def test_a_line_of_text_without_end_is_one_reject(catalog, kedge):
    Path("a.txt").write_bytes(b"one\n" + b"x" * (33 << 20) + b"\ntwo\n")
    describe("a.txt", 0.5, "text", stage="midtrain", shape="text")
    assert kedge("add", "a")[0] == 0
    (found,) = rejects()
    assert (found["line"], num_rows()) == (2, 2)


def test_the_first_rejects_are_named_in_the_order_of_files_and_lines(catalog, kedge, monkeypatch):
    monkeypatch.setattr(parsing, "REJECTS_PER_PART", 2)
    for name in ("a", "b", "c"):
        Path(f"{name}.jsonl").write_text(f"{name}\n" * 3)
    describe("*.jsonl", 0.0)
    code, _, err = kedge("add", "a")
    assert code == 1
    found = [line.split(": ")[1] for line in err.splitlines() if ".jsonl:" in line]
    assert found == ["a.jsonl:1", "a.jsonl:2", "a.jsonl:3", "b.jsonl:1", "b.jsonl:2"]
    assert "9 of 9 records were rejected" in err
