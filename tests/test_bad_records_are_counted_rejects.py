"""What cannot become a row is a counted reject with file, line and reason; a file that cannot be read, one error."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

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


def describe(name: str, share: float, reader: str = "jsonl") -> None:
    Path("catalogs/sources").mkdir(exist_ok=True)
    source = {"reader": reader, "path": name, "stage": "sft", "shape": "messages", "reject_share": share}
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


def test_wrong_values_in_a_table_are_rejects(catalog, kedge):
    Path("a.csv").write_text("prompt,completion\nq,a\nonly one\nq2,a2\n")
    Path("catalogs/sources").mkdir()
    Path("catalogs/sources/a.yaml").write_text(
        "reader: csv_table\npath: a.csv\nstage: sft\nshape: prompt_completion\nreject_share: 0.5\n")  # fmt: skip
    assert kedge("add", "a")[0] == 0
    (found,) = rejects()
    assert (found["line"], found["reason"]) == (3, "has 1 values where the header has 2")
