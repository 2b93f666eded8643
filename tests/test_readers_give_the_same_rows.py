"""`kedge add`: files of every format, folders, and datasets in hub layout give the same rows."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
import zstandard

from tests.ingested import RECORDS, rows_of


def write(kind: str, path: Path) -> str:
    text = "".join(json.dumps(record) + "\n" for record in RECORDS)
    name = {"plain": "a.jsonl", "gzip": "a.jsonl.gz", "zstandard": "a.jsonl.zst", "array": "a.json",
            "parquet": "a.parquet", "csv": "a.csv", "folder": "a"}[kind]  # fmt: skip
    target = path / name
    if kind == "plain":
        target.write_text(text)
    elif kind == "gzip":
        target.write_bytes(gzip.compress(text.encode()))
    elif kind == "zstandard":
        target.write_bytes(zstandard.compress(text.encode()))
    elif kind == "array":
        target.write_text(json.dumps(RECORDS))
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(RECORDS), target)
    elif kind == "csv":
        with target.open("w", newline="") as stream:
            lines = csv.writer(stream)
            lines.writerow(["prompt", "completion", "topic"])
            lines.writerows([r["messages"][0]["content"], "4", "sum"] for r in RECORDS)
    else:
        target.mkdir()
        (target / "one.jsonl").write_text(text)
    return name


@pytest.mark.parametrize("kind", ["plain", "gzip", "zstandard", "array", "parquet", "csv", "folder"])
def test_every_reader_gives_the_same_rows(catalog, kedge, kind: str, tmp_path: Path):
    name = write(kind, tmp_path)
    code, out, err = kedge("add", name)
    assert code == 0, err
    rows = rows_of("a")
    assert [row["messages"] for row in rows] == [record["messages"] for record in RECORDS]
    assert [json.loads(row["meta"]) for row in rows] == [{"topic": "sum"}] * 5
    assert "5 sft rows, 0 rejects" in out


@pytest.mark.parametrize(("document", "texts"), [("line", ["one", "two", "three"]), ("block", ["one\ntwo", "three"]),
                                                 ("file", ["one\ntwo\n\nthree"])])  # fmt: skip
def test_plain_text_is_read_by_line_block_or_file(catalog, kedge, document: str, texts: list[str]):
    Path("a.txt").write_text("one\ntwo\n\nthree\n")
    assert kedge("add", "a.txt")[0] == 0
    source = yaml.safe_load(Path("catalogs/sources/a.yaml").read_text())
    assert (source["reader"], source["stage"]) == ("text", "midtrain")
    Path("catalogs/sources/a.yaml").write_text(yaml.safe_dump(source | {"reader_options": {"document": document}}))
    assert kedge("add", "a")[0] == 0
    assert [row["text"].strip() for row in rows_of("a")] == texts


def test_a_folder_in_hub_layout_is_read_through_datasets(catalog, kedge, tmp_path: Path):
    home = tmp_path / "sums"
    (home / "data").mkdir(parents=True)
    (home / "README.md").write_text(
        "---\nlicense: mit\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n"
        "    path: data/train-*\n  - split: test\n    path: data/test-*\n---\n")  # fmt: skip
    for split, records in (("train", RECORDS), ("test", RECORDS[:1])):
        pq.write_table(pa.Table.from_pylist(records), home / "data" / f"{split}-00000-of-00001.parquet")
    code, _, err = kedge("add", "sums")
    assert code == 0, err
    assert yaml.safe_load(Path("catalogs/sources/sums.yaml").read_text())["reader"] == "hf_hub"
    assert [row["messages"] for row in rows_of("sums")] == [record["messages"] for record in RECORDS]


@pytest.fixture
def hub_folder(catalog, tmp_path: Path) -> Path:
    """A dataset in hub layout: the configs main and socratic, each with the splits train and test."""
    home, configs = tmp_path / "sums", []
    for config in ("main", "socratic"):
        (home / config).mkdir(parents=True)
        for split, count in (("train", 3), ("test", 1)):
            records = [{"question": f"{config} {split} {n}?", "answer": f"#### {n}"} for n in range(count)]
            pq.write_table(pa.Table.from_pylist(records), home / config / f"{split}-00000-of-00001.parquet")
        files = [{"split": split, "path": f"{config}/{split}-*"} for split in ("train", "test")]
        configs.append({"config_name": config, "data_files": files})
    (home / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n")
    return home


def describe(name: str, **more: object) -> None:
    Path("catalogs/sources").mkdir(exist_ok=True)
    Path(f"catalogs/sources/{name}.yaml").write_text(yaml.safe_dump(more))


def questions(source: str) -> list[str]:
    return [row["prompt"][0]["content"] for row in rows_of(source)]


def test_config_split_and_revision_of_a_hub_layout_are_chosen_in_the_source_file(catalog, kedge, hub_folder: Path):
    options = {"config": "main", "split": "test"}
    describe("sums", reader="hf_hub", path="sums", stage="rlvr", shape="gsm8k", reader_options=options, revision="0a1b")
    assert kedge("add", "sums")[0] == 0
    assert questions("sums") == ["main test 0?"]
    describe("sums", reader="hf_hub", path="sums", stage="rlvr", shape="gsm8k", reader_options={"config": "socratic"})
    assert kedge("add", "sums")[0] == 0
    assert questions("sums") == [f"socratic train {n}?" for n in range(3)]


def test_a_hub_layout_with_several_configs_names_them_and_says_where_to_choose(catalog, kedge, hub_folder: Path):
    code, _, err = kedge("add", "sums")
    assert code == 2
    assert "['main', 'socratic']" in err and "reader_options" in err and "Traceback" not in err


def test_a_changed_folder_in_hub_layout_is_read_again(catalog, kedge, hub_folder: Path):
    describe("sums", reader="hf_hub", path="sums", stage="rlvr", shape="gsm8k", reader_options={"config": "main"})
    assert kedge("add", "sums")[0] == 0
    assert json.loads(kedge("add", "sums", "--json")[1])["num_files_read"] == 0
    table = pa.Table.from_pylist([{"question": "another?", "answer": "#### 1"}])
    pq.write_table(table, hub_folder / "main" / "train-00000-of-00001.parquet")
    assert json.loads(kedge("add", "sums", "--json")[1])["num_files_read"] == 1
    assert questions("sums") == ["another?"]


def test_a_dataset_of_the_hub_without_a_pinned_revision_is_refused(catalog, kedge):
    describe("sums", reader="hf_hub", path="some/sums", stage="rlvr", shape="gsm8k")
    code, _, err = kedge("add", "sums")
    assert code == 2 and "no pinned revision" in err and "revision" in err.split(";")[-1]


def test_every_file_of_a_folder_is_read_however_it_is_packed_and_named(catalog, kedge):
    lines = [json.dumps(record) + "\n" for record in RECORDS]
    Path("data/deep").mkdir(parents=True)
    Path("data/.hidden").mkdir()
    Path("data/a.v1.jsonl").write_text("".join(lines[:2]))
    Path("data/deep/b.jsonl.gz").write_bytes(gzip.compress("".join(lines[2:]).encode()))
    Path("data/.hidden/c.jsonl").write_text("not for us")
    Path("data/LICENSE").write_text("MIT")
    code, _, err = kedge("add", "data")
    assert code == 0, err
    assert [(row["file"], row["line"]) for row in rows_of("data")] == [
        ("data/a.v1.jsonl", 1), ("data/a.v1.jsonl", 2), ("data/deep/b.jsonl.gz", 1), ("data/deep/b.jsonl.gz", 2),
        ("data/deep/b.jsonl.gz", 3)]  # fmt: skip


def test_a_folder_of_several_formats_is_an_error_and_leaves_nothing_out_in_silence(catalog, kedge):
    Path("data").mkdir()
    Path("data/a.jsonl").write_text(json.dumps(RECORDS[0]) + "\n")
    Path("data/b.csv").write_text("prompt,completion\nq,a\n")
    code, _, err = kedge("add", "data")
    assert code == 2
    assert "several formats" in err and "data/a.jsonl" in err and "data/b.csv" in err
    assert not Path("catalogs/sources/data.yaml").exists()


def test_a_hub_id_that_cannot_be_fetched_is_one_clear_error(catalog, kedge):
    code, _, err = kedge("add", "someone/no-such-dataset")
    assert code == 2
    assert "someone/no-such-dataset" in err and "Traceback" not in err
