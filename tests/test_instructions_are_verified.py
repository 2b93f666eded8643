"""Instructions that a machine can check are checked as IFEval checks them."""

from __future__ import annotations

import ast
import gzip
import json
import random
import subprocess
import sys
from typing import Any

import pytest

from curation.verifiers import attacks, instructions, named
from curation.verifiers.instructions import CHECKS, Instruction, follow, sentences
from curation.verifiers.named import Item
from tests import REAL_DATA

ENGLISH = "The harbour was quiet in the morning and the ships lay at anchor"
GERMAN = "Der Hafen war am Morgen still und die Schiffe lagen ruhig vor Anker"
# name -> (arguments, texts that follow, texts that do not)
CASES: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "keywords:existence": ({"keywords": ["tide", "a+b"]}, ["Tide and a+b"], ["tide", "tide aab"]),
    "keywords:frequency": ({"keyword": "sea", "frequency": 2, "relation": "at least"}, ["sea, Seaside"], ["sea"]),
    "keywords:forbidden_words": ({"forbidden_words": ["cat", "dog"]}, ["category"], ["A Dog."]),
    "keywords:letter_frequency": (
        {"letter": "E", "let_frequency": 3, "let_relation": "less than"}, ["tree"], ["trees are", "eee"]),
    "language:response_language": ({"language": "de"}, [GERMAN], [ENGLISH]),
    "length_constraints:number_sentences": (
        {"num_sentences": 3, "relation": "less than"}, ["Mr. A. Fox has 3.5 of e.g. these. Yes!"],
        ["One. Two. Three."]),
    "length_constraints:number_paragraphs": (
        {"num_paragraphs": 2}, ["a\n***\nb", "***\na\n***\nb"], ["a", "a\n***\n***\nb"]),
    "length_constraints:number_words": ({"num_words": 3, "relation": "at least"}, ["a b-c"], ["a b"]),
    "length_constraints:nth_paragraph_first_word": (
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"}, ["a\n\n'Then, b"], ["then\n\nb", "then"]),
    "detectable_content:number_placeholders": ({"num_placeholders": 2}, ["[a] and [b c]"], ["[a] [b", "[a\n]"]),
    "detectable_content:postscript": ({"postscript_marker": "P.P.S"}, ["x\np. p.s y"], ["x\nP.S. y"]),
    "detectable_format:number_bullet_lists": ({"num_bullets": 2}, ["* a\n - b", "x\n* a\n* b"], ["* a", "** a\n* b"]),
    "detectable_format:constrained_response": ({}, ["So: My answer is no."], ["My answer is no"]),
    "detectable_format:number_highlighted_sections": (
        {"num_highlights": 2}, ["*a* *b*", "**a** *b*"], ["*a*", "** * **"]),
    "detectable_format:multiple_sections": (
        {"section_spliter": "SECTION", "num_sections": 2}, ["SECTION 1\na\nSECTION 2\nb"], ["Section 1 Section 2"]),
    "detectable_format:json_format": ({}, ['```json\n{"a": 1}\n```', "[1]"], ["{a: 1}", "Here: {}"]),
    "detectable_format:title": ({}, ["<<Tides>>\nx"], ["<< >> x", "<<a\n>>"]),
    "combination:two_responses": ({}, ["a******b"], ["a******a", "a", "a******b******c"]),
    "combination:repeat_prompt": ({"prompt_to_repeat": "Why so?"}, ["why so? Because."], ["So why so?"]),
    "startend:end_checker": ({"end_phrase": "The end."}, ['All.\n"the end."'], ["The end. Or not."]),
    "startend:quotation": ({}, ['"all of it"'], ['"a" b']),
    "change_case:capital_word_frequency": (
        {"capital_frequency": 2, "capital_relation": "at least"}, ["A WELL-KNOWN thing"],
        ["WELL-KNOWN thing", "Abc 12"]),
    "change_case:english_capital": ({}, [ENGLISH.upper()], [ENGLISH, GERMAN.upper()]),
    "change_case:english_lowercase": ({}, [ENGLISH.lower()], [ENGLISH, GERMAN.lower()]),
    "punctuation:no_comma": ({}, ["a; b"], ["a, b"]),
}  # fmt: skip


