"""Shares of characters, what broken encodings leave, and the language of rows and answers."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from curation.measures import language
from curation.measuring import named
from tests import REAL_DATA
from tests.lakes import conversation
from tests.signal_rows import of_exchange, of_pair, reasons, turn

ENGLISH = "The weather was fine this morning, and so we walked to the old market by the river."
FRENCH = "Le temps était beau ce matin, et nous sommes allés à pied au vieux marché près de la rivière."
GERMAN = "Das Wetter war heute Morgen schön, deshalb gingen wir zu Fuß zum alten Markt am Fluss."
CHINESE = "今天早上天气很好，所以我们步行去了河边的旧市场。"


def texts(*many: str | None) -> pa.Table:
    return pa.table({"text": pa.array(many, pa.string())})


def characters(text: str) -> dict:
    return named("characters").measure(texts(text), "midtrain").to_pylist()[0]


def languages(*many: str) -> list[str | None]:
    return named("language").measure(texts(*many), "midtrain")["language"].to_pylist()


def test_shares_are_of_all_characters_and_scripts_of_letters():
    found = characters("ab мир 你 سلا 12, +")
    assert {name: round(found[f"{name}_share"] * 18, 6) for name in ("letter", "digit", "punctuation", "symbol",
                                                                     "space", "non_ascii")} == {
        "letter": 9, "digit": 2, "punctuation": 1, "symbol": 1, "space": 5, "non_ascii": 7}  # fmt: skip
    assert [found[f"{name}_share"] * 9 for name in ("latin", "cjk", "cyrillic", "arabic", "other_script")] == (
        pytest.approx([2, 1, 3, 3, 0]))  # fmt: skip
    assert characters("αβγ हिंदी")["other_script_share"] == 1
    assert characters("한국어 かな 漢字 𠀀")["cjk_share"] == 1


def test_a_share_of_nothing_is_null():
    found = characters("")
    assert found["letter_share"] is None and found["answer_broken_share"] is None and found["emoji"] == 0
    assert characters("12 + 3")["latin_share"] is None and characters("你好")["capitals_share"] is None


def test_capitals_are_a_share_of_letters_and_of_words():
    found = characters("STOP it NOW I say")
    assert (found["capitals_share"], found["capital_words_share"]) == (pytest.approx(8 / 13), 2 / 4)


@pytest.mark.parametrize(("text", "name", "count"), [
    ("a\x00b\x07\tc\r\n", "control_chars", 2), ("\ue000\U000f0000", "private_use_chars", 2),
    ("caf\ufffd \ufffd", "replacement_chars", 2), ("🎉 fine ✅ 👍🏽", "emoji", 4), ("x = 5 ✓ → ∞ ©", "emoji", 0),
    ("wow!!!!! aaa", "longest_character_run", 5), ("a      b", "longest_character_run", 1),
])  # fmt: skip
def test_odd_characters_are_counted(text: str, name: str, count: int):
    assert characters(text)[name] == count


@pytest.mark.parametrize(
    "text", ["café", "“quoted” it’s – fine…", "Привет", "日本語", "Ελλάδα", "naïve façade", "€ 5", "©"]
)
def test_utf_8_read_as_latin_1_or_windows_1252_is_mojibake(text: str):
    for encoding in ("latin-1", "cp1252"):
        broken = text.encode().decode(encoding, "ignore")
        whole = sum(character > "\x7f" for character in text)
        assert characters(broken)["mojibake_chars"] >= whole, (encoding, broken)


@pytest.mark.parametrize("text", [
    "Un café « serré » à côté…", "MENÜ“ und „CAFÉ…“", "É… À «non», dit-il", "IRMÃOS e NÃO", "São João, à noite",
    "2×“3”", "El Niño, año — ÑANDÚ", "Ærø, Øst – «ja»", "naïve – “fiancé”", "Привет, «мир»…", "日本語「です」", "ÀÉÎÕÜ",
    FRENCH,
    GERMAN,
])  # fmt: skip
def test_letters_of_many_languages_are_no_mojibake(text: str):
    assert characters(text)["mojibake_chars"] == 0


def test_what_is_broken_in_a_prompt_is_not_the_answers():
    found = of_pair("characters", [turn("user", "Mend cafÃ©\ufffd")], [turn("assistant", "café")],
                    [turn("assistant", "\ufffd\ufffd")])  # fmt: skip
    assert (found["replacement_chars"], found["mojibake_chars"], found["answer_broken_share"]) == (3, 2, 0)


def test_languages_are_named_by_iso_639():
    assert languages(ENGLISH, FRENCH, GERMAN, CHINESE) == ["en", "fr", "de", "zh"]
    table = named("language").measure(texts(ENGLISH), "midtrain").to_pylist()[0]
    assert table["answer_language"] == "en" and 0.9 < table["language_probability"] <= 1
    assert languages(FRENCH.upper(), FRENCH.replace("é", "e\u0301")) == ["fr", "fr"]


def test_too_little_text_has_no_language():
    assert languages("Yes.", "", "2 + 2 = 4 and 3 + 3 = 6", "你好吗") == [None] * 4
    assert (
        named("language")
        .model_copy(update={"least_bytes": 3})
        .measure(texts("Bonjour"), "midtrain")["language"][0]
        .is_valid
    )
    assert languages("https://example.org/the/very/long/path/of/words $\\frac{a}{b} = alpha beta gamma$") == [None]


def test_code_and_formulas_are_no_language():
    code = "```python\nfor value in the_list_of_all_the_values:\n    print(value)  # and this is English\n```\n"
    assert languages(code * 5 + FRENCH) == ["fr"]


def test_of_a_long_text_beginning_and_end_are_read():
    middle = f"{FRENCH} " * 40
    assert languages(middle, f"{ENGLISH} " * 15 + middle + f" {ENGLISH}" * 15) == ["fr", "en"]


def test_row_and_answer_may_differ():
    found = of_exchange("language", FRENCH, f"{ENGLISH} " * 3)
    assert (found["language"], found["answer_language"]) == ("en", "fr")
    assert of_exchange("language", "Ja.", ENGLISH)["answer_language"] is None
    thought = of_exchange("language", f"<think>{ENGLISH * 9}</think>{GERMAN * 2}", ENGLISH)
    assert thought["answer_language"] == "de", "a thought is no answer"
    sides = [turn("user", ENGLISH)], [turn("assistant", FRENCH)], [turn("assistant", GERMAN)]
    assert of_pair("language", *sides)["answer_language"] == "fr"
    assert of_pair("language", sides[0], None, sides[2])["answer_language"] == "de"
    assert of_pair("language", sides[0], sides[1], None)["language"] in ("en", "fr")


def reference(many: list[str]) -> list[tuple[str, float]]:
    """What py3langid itself says, members of a macrolanguage apart."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    return [model.classify(text) for text in many]


