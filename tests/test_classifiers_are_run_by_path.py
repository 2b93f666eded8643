"""Sequence classifiers are run from a path: transformers folders and fastText files, and nothing that is pickled."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curation import schema
from curation.errors import UserError
from curation.measures.classifier import Classifier
from curation.measures.skills import Skills
from tests.lakes import conversation

TEXTS = ("2+2 is four, as everyone knows", "you absolute fool", "é 中文", "a" * 500)
LABELS = ["kind", "rude", "neither"]


def fasttext_file(words: dict[str, tuple[float, ...]], labels: list[str]) -> bytes:
    """A supervised fastText model in its own format (version 12): the vectors of words, and labels whose vectors are
    the unit vectors; the softmax over a text is that of the mean of its words."""
    size = len(labels)
    entries = [(word, 0) for word in words] + [(f"__label__{label}", 1) for label in labels]
    header = struct.pack("<2i12id", 793712314, 12, size, 5, 5, 1, 5, 1, 3, 3, 0, 0, 0, 100, 1e-4)
    dictionary = struct.pack("<3i2q", len(entries), len(words), size, 100, -1)
    dictionary += b"".join(text.encode() + struct.pack("<bqb", 0, 9, kind) for text, kind in entries)
    vectors = np.array([*words.values()], "<f4").tobytes()
    given = struct.pack("<?2q", False, len(words), size) + vectors
    return header + dictionary + given + struct.pack("<?2q", False, size, size) + np.eye(size, dtype="<f4").tobytes()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of random classifiers (`three` labels, `many` of which several may hold, one `grade`) and a
    fastText file `rude.bin`."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from curation.quickstart.tiny_model import make_tokenizer

    base = tmp_path_factory.mktemp("models")
    for name, more in (("three", {}), ("many", {"problem_type": "multi_label_classification"}), ("grade", None)):
        make_tokenizer(base / name, ["you are a fool and everyone knows it"] * 4, vocabulary=300)
        torch.manual_seed(3)
        labels = {"num_labels": 1} if more is None else {"id2label": dict(enumerate(LABELS))}
        config = BertConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                            intermediate_size=64, max_position_embeddings=128, initializer_range=0.5, pad_token_id=0,
                            **labels, **(more or {}))  # fmt: skip
        BertForSequenceClassification(config).save_pretrained(base / name)
    (base / "rude.bin").write_bytes(fasttext_file({"fool": (2.0, 0.0), "dear": (0.0, 2.0)}, ["rude", "kind"]))
    return base


def rows(answers: list[str | None], prompt: str = "Hi") -> pa.Table:
    turns = [[{"role": "user", "content": prompt}, {"role": "assistant", "content": text}] for text in answers]
    return pa.table({"messages": pa.array(turns, schema.MESSAGES)})


def test_a_folder_gives_the_probabilities_that_transformers_gives(models: Path):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    found = Classifier(path=str(models / "three")).measure(rows(list(TEXTS)), "sft").to_pylist()
    tokenizer = AutoTokenizer.from_pretrained(models / "three")
    model = AutoModelForSequenceClassification.from_pretrained(models / "three").eval()
    for text, row in zip(TEXTS, found, strict=True):
        with torch.inference_mode():
            logits = model(**tokenizer(text, return_tensors="pt", truncation=True, max_length=128)).logits[0]
        expected = logits.double().softmax(-1).numpy()
        assert np.allclose(row["classifier_scores"], expected, atol=1e-4)
        assert row["classifier_label"] == LABELS[expected.argmax()]
        assert row["classifier_score"] == max(row["classifier_scores"])
    assert len({row["classifier_label"] for row in found}) > 1, "the texts are told apart"


def test_a_row_has_the_same_values_alone_and_among_others(models: Path):
    measure = Classifier(path=str(models / "three"))
    table = rows([*TEXTS, None, ""])
    alone = pa.concat_tables([measure.measure(table.slice(n, 1), "sft") for n in range(len(table))])
    assert alone.equals(measure.measure(table, "sft")) and alone.schema.equals(measure.columns)
    assert [value is None for value in alone["classifier_score"].to_pylist()] == [False] * 4 + [True] * 2
    batched = Classifier(path=str(models / "three"), batch_size=3).measure(table.slice(0, 4), "sft")
    for row, one in zip(batched.to_pylist(), alone.to_pylist(), strict=False):
        assert np.allclose(row["classifier_scores"], one["classifier_scores"], atol=2e-4)


def test_labels_that_hold_together_and_grades_keep_their_meaning(models: Path):
    many = Classifier(path=str(models / "many"), label="rude").measure(rows(list(TEXTS)), "sft").to_pylist()
    assert any(abs(sum(row["classifier_scores"]) - 1) > 0.05 for row in many), "each label has a probability of its own"
    assert [row["classifier_score"] for row in many] == [row["classifier_scores"][1] for row in many]
    (grade,) = Classifier(path=str(models / "grade")).measure(rows(["so so"]), "sft").to_pylist()
    assert grade["classifier_label"] is None and grade["classifier_scores"] == [grade["classifier_score"]]


def test_the_text_is_the_answer_the_prompt_or_everything(models: Path):
    table = rows(["you dear"], prompt="you fool")
    read = {text: Classifier(path=str(models / "rude.bin"), text=text) for text in ("answer", "whole", "prompt")}
    found = {text: measure.measure(table, "sft").to_pylist()[0] for text, measure in read.items()}
    assert (found["answer"]["classifier_label"], found["prompt"]["classifier_label"]) == ("kind", "rude")
    scores = [row["classifier_scores"] for row in found.values()]
    assert scores == sorted(scores) and len(set(map(tuple, scores))) == 3, "everything lies between"
    asked, fine, bad = ([{"role": role, "content": text}] for role, text in
                        (("user", "Hi"), ("assistant", "you dear"), ("assistant", "you fool")))  # fmt: skip
    pairs = pa.table({name: pa.array(turns, schema.MESSAGES) for name, turns in
                      (("prompt", [asked] * 2), ("chosen", [fine, None]), ("rejected", [bad, bad]))})  # fmt: skip
    found = Classifier(path=str(models / "rude.bin")).measure(pairs, "preference")
    assert found["classifier_label"].to_pylist() == ["kind", "rude"], "the chosen side, else the rejected one"


def test_a_fasttext_file_gives_its_probabilities_in_the_order_of_its_labels(models: Path):
    table = rows(["you fool", "dear fool", "fool\ndear\ndear", "?"])
    found = Classifier(path=str(models / "rude.bin")).measure(table, "sft")
    scores = found["classifier_scores"].to_pylist()
    for row, logits in zip(scores, ((2, 0), (1, 1), (2 / 3, 4 / 3)), strict=False):
        assert row == pytest.approx(np.exp(logits) / np.exp(logits).sum(), abs=1e-4)
    assert scores[3] is None, "it knows no word of it"
    assert found["classifier_label"].to_pylist() == ["rude", "rude", "kind", None]


def test_only_the_first_tokens_are_read(models: Path):
    short, long = "dear " * 3, "dear " * 3 + "fool " * 50
    measure = Classifier(path=str(models / "rude.bin"), max_tokens=3)
    first, second = measure.measure(rows([short, long]), "sft")["classifier_scores"].to_pylist()
    assert first == second
    found = Classifier(path=str(models / "rude.bin")).measure(rows([long]), "sft")
    assert found["classifier_label"].to_pylist() == ["rude"]


def test_the_identity_is_the_bytes_of_the_model_and_not_its_place(models: Path, tmp_path: Path):
    here = Classifier(path=str(models / "three"))
    shutil.copytree(models / "three", tmp_path / "copy")
    there = Classifier(path=str(tmp_path / "copy"))
    assert here.fingerprint() == there.fingerprint() and str(models) not in json.dumps(here.identity())
    assert here.fingerprint() != Classifier(path=str(models / "three"), max_tokens=5).fingerprint()
    config = json.loads((tmp_path / "copy" / "config.json").read_text())
    (tmp_path / "copy" / "config.json").write_text(json.dumps(config | {"id2label": {"0": "a", "1": "b", "2": "c"}}))
    assert Classifier(path=str(tmp_path / "copy")).fingerprint() != here.fingerprint()
    with pytest.raises(RuntimeError, match="changed while it was in use"):
        there.measure(rows(["x"]), "sft")


def broken(models: Path, tmp_path: Path, kind: str) -> Path:
    folder = tmp_path / kind
    shutil.copytree(models / "three", folder)
    if kind == "pickled":
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    elif kind == "custom":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "evil.Model"}}))
    elif kind == "strange":
        (folder / "weights.pt").write_bytes(b"pickle")
        return folder / "weights.pt"
    elif kind == "nothing":
        return folder / "nothing"
    elif kind == "no_fasttext":
        (folder / "wrong.bin").write_bytes(b"no fastText file")
        return folder / "wrong.bin"
    return folder


@pytest.mark.parametrize(("kind", "expected"), [
    ("pickled", "holds pickled weights, which are never loaded"), ("custom", "needs code of its own"),
    ("strange", "is no classifier that kedge loads"), ("nothing", "there is no classifier at"),
    ("no_fasttext", "cannot be loaded"),
])  # fmt: skip
def test_what_is_no_safe_classifier_is_refused(models: Path, tmp_path: Path, kind: str, expected: str):
    with pytest.raises(UserError, match=expected):
        Classifier(path=str(broken(models, tmp_path, kind))).measure(rows(["x"]), "sft")


def test_a_language_model_without_a_head_and_an_unknown_label_are_refused(models: Path, tiny_model: Path):
    with pytest.raises(UserError, match="is no sequence classifier: it lacks"):
        Classifier(path=str(tiny_model)).measure(rows(["x"]), "sft")
    with pytest.raises(UserError, match="did you mean 'rude'"):
        Classifier(path=str(models / "three"), label="rud")
    pytest.importorskip("fasttext", reason="needs the extra 'scale'")
    with pytest.raises(UserError, match="the classifier has no label 'rud'; did you mean 'rude'"):
        Classifier(path=str(models / "rude.bin"), label="rud").measure(rows(["you fool"]), "sft")


def test_without_a_model_nothing_is_measured(catalog):
    found = Classifier().measure(rows(["x"]), "sft").to_pylist()
    assert found == [{"classifier_label": None, "classifier_score": None, "classifier_scores": None}]
    with pytest.raises(UserError, match=r"kedge\.yaml names no classifier 'toxicity'"):
        Classifier(name="toxicity")


def test_one_rule_reads_two_classifiers(models: Path, catalog, kedge):
    shutil.copytree(models, "models")
    Path("a.jsonl").write_text(conversation("Hi", "you dear") + conversation("Hello", "what a fool"))
    assert kedge("add", "a.jsonl")[0] == 0
    Path("catalogs/rules").mkdir()
    needs = ("[{classifier: {name: tone, path: models/rude.bin, label: rude}}, {classifier: {name: other, path: "
             "models/three}}]")  # fmt: skip
    query = ("SELECT row_id, tone_label || ' ' || round(tone_score, 1) AS reason FROM signals WHERE tone_score > 0.5 "
             "AND other_label IS NOT NULL")  # fmt: skip
    Path("catalogs/rules/rude.sql").write_text(f"/* ---\nstage: sft\nneeds: {needs}\n--- */\n{query}")
    code, out, err = kedge("rules", "--json")
    assert code == 0, err
    (item,) = [item for item in (json.loads(out)["rules"] if isinstance(json.loads(out), dict) else json.loads(out))
               if item["rule"] == "rude"]  # fmt: skip
    assert item["caught"] == 1 and item["example"].startswith("rude ")


def test_a_classifier_tells_the_skill_where_nothing_else_does(models: Path):
    table = rows(["x"] * 2).append_column("source", pa.array(["s"] * 2)).append_column("meta", pa.array(["{}"] * 2))
    told = pa.array([[{"role": "user", "content": text}] for text in ("you fool", "Translate it into French: hi")],
                    schema.MESSAGES)  # fmt: skip
    table = table.set_column(0, "messages", told)
    measure = Skills(classifier={"path": str(models / "rude.bin"), "text": "prompt"})
    assert measure.measure(table, "sft").to_pylist() == [
        {"skill": "rude", "skill_by": "classifier"}, {"skill": "translation", "skill_by": "map"}]  # fmt: skip
    assert measure.fingerprint() != Skills().fingerprint()
