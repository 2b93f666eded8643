"""Preference pairs in the shapes of others, and pairs that go out to people: what comes back is what went out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from curation.annotation import store
from curation.annotation.adding import add_votes
from curation.annotation.exporting import export
from curation.annotation.jobs import load_job
from curation.annotation.records import VOTES
from curation.annotation.rounds import open_round
from curation.annotation.vote_items import ranking
from curation.errors import UserError
from tests import REAL_DATA

U, A = {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}
WRONG = A | {"content": "5"}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c", "function": {"name": "add", "arguments": "{}"}}],
}
RESULT = {"role": "tool", "tool_call_id": "c", "content": "4"}
EARLIER = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}, A | {"content": "Hello"}]
PLAIN = {"prompt": [U], "chosen": [A], "rejected": [WRONG]}
RICH = {"prompt": [*EARLIER, U], "chosen": [CALL, RESULT, A], "rejected": [WRONG | {"reasoning_content": "hm"}],
        "tools": [{"name": "add"}], "chosen_score": 5, "rejected_score": 2.5, "chosen_model": "m1",
        "rejected_model": "m2"}  # fmt: skip
# Both answers go on with the same turns: whole conversations do not tell where the prompt ended.
ALIKE = {"prompt": [U], "chosen": [A, {"role": "user", "content": "Sure?"}, A],
         "rejected": [A, {"role": "user", "content": "Sure?"}, WRONG]}  # fmt: skip
LONE = {"prompt": [U], "completion": [A], "label": False}


def rows_of(catalog, source: str) -> pa.Table:
    return pa.concat_tables([pq.read_table(part) for part in catalog.row_parts(source=source)])


def added(kedge, catalog, name: str, records: list[dict[str, Any]]) -> pa.Table:
    Path(f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    code, _, err = kedge("add", f"{name}.jsonl")
    assert code == 0, err
    return rows_of(catalog, name)


def contents(rows: pa.Table) -> list[bytes]:
    return sorted(value.bytes for value in rows["content_hash"].to_pylist())


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_shape_is_read_again_as_the_same_rows(catalog, kedge):
    rows = added(kedge, catalog, "pairs", [PLAIN, RICH])
    files = export(rows, Path("out"))
    assert sorted(files) == ["dpo_mix", "trl", "ultrafeedback_binarized"]
    for name, path in files.items():
        code, _, err = kedge("add", path, "--name", f"again_{name}")
        assert code == 0, err
        again = rows_of(catalog, f"again_{name}")
        assert contents(again) == contents(rows), name
    scores = rows_of(catalog, "again_ultrafeedback_binarized")["chosen_score"].to_pylist()
    assert sorted(scores, key=str) == sorted(rows["chosen_score"].to_pylist(), key=str) == [5.0, None]


def test_the_files_have_the_keys_of_their_shapes(catalog, kedge):
    files = export(added(kedge, catalog, "pairs", [RICH]), Path("out"))
    (trl,), (ultra,), (mix,) = (lines_of(files[name]) for name in ("trl", "ultrafeedback_binarized", "dpo_mix"))
    assert list(trl) == ["prompt", "chosen", "rejected", "tools"] and trl["tools"] == '[{"name":"add"}]'
    assert trl["chosen"][0]["tool_calls"][0]["id"] == "c" and trl["rejected"][0]["reasoning_content"] == "hm"
    assert list(ultra)[:8] == ["source", "prompt", "chosen", "chosen-rating", "chosen-model", "rejected",
                               "rejected-rating", "rejected-model"]  # fmt: skip
    assert (ultra["prompt"], ultra["source"], ultra["chosen-model"], ultra["rejected-model"]) == (
        "2+2?", "pairs", "m1", "m2")  # fmt: skip
    assert (ultra["chosen-rating"], ultra["rejected-rating"]) == (5.0, 2.5)
    assert list(mix)[:5] == ["dataset", "chosen", "rejected", "chosen_rating", "rejected_rating"]
    assert [turn["role"] for turn in mix["chosen"]] == ["system", "user", "assistant", "user", "assistant", "tool",
                                                        "assistant"]  # fmt: skip


def test_a_margin_is_written_where_every_row_has_one(catalog, kedge):
    files = export(added(kedge, catalog, "all_of_them", [PLAIN | {"margin": 0.5}]), Path("out"))
    assert lines_of(files["trl"])[0]["margin"] == 0.5
    rows = added(kedge, catalog, "some", [PLAIN | {"margin": 0.5}, ALIKE])
    assert not any("margin" in line for line in lines_of(export(rows, Path("out"))["trl"]))


def test_what_a_shape_cannot_hold_is_left_out_and_counted(catalog, kedge):
    rows = added(kedge, catalog, "pairs", [PLAIN, ALIKE])
    files = export(rows, Path("out"))
    summary = json.loads(Path("out/export.json").read_text())
    assert [len(lines_of(files[name])) for name in ("trl", "ultrafeedback_binarized", "dpo_mix")] == [2, 1, 1]
    assert summary["trl"] == {"rows": 2, "left_out": {}}
    assert summary["dpo_mix"] == {"rows": 1, "left_out": {"the shape cannot hold it": 1}}


def test_rows_of_one_side_become_unpaired_ones(catalog, kedge):
    rows = added(kedge, catalog, "lone", [LONE, LONE | {"label": True, "tools": [{"name": "add"}]}])
    files = export(rows, Path("out"))
    assert list(files) == ["trl_unpaired"]
    assert kedge("add", files["trl_unpaired"], "--name", "again")[0] == 0
    assert contents(rows_of(catalog, "again")) == contents(rows)
    summary = json.loads(Path("out/export.json").read_text())
    assert summary["trl"] == {"rows": 0, "left_out": {"has one side only": 2}}


def test_exporting_again_gives_the_same_bytes_and_leaves_nothing_of_before(catalog, kedge):
    rows = added(kedge, catalog, "pairs", [PLAIN, RICH])
    first = {name: path.read_bytes() for name, path in export(rows, Path("out")).items()}
    assert {name: path.read_bytes() for name, path in export(rows, Path("out")).items()} == first
    export(added(kedge, catalog, "lone", [LONE]), Path("out"))
    assert sorted(path.name for path in Path("out").iterdir()) == ["export.json", "trl_unpaired.jsonl"]


def test_nothing_to_export_and_a_folder_that_is_a_file_are_told(catalog, kedge):
    rows = added(kedge, catalog, "pairs", [PLAIN])
    with pytest.raises(UserError, match="no rows to export"):
        export(rows.slice(0, 0), Path("out"))
    Path("taken").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        export(rows, Path("taken"))


def test_trls_file_loads_as_a_dataset_of_conversations(catalog, kedge):
    from datasets import load_dataset

    files = export(added(kedge, catalog, "pairs", [PLAIN, RICH]), Path("out"))
    loaded = load_dataset("json", data_files=str(files["trl"]), split="train", cache_dir=str(Path("cache").absolute()))
    rich = loaded[0] if loaded[0]["tools"] else loaded[1]
    assert {"prompt", "chosen", "rejected"} <= set(loaded.column_names) and json.loads(rich["tools"])
    assert [turn["role"] for turn in rich["chosen"]] == ["assistant", "tool", "assistant"]
    assert rich["chosen"][0]["tool_calls"][0]["function"]["name"] == "add"


JOB = """/* ---
guidelines: Which answer is better?
questions: [{name: better, kind: preference}]
annotators_per_item: 3
--- */
SELECT row_id FROM rows_preference
"""


def asked(catalog, name: str = "again"):
    folder = Path("catalogs/annotations")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.sql").write_text(JOB)
    return open_round(catalog, load_job(catalog, name))


def answer(catalog, found, verdict: str = "chosen", voters: int = 3) -> None:
    """Everybody answers all items."""
    votes = []
    for item in found.items.to_pylist():
        keys = [one["key"] for one in item["candidates"]]
        vote = {name: item.get(name) for name in VOTES.names if name in item} | {
            "kind": "person", "status": "submitted", "verdict": verdict, "ranking": ranking(verdict, keys),
            "slots": keys, "values": "{}"}  # fmt: skip
        votes += [vote | {"annotator": f"annotator-{voter:08x}"} for voter in range(voters)]
    with catalog.writing("votes", found.job):
        store.add_votes(catalog, found.job, found.name, pa.Table.from_pylist(votes, schema=VOTES))


def without_twins(rows: pa.Table) -> list[bytes]:
    return sorted({value.bytes for value in rows["content_hash"].to_pylist()})


@pytest.mark.real_data
@pytest.mark.parametrize(("file", "share"), [
    ("dpo_en_demo.json.gz", "0"), ("hh_rlhf_harmless_base_test.jsonl.gz", "0.05"),
])  # fmt: skip
def test_real_pairs_go_out_and_come_back_as_they_were(catalog, kedge, file: str, share: str):
    name = file.split(".")[0]
    code, _, err = kedge("add", REAL_DATA / "preference" / file)
    if code:
        source = Path(f"catalogs/sources/{name}.yaml")
        source.write_text(source.read_text() + f"reject_share: {share}\n")
        code, _, err = kedge("add", name)
    assert code == 0, err
    before = rows_of(catalog, name)
    found = asked(catalog)
    shown = {item["row_id"].bytes: item for item in found.items.to_pylist()}
    for row in before.slice(0, 50).to_pylist():
        item = shown.get(row["row_id"].bytes)
        if item is not None:
            sides = {one["key"]: one["messages"] for one in item["candidates"]}
            assert (item["prompt"], sides["chosen"], sides["rejected"]) == (
                row["prompt"],
                row["chosen"],
                row["rejected"],
            )
    answer(catalog, found)
    code, _, err = kedge("annotate", "resolve", "again", "--export", "out")
    assert code == 0, err
    after = rows_of(catalog, "again_pairs")
    went = before.filter(pc.is_in(pc.cast(before["row_id"], pa.binary(16)), pa.array(list(shown), pa.binary(16))))
    assert after.num_rows == went.num_rows == found.items.num_rows > 250
    assert contents(after) == contents(went), "chosen and rejected are bytewise what they were"
    code, _, err = kedge("add", "out/trl.jsonl", "--name", "exported")
    assert code == 0, err
    assert contents(rows_of(catalog, "exported")) == contents(went)
    for shape in ("ultrafeedback_binarized", "dpo_mix"):
        assert kedge("add", f"out/{shape}.jsonl", "--name", shape)[0] == 0
        kept = rows_of(catalog, shape)
        assert set(without_twins(kept)) <= set(without_twins(went)) and kept.num_rows > 0.95 * went.num_rows


def test_votes_in_a_table_answer_items_that_a_job_has_shown(catalog, kedge):
    added(kedge, catalog, "pairs", [PLAIN, ALIKE])
    found = asked(catalog)
    items = found.items.to_pylist()
    keys = [one["key"] for one in items[1]["candidates"]]
    Path("sheet.csv").write_text("item_id,annotator,verdict\n"
                                 f"{items[0]['item_id']},anna,chosen\n{items[0]['item_id']},ben,tie\n"
                                 f"{items[1]['item_id']},anna,A\n{items[1]['item_id']},ben,B\n")  # fmt: skip
    done = add_votes(catalog, Path("sheet.csv"), "again")
    assert (done.new_items, done.new_votes) == (0, 4)
    votes = {(vote["item_id"], vote["verdict"]) for vote in store.read_votes(catalog, "again").to_pylist()}
    assert votes == {(items[0]["item_id"], "chosen"), (items[0]["item_id"], "tie"),
                     (items[1]["item_id"], keys[0]), (items[1]["item_id"], keys[1])}  # fmt: skip
    assert {vote["edition"] for vote in store.read_votes(catalog, "again").to_pylist()} == {found.edition}
    Path("sheet.csv").write_text(f"item_id,annotator,verdict\nq1,anna,A\n{items[0]['item_id']},cy,C\n")
    code, _, err = kedge("annotate", "add", "sheet.csv", "--job", "again")
    assert code == 1 and "'q1' is the item_id of no item of the job" in err and "'c' is no candidate" in err