def disagreements(many: list[str]) -> list[str]:
    """The texts with some letters for which the kernel does not name py3langid's language, or not as surely."""
    scores, known = language._scores(pl.Series(many), 8)
    names = [language._model()[0][row.argmax()] for row in scores]
    return [
        text
        for (label, probability), name, row, lettered, text in zip(
            reference(many), names, scores, known, many, strict=True)
        if lettered and not (language.MACRO.get(label, label) == name and (
            name in language.MACRO.values() or probability == pytest.approx(row.max(), abs=1e-3)))
    ]  # fmt: skip


def test_the_kernel_says_what_py3langid_says():
    texts = [ENGLISH, FRENCH, GERMAN, CHINESE, FRENCH.upper(), "short", "e\u0301te\u0301", "Привет, как дела?", "שלום",
             "12"]  # fmt: skip
    assert disagreements(texts) == []


@pytest.mark.real_data
def test_the_kernel_says_what_py3langid_says_of_real_texts():
    files = [REAL_DATA / "sft" / f"alpaca_{name}_demo.json.gz" for name in ("en", "zh")]
    rows = [item["output"] for path in files for item in json.loads(gzip.decompress(path.read_bytes()))[:150]]
    assert disagreements([row for row in rows if row]) == []


def test_the_rules_catch_their_rows_with_reasons(catalog, kedge):
    rows = [("Q?", "It costs 5 â‚¬ in the cafÃ©."), (ENGLISH, ENGLISH), (ENGLISH, GERMAN), (FRENCH, FRENCH),
            (ENGLISH, "Fine.")]  # fmt: skip
    Path("a.jsonl").write_text("".join(conversation(*row) for row in rows))
    assert kedge("add", "a.jsonl")[0] == 0
    code, _, err = kedge("measure", "--only", "characters")
    assert code == 0 and "measuring characters of a" in err
    (broken,), foreign = (reasons(catalog, name) for name in ("broken_characters", "foreign_language"))
    assert broken == "17.9 % of the answer are broken characters"
    assert foreign == ["it is in fr, most of its source in en", "its answer is in de, the row in en"]
