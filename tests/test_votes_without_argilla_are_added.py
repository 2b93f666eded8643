"""`kedge annotate add FILE`: votes from tables and arenas become items and votes like any others."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from curation.annotation import store
from curation.annotation.adding import add_votes
from curation.annotation.pseudonyms import pseudonym
from curation.annotation.rounds import latest_round
from curation.annotation.vote_files import read_votes_file
from curation.annotation.vote_shapes import folded, verdict_of
from curation.errors import GateFailed, UserError


@pytest.fixture(autouse=True)
def fixed_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEDGE_ANNOTATOR_KEY", "key")


def lines(name: str, records: list[dict[str, Any]]) -> Path:
    Path(name).write_text("".join(json.dumps(record) + "\n" for record in records))
    return Path(name)


def table(name: str, text: str) -> Path:
    Path(name).write_text(text)
    return Path(name)


def votes_of(catalog, job: str) -> list[dict[str, Any]]:
    return store.read_votes(catalog, job).to_pylist()


def items_of(catalog, job: str) -> list[dict[str, Any]]:
    return store.read_items(catalog, job).to_pylist()


def lake_bytes(catalog) -> dict[str, bytes]:
    return {str(path.relative_to(catalog.lake)): path.read_bytes() for path in catalog.lake.rglob("*")
            if path.is_file() and path.name != "provenance.json" and path.suffix in (".json", ".parquet")}  # fmt: skip


VOTE = {"item": "q1", "annotator": "anna", "verdict": "A", "prompt": "2+2?", "response_a": "4", "response_b": "5",
        "seconds": 12.5, "time": "2026-01-02T03:04:05+01:00", "topic": "sums"}  # fmt: skip


def test_a_line_per_vote_becomes_items_and_votes_under_pseudonyms(catalog):
    file = lines("votes.jsonl", [VOTE, VOTE | {"annotator": "ben", "verdict": "tie", "rationale": "both say it"},
                                 VOTE | {"item": "q2", "verdict": "both bad", "response_b": "6"}])  # fmt: skip
    added = add_votes(catalog, file, "sums")
    assert (added.shape, added.num_items, added.new_votes, added.num_annotators) == ("votes", 2, 3, 2)
    first, second = items_of(catalog, "sums")
    assert [one["key"] for one in first["candidates"]] == ["a", "b"] and first["position"] == 0
    assert first["candidates"][0]["messages"][0]["content"] == "4" and first["topic"] == "sums"
    assert first["prompt"][0]["content"] == "2+2?" and second["position"] == 1 and first["role"] == "item"
    vote = next(vote for vote in votes_of(catalog, "sums") if vote["verdict"] == "a")
    assert vote["annotator"] == pseudonym(catalog.project, "anna") and vote["kind"] == "person"
    assert (vote["seconds"], vote["answered_at"]) == (12.5, "2026-01-02T02:04:05.000000+00:00")
    assert vote["slots"] == ["a", "b"] and [one["rank"] for one in vote["ranking"]] == [1, 2]
    tie = next(vote for vote in votes_of(catalog, "sums") if vote["verdict"] == "tie")
    assert tie["texts"] == [{"question": "rationale", "key": None, "text": "both say it"}]
    assert [one["rank"] for one in tie["ranking"]] == [1, 1]
    assert {vote["verdict"] for vote in votes_of(catalog, "sums")} == {"a", "tie", "both_bad"}
    assert not any("anna" in path.read_bytes().decode(errors="replace") for path in catalog.lake.rglob("manifest.json"))
    assert not any("anna" in str(vote) or "ben" in str(vote) for vote in votes_of(catalog, "sums"))


def test_the_round_of_a_file_says_what_was_asked(catalog):
    add_votes(catalog, lines("votes.jsonl", [VOTE | {"rating_a": 9, "rating_b": 3, "comment": "good"}]), "sums")
    found = latest_round(catalog, "sums")
    kinds = {question.name: (question.kind, question.of) for question in found.questions}
    assert kinds["preference"][0] == "preference" and kinds["rationale"][0] == "text"
    assert kinds["answer_rating"] == ("rating", "candidate")
    assert next(item for item in found.questions if item.kind == "rating").values == list(range(1, 10))
    (vote,) = votes_of(catalog, "sums")
    assert [(one["key"], one["value"]) for one in vote["ratings"]] == [("a", 9), ("b", 3)]
    assert vote["edition"] == found.edition


def test_adding_a_file_again_changes_nothing_and_a_grown_one_adds(catalog):
    file = lines("votes.jsonl", [VOTE, VOTE | {"annotator": "ben"}])
    add_votes(catalog, file, "sums")
    before = lake_bytes(catalog)
    again = add_votes(catalog, file, "sums")
    assert (again.new_items, again.new_votes, again.num_repeated) == (0, 0, 2) and lake_bytes(catalog) == before
    lines("votes.jsonl", [VOTE, VOTE | {"annotator": "ben"}, VOTE | {"annotator": "cy"}, VOTE | {"item": "q9"}])
    grown = add_votes(catalog, file, "sums")
    assert (grown.new_items, grown.new_votes, grown.num_items, grown.num_repeated) == (1, 2, 2, 2)
    assert items_of(catalog, "sums")[1]["position"] == 1


@pytest.mark.parametrize("text", [
    "id,annotator_1,annotator_2,Annotator 3\nx1,A,B,tie\nx2,b,,B\n",
    """id\tvotes\nx1\t"{""annotator_1"": ""A"", ""annotator_2"": ""B"", ""Annotator 3"": ""tie""}"