def strict(text: str, name: str, arguments: dict[str, Any]) -> bool:
    return follow(text, [Instruction(name, arguments)]).strict[0]


def test_every_kind_of_instruction_is_followed_and_broken():
    assert set(CASES) == set(CHECKS)
    wrong = [(name, text) for name, (arguments, kept, broken) in CASES.items()
             for texts, expected in ((kept, True), (broken, False)) for text in texts
             if strict(text, name, arguments) != expected]  # fmt: skip
    assert wrong == []


def test_loose_accuracy_forgives_a_first_line_a_last_line_and_asterisks():
    kinds = [Instruction("startend:end_checker", {"end_phrase": "done"}), Instruction("startend:quotation", {})]
    assert follow('Sure:\n"*this* is done"\nAnything else?', kinds) == ((False, False), (True, True))
    assert follow("**done**", kinds[:1]) == ((False,), (True,))


def test_an_answer_is_right_where_every_instruction_is_followed_and_has_its_share_otherwise():
    gold = json.dumps([{"id": "punctuation:no_comma", "kwargs": {}},
                       {"id": "keywords:existence", "kwargs": {"keywords": ["tide"], "unused": None}}])  # fmt: skip
    texts = ["high tide", "high, tide", "low", "a, b", "", "<think>no", "<think>a, b</think>\n\ntide"]
    graded = named.grade_all([Item("instructions", text, gold, "Write of the tide.") for text in texts])
    assert [item.judgement.state for item in graded] == [
        "right", "wrong", "wrong", "wrong", "unparsed", "unparsed", "right"]  # fmt: skip
    assert [item.share for item in graded] == [1, 0.5, 0.5, 0, 0, 0, 1]
    assert graded[1].detail == "punctuation:no_comma"
    echoed = json.dumps([{"id": "combination:repeat_prompt", "kwargs": {"prompt_to_repeat": "Write two words."}}])
    item = Item("instructions", "Write two words. Tide, sea.", echoed, "Write two words.")
    assert named.judge_all([item])[0].state == "right", "the prompt's echo is what was asked for"


@pytest.mark.parametrize("gold", [
    "", "[]", "{}", "no_comma", '["punctuation:no_comma"]', '[{"id": "punctuation:no_commas"}]',
    '[{"id": "keywords:existence"}]', '[{"id": "keywords:existence", "kwargs": {"keywords": []}}]',
    '[{"id": "punctuation:no_comma", "kwargs": {"num_words": 3}}]',
    '[{"id": "length_constraints:number_words", "kwargs": {"num_words": "3", "relation": "at least"}}]',
    '[{"id": "length_constraints:number_words", "kwargs": {"num_words": 3, "relation": "at most"}}]',
])  # fmt: skip
def test_a_ground_truth_that_is_no_list_of_instructions_is_an_error(gold: str):
    with pytest.raises(ValueError, match=r"instruction|takes|cannot be"):
        instructions.judge("text", gold)
    assert named.judge_all([Item("instructions", "text", gold)])[0].state == "error"


def test_answers_that_say_nothing_follow_nothing():
    for name, (arguments, _, _) in CASES.items():
        gold = json.dumps([{"id": name, "kwargs": arguments}])
        items = [Item("instructions", text, gold, "Why?")
                 for _, text in attacks.attacks("instructions", gold, "Why?")]  # fmt: skip
        assert {item.state for item in named.judge_all(items)} == {"unparsed"}, name


def test_hostile_texts_are_checked_in_time_that_is_linear_in_them():
    texts = ["[" * 100_000, "<<" * 50_000, "\n" * 100_000 + "a", "." * 100_000 + "a", "*" * 100_000 + "a",
             "a " * 50_000, "-" * 100_000 + "1", "(" * 100_000 + "a", "A-" * 50_000, "```" * 30_000 + "a"]  # fmt: skip
    kinds = [Instruction(name, arguments) for name, (arguments, _, _) in CASES.items() if "language" not in name
             and "english" not in name]  # fmt: skip
    for text in texts:
        assert len(follow(text, kinds).loose) == len(kinds)


def test_sentences_end_at_their_marks():
    assert sentences("Dr. Fox paid 3.50 at no. 4, etc. and left... Why? \"Who knows!\" he said.") == [
        "Dr. Fox paid 3.50 at no.", "4, etc. and left...", "Why?", '"Who knows!"', "he said."]  # fmt: skip
    assert sentences("海很静。船很多！") == ["海很静。", "船很多！"] and sentences("...") == []