x2\t"{""annotator_1"": ""b"", ""Annotator 3"": ""B""}"\n""",
])  # fmt: skip
def test_a_line_per_item_holds_the_answers_of_several_annotators(catalog, text: str):
    added = add_votes(catalog, table("wide.tsv" if "\t" in text else "wide.csv", text), "wide")
    assert (added.shape, added.num_items, added.new_votes, added.num_annotators) == ("wide", 2, 5, 3)
    third = pseudonym(catalog.project, "Annotator 3")
    assert sorted(vote["verdict"] for vote in votes_of(catalog, "wide") if vote["annotator"] == third) == ["b", "tie"]
    assert all(one["messages"] == [] for item in items_of(catalog, "wide") for one in item["candidates"])


def test_a_list_of_votes_counts_voters_by_place_or_by_name(catalog):
    file = lines("lists.jsonl", [{"item": "x", "votes": ["A", "B"]}, {"item": "y", "votes": [
        {"annotator": "anna", "label": "A", "seconds": 3}, {"annotator": "ben", "label": "skip"}]}])  # fmt: skip
    add_votes(catalog, file, "lists")
    votes = {(vote["annotator"], vote["verdict"], vote["status"]) for vote in votes_of(catalog, "lists")}
    name = {login: pseudonym(catalog.project, login) for login in ("anna", "ben", "voter 1", "voter 2")}
    assert votes == {(name["voter 1"], "a", "submitted"), (name["voter 2"], "b", "submitted"),
                     (name["anna"], "a", "submitted"), (name["ben"], None, "discarded")}  # fmt: skip
    assert not any("anna" in str(vote["values"]) for vote in votes_of(catalog, "lists"))


def test_a_column_that_begins_late_is_seen(catalog):
    rows = "".join(f"x{n},A,\n" for n in range(300))
    added = add_votes(catalog, table("late.csv", f"id,annotator_1,annotator_2\n{rows}y,A,B\n"), "late")
    assert (added.new_votes, added.num_annotators) == (302, 2)


def test_every_annotator_may_have_a_file_of_their_own(catalog):
    for login in ("anna", "ben"):
        add_votes(catalog, lines(f"{login}.jsonl", [VOTE | {"annotator": login}]), "sums")
    assert len(items_of(catalog, "sums")) == 1 and len(votes_of(catalog, "sums")) == 2


def test_a_command_killed_between_items_and_votes_finishes_when_run_again(catalog, monkeypatch):
    file = lines("votes.jsonl", [VOTE, VOTE | {"item": "q2", "annotator": "ben"}])

    def killed(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(store, "add_votes", killed)
        add_votes(catalog, file, "sums")
    assert len(items_of(catalog, "sums")) == 2 and not votes_of(catalog, "sums")
    assert add_votes(catalog, file, "sums").new_votes == 2
    whole = lake_bytes(catalog)
    add_votes(catalog, file, "other")
    assert len(votes_of(catalog, "sums")) == len(votes_of(catalog, "other")) == 2 and whole.items() <= lake_bytes(
        catalog).items()  # fmt: skip


def battle(number: int, winner: str, **more: Any) -> dict[str, Any]:
    asked = {"role": "user", "content": f"say {number}"}
    return {"question_id": f"h{number}", "model_a": "gpt", "model_b": "llama", "winner": winner,
            "judge": f"arena_user_{number}", "turn": 1, "language": "English", "tstamp": 1682351591.1322,
            "conversation_a": [asked, {"role": "assistant", "content": "yes"}],
            "conversation_b": [asked, {"role": "assistant", "content": "no"}]} | more  # fmt: skip


def test_battles_of_an_arena_name_their_models(catalog):
    file = lines("arena.jsonl", [battle(0, "model_a"), battle(1, "model_b"), battle(2, "tie"),
                                 battle(3, "tie (bothbad)")])  # fmt: skip
    added = add_votes(catalog, file, "arena")
    assert added.shape == "battles" and added.verdicts == {"both_bad": 1, "gpt": 1, "llama": 1, "tie": 1}
    item = items_of(catalog, "arena")[0]
    assert [(one["key"], one["model"]) for one in item["candidates"]] == [("gpt", "gpt"), ("llama", "llama")]
    assert [turn["content"] for turn in item["prompt"]] == ["say 0"]
    assert item["candidates"][0]["messages"][0]["content"] == "yes"
    assert {vote["answered_at"] for vote in votes_of(catalog, "arena")} == {"2023-04-24T15:53:11.132200+00:00"}


def test_battles_where_models_stand_in_either_slot_are_about_one_item(catalog):
    one = battle(0, "model_a", judge="anna")
    swapped = one | {"judge": "ben", "winner": "model_b", "model_a": "llama", "model_b": "gpt",
                     "conversation_a": one["conversation_b"], "conversation_b": one["conversation_a"]}  # fmt: skip
    add_votes(catalog, lines("arena.jsonl", [one, swapped]), "arena")
    assert len(items_of(catalog, "arena")) == 1
    assert {vote["verdict"] for vote in votes_of(catalog, "arena")} == {"gpt"}
    assert sorted(vote["slots"] for vote in votes_of(catalog, "arena")) == [["gpt", "llama"], ["llama", "gpt"]]


def test_the_same_answers_in_the_other_order_are_about_one_item_without_models_too(catalog):
    swapped = VOTE | {"annotator": "ben", "verdict": "B", "response_a": "5", "response_b": "4"}
    add_votes(catalog, lines("votes.jsonl", [VOTE, swapped]), "sums")
    assert len(items_of(catalog, "sums")) == 1
    assert {(vote["verdict"], tuple(vote["slots"])) for vote in votes_of(catalog, "sums")} == {
        ("a", ("a", "b")), ("a", ("b", "a"))}  # fmt: skip


def test_a_judgement_of_the_first_turn_shows_the_first_turn(catalog):
    more = [{"role": "user", "content": "and now?"}, {"role": "assistant", "content": "still"}]
    two = battle(0, "model_a")
    two |= {side: two[side] + more for side in ("conversation_a", "conversation_b")}
    add_votes(catalog, lines("bench.jsonl", [two, two | {"turn": 2, "winner": "model_b"}]), "bench")
    first, second = items_of(catalog, "bench")
    assert [len(one["messages"]) for one in first["candidates"]] == [1, 1]
    assert [len(one["messages"]) for one in second["candidates"]] == [3, 3]


def test_battles_with_one_text_a_turn_and_columns_of_winners_are_read(catalog):
    row = {"id": "30192", "model_a": "m1", "model_b": "m2", "prompt": '["one?", "two?"]', "winner_model_a": 0,
           "response_a": '["1", "2"]', "response_b": '["i", null]', "winner_model_b": 1, "winner_tie": 0}  # fmt: skip
    with Path("lmsys.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(row))
        writer.writeheader()
        writer.writerows([row, row | {"winner_model_b": 0, "winner_tie": 1}])
    added = add_votes(catalog, Path("lmsys.csv"), "lmsys")
    assert added.verdicts == {"m2": 1, "tie": 1} and added.num_items == 1 and added.num_annotators == 2
    (item,) = items_of(catalog, "lmsys")
    assert [turn["content"] for turn in item["prompt"]] == ["one?"]
    assert [turn["content"] for turn in item["candidates"][1]["messages"]] == ["i", "two?", ""]


def test_battles_without_texts_are_items_of_their_own_and_stay_the_same_ones(catalog):
    meeting = {"model_a": "m1", "model_b": "m2", "winner": "model_a", "tstamp": 1.5}
    file = lines("clean.jsonl", [meeting, meeting, meeting | {"winner": "tie"}])
    assert add_votes(catalog, file, "clean").num_items == 3
    again = add_votes(catalog, file, "clean")
    assert (again.new_items, again.new_votes, again.num_repeated) == (0, 0, 3)


def test_labels_that_are_numbers_are_never_guessed(catalog, kedge):
    records = [{"item": f"q{n}", "annotator": "anna", "label": n % 2} for n in range(4)]
    lines("numbers.jsonl", records)
    code, _, err = kedge("annotate", "add", "numbers.jsonl")
    assert code == 2 and "what its labels mean is not known (0, 1)" in err and "numbers.jsonl.yaml" in err
    Path("numbers.jsonl.yaml").write_text("verdicts: {0: a, 1: b}\n")
    code, out, err = kedge("annotate", "add", "numbers.jsonl", "--json")
    assert code == 0 and json.loads(out)["verdicts"] == {"a": 2, "b": 2}, err


@pytest.mark.parametrize(("records", "said"), [
    ([{"text": "x", "stars": 3}], ("looked for (votes)", "stars.jsonl.yaml")),
    ([{"item": "q", "annotator": "anna", "label": "A", "choice": "B"}], ("'label' and 'choice' could each be",)),
    ([{"item": "q", "annotator": "anna", "label": "A", "annotator_1": "B"}], ("could be wide or votes",)),
    ([{"item": "q", "annotator": "anna", "label": "better"}], ("what its labels mean is not known (better)",)),
])  # fmt: skip
def test_columns_that_do_not_speak_for_themselves_are_told_with_a_step(catalog, kedge, records, said):
    lines("stars.jsonl", records)
    code, _, err = kedge("annotate", "add", "stars.jsonl")
    assert code == 2 and all(word in err for word in said) and "Traceback" not in err


def test_a_file_beside_it_names_columns_and_labels(catalog):
    file = table("odd.tsv", "case\twho\tsays\tleft\tq1\tq2\nc1\tanna\tL\tx\ty\tz\nc1\tben\tR\tx\ty\tz\n")
    Path("odd.tsv.yaml").write_text(
        "shape: votes\nfields: {item: case, annotator: who, verdict: says, prompt: left,\n"
        "         response_a: q1, response_b: q2}\n"
        "verdicts: {L: a, R: b}\n"
    )
    added = add_votes(catalog, file, "odd")
    assert added.verdicts == {"a": 1, "b": 1} and added.num_items == 1
    Path("odd.tsv.yaml").write_text("fields: {item: kase, annotater: who}\nannotators: [nobody]\n")
    with pytest.raises(UserError, match="there is no role 'annotater'; did you mean 'annotator'"):
        add_votes(catalog, file, "odd")
    Path("odd.tsv.yaml").write_text("fields: {item: kase, annotator: who}\nannotators: [nobody]\n")
    with pytest.raises(UserError, match="there is no column 'kase'") as caught:
        add_votes(catalog, file, "odd")
    assert "there is no column 'nobody'" in str(caught.value)


def test_rejects_are_kept_with_their_line_and_stop_the_command(catalog, kedge):
    bad = [VOTE | {"verdict": "neither"}, VOTE | {"seconds": -1}, VOTE | {"time": "soon"}, VOTE | {"annotator": ""},
           VOTE | {"response_b": ""}, VOTE | {"rating": 4.5}]  # fmt: skip
    Path("votes.jsonl").write_text("".join(json.dumps(one) + "\n" for one in [VOTE, *bad]) + "{broken, says anna\n")
    code, _, err = kedge("annotate", "add", "votes.jsonl", "--job", "sums")
    assert code == 1 and "votes.jsonl:2: the label 'neither'" in err and "7 of 8 votes were rejected" in err
    assert "reject_share: 0.875 in votes.jsonl.yaml" in err and not votes_of(catalog, "sums")
    ((folder, manifest),) = catalog.manifests("rejects")
    rows = pq.read_table(folder / manifest.parts[0].name).to_pylist()
    assert [row["line"] for row in rows] == [2, 3, 4, 5, 6, 7, 8] and folder.name == "votes-sums"
    assert not any("anna" in row["record"] for row in rows), "rejects do not say who voted"
    Path("votes.jsonl.yaml").write_text("reject_share: 0.9\n")
    code, out, _ = kedge("annotate", "add", "votes.jsonl", "--job", "sums", "--json")
    assert code == 0 and (json.loads(out)["num_rejects"], json.loads(out)["new_votes"]) == (7, 1)
    lines("votes.jsonl", [VOTE])
    assert kedge("annotate", "add", "votes.jsonl", "--job", "sums")[0] == 0
    ((folder, manifest),) = catalog.manifests("rejects")
    assert manifest.num_rows == 0, "what was mended is a reject no more"


def test_two_answers_of_one_annotator_without_a_time_are_refused_and_with_times_the_last_counts(catalog):
    bare = {key: value for key, value in VOTE.items() if key != "time"}
    with pytest.raises(GateFailed, match="in two ways"):
        add_votes(catalog, lines("votes.jsonl", [bare, bare | {"verdict": "B"}]), "sums")
    later = VOTE | {"verdict": "B", "time": "2026-01-03T00:00:00Z"}
    add_votes(catalog, lines("votes.jsonl", [later, VOTE]), "sums")
    (last,) = store.current(store.read_votes(catalog, "sums")).to_pylist()
    assert last["verdict"] == "b" and len(votes_of(catalog, "sums")) == 2


def test_a_line_that_shows_nothing_is_about_the_one_item_of_its_name(catalog):
    short = {"item": "q1", "annotator": "ben", "verdict": "B"}
    add_votes(catalog, lines("votes.jsonl", [short, VOTE]), "sums")
    assert len(items_of(catalog, "sums")) == 1
    with pytest.raises(GateFailed, match="2 comparisons stand under the name 'q1'"):
        add_votes(catalog, lines("more.jsonl", [VOTE | {"annotator": "cy", "response_b": "7"}, short]), "other_sums")
        add_votes(catalog, lines("more.jsonl", [VOTE | {"response_b": "7"}, VOTE, short]), "third_sums")


def test_votes_of_models_keep_their_names_and_are_votes_of_judges(catalog):
    file = lines("votes.jsonl", [VOTE | {"annotator": "gpt-x"}])
    Path("votes.jsonl.yaml").write_text("kind: judge\n")
    add_votes(catalog, file, "sums")
    assert [(vote["annotator"], vote["kind"]) for vote in votes_of(catalog, "sums")] == [("judge-gpt-x", "judge")]


@pytest.mark.parametrize(("label", "said"), [
    ("A", "a"), ("model_b", "b"), ("Answer B", "b"), ("A > B", "a"), ("B>>A", "b"), ("Tie", "tie"), ("a=b", "tie"),
    ("tie (bothbad)", "both_bad"), ("Both bad", "both_bad"), ("gpt", "a"), ("", "none"), (None, "none"),
    ("skip", "none"), (1, None), ("1", None), (True, None), ("neither", None), ("C", None),
])  # fmt: skip
def test_labels_are_read_by_their_words(label: Any, said: str | None):
    assert verdict_of(label, {}, ("gpt", "llama")) == said


def test_numbers_keep_their_sign_where_labels_are_compared():
    assert [folded(value) for value in (-1, "1.0", 1, " Annotator-1 ", "+2")] == ["-1", "1", "1", "annotator_1", "2"]


@pytest.mark.parametrize("name", ["nowhere.jsonl", "empty.jsonl", "votes.docx"])
def test_a_file_that_cannot_be_read_is_told(catalog, kedge, name: str):
    if name != "nowhere.jsonl":
        Path(name).touch()
    code, _, err = kedge("annotate", "add", name)
    assert code == 2 and name in err and "Traceback" not in err


def test_a_name_that_is_no_name_of_a_job_is_refused(catalog, kedge):
    lines("votes.jsonl", [VOTE])
    code, _, err = kedge("annotate", "add", "votes.jsonl", "--job", "My job")
    assert code == 2 and "--job" in err
    assert read_votes_file(Path("votes.jsonl")).num_lines == 1