DIFFERENTIAL = """
import json, sys
from lighteval.tasks.tasks.ifeval.instructions_registry import INSTRUCTION_DICT
from lighteval.tasks.tasks.ifeval.main import _preprocess_response
found = []
for name, arguments, text in json.load(sys.stdin):
    check = INSTRUCTION_DICT[name](name)
    check.build_description(**{key: value for key, value in arguments.items() if value})
    forms = _preprocess_response(text)
    found.append([any(form.strip() and bool(check.check_following(form)) for form in part) for part in ([text], forms)])
print(json.dumps([sorted(INSTRUCTION_DICT), found]))
"""
MODELS = {
    "language:response_language",
    "length_constraints:number_sentences",
    "change_case:capital_word_frequency",
    "change_case:english_capital",
    "change_case:english_lowercase",
}  # fmt: skip  what LightEval needs models for
PARTS = ["\n\n", "\n", "\n* point", "\n- dash", "\n***\n", "******", " *high* ", " **bold**", "[place]", " [a b]",
         "<<Title>>", "<< >>", "\nSection 1\n", "SECTION 2 ", "\nP.S. x", " p.p.s y", "```json\n{\"a\": 1}\n```", '"',
         " My answer is yes.", " CAPS", " tide", " then", "Why so?", " The end.", "e" * 5, ","]  # fmt: skip


def compared(cases: list[tuple[str, dict[str, Any], str]]) -> list[tuple[str, str]]:
    """Where LightEval's own code says otherwise. Texts keep a letter in every loose form, without which we say no."""
    done = subprocess.run([sys.executable, "-c", DIFFERENTIAL], input=json.dumps(cases), text=True, capture_output=True,
                          check=False)  # fmt: skip
    if done.returncode and "ModuleNotFoundError" in done.stderr:
        pytest.skip("LightEval is not installed")
    assert done.returncode == 0, done.stderr
    kinds, theirs = json.loads(done.stdout.splitlines()[-1])
    assert kinds == sorted(CHECKS)
    mine = [follow(text, [Instruction(name, arguments)]) for name, arguments, text in cases]
    assert 0.1 < sum(one.strict[0] for one in mine) / len(mine) < 0.9
    return [(name, text) for (name, _, text), one, other in zip(cases, mine, theirs, strict=True)
            if [one.strict[0], one.loose[0]] != other]  # fmt: skip


def real() -> list[tuple[str, dict[str, Any], str]]:
    """Instructions of IFEval itself, with texts made of its prompts."""
    if not REAL_DATA.is_dir():
        return []
    with gzip.open(REAL_DATA / "benchmarks" / "ifeval.jsonl.gz", "rt") as stream:
        rows = [json.loads(line) for line in stream]
    rng = random.Random(1)
    found = []
    for row in rows:
        pairs = zip(_list(row["instruction_id_list"]), _list(row["kwargs"]), strict=True)
        gold = [{"id": name, "kwargs": kwargs} for name, kwargs in pairs]
        for name, arguments in instructions.read_instructions(json.dumps(gold)):
            text = f"{rng.choice(rows)['prompt']}{''.join(rng.choices(PARTS, k=3))}\nw x"
            if name not in MODELS and arguments.get("letter", "a").isalpha():  # theirs is a random one for '#'
                found.append((name, arguments, text))
    return found


def test_strict_and_loose_verdicts_are_those_of_lighteval():
    rng = random.Random(0)
    cases = []
    for name, (arguments, kept, broken) in CASES.items():
        if name == "keywords:existence":  # theirs are patterns: no "a+b"
            arguments = {"keywords": ["tide", "point"]}
        for _ in range(60 if name not in MODELS else 0):
            text = rng.choice([*kept, *broken]) + "".join(rng.choices(PARTS, k=rng.randint(0, 5)))
            cases.append((name, arguments, f"a b {text}\nc\nd" if rng.random() < 0.5 else f"{text}\nw x\ny z"))
    assert compared(cases + real()) == []


def _list(value: Any) -> list[Any]:
    return ast.literal_eval(value) if isinstance(value, str) else value
