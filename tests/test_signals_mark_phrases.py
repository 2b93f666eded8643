"""Refusals, self-reference, forms left unfilled and marks of templates: what trips each signal, and what must not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from curation import phrases, schema
from curation.measuring import named
from curation.rules import load_rules
from tests import REAL_DATA
from tests.lakes import conversation
from tests.signal_rows import of_exchange, of_pair, reasons, turn


def measured(answer: str, question: str = "a?") -> dict:
    """The signals of one exchange."""
    return of_exchange("phrases", answer, question)


@pytest.mark.parametrize("answer", [
    "I'm sorry, but I can't assist with that request.", "I’m sorry, but I can’t help you with that.",
    "I cannot provide instructions on how to do this.", "As an AI language model, I don't have access to your files.",
    "Unfortunately, I'm unable to book a table.", "It is not appropriate for me to discuss this.",
    "I must respectfully decline.", "<think>They want a weapon. No.</think>\n\nI can't help with that.",
    "I'm sorry, but I don't have the capability to order a pizza.",
    "Es tut mir leid, aber ich kann Ihnen nicht helfen.",
    "Désolé, mais je ne peux pas répondre.", "Lo siento, pero no puedo ayudarte con eso.",
    "Desculpe, mas não posso ajudar com isso.", "Mi dispiace, ma non posso aiutarti.", "К сожалению, я не могу помочь.",
    "抱歉，我无法回答这个问题。",
    "作为一个人工智能语言模型，我无法提供医疗建议。", "申し訳ありませんが、お答えできません。",
    "죄송하지만 도와드릴 수 없습니다.",
])  # fmt: skip
def test_an_answer_that_begins_with_a_refusal_refuses(answer: str):
    assert phrases.refusals([answer]).tolist() == [True]
    assert measured(answer)["answer_refusals"] == 1


@pytest.mark.parametrize("answer", [
    "I can't help but smile when it rains.", "I'm sorry to hear that. Here is what you can do.",
    "We cannot determine x without y, so x = 2 - y.", "Sorry for the confusion: the answer is 12.",
    "She said she could not come, because the train was late.", "<think>I can't help with that? I can.</think>Sure: 4.",
    "You are not able to divide by zero.", "我们无法用整数表示它，所以取分数。",
    "Unfortunately, the shop closes at five.",
    "",
])  # fmt: skip
def test_words_like_those_of_a_refusal_are_none(answer: str):
    assert phrases.refusals([answer, None]).tolist() == [False, False]


def test_a_refusal_behind_the_first_200_characters_is_a_mention():
    late = "Here is the story. " * 11 + "'I cannot help you with that,' said the bank."
    assert [measured(late)[f"answer_{name}"] for name in ("refusals", "refusal_mentions")] == [0, 1]
    early = measured("I cannot help you with that. " + "Sorry. " * 50)
    assert (early["answer_refusals"], early["answer_refusal_mentions"]) == (1, 0)


@pytest.mark.parametrize("texts", [["No, I must decline.", None], pl.Series(["No, I must decline.", None]),
                                   pa.array(["No, I must decline.", None]),
                                   pa.chunked_array([["No, I must decline."], [None]])])  # fmt: skip
def test_refusals_take_lists_series_and_arrays(texts: object):
    assert phrases.refusals(texts).tolist() == [True, False]


@pytest.mark.parametrize(("answer", "found"), [
    ("As an AI language model, I have no taste.", 1), ("I am just a language model.", 1),
    ("Ich bin ein Sprachmodell.", 1),
    ("My knowledge cutoff is 2023.", 1), ("作为一个人工智能，我没有感情。", 1),
    ("An AI language model predicts words.", 0),
    ("She was trained by her father.", 0), ("As an airline, we fly.", 0), ("My training begins at six.", 0),
])  # fmt: skip
def test_a_machine_that_speaks_of_itself_is_marked(answer: str, found: int):
    assert measured(answer)["answer_self_references"] == found


@pytest.mark.parametrize(("answer", "found"), [
    ("I am ChatGPT, a model developed by OpenAI.", ["ChatGPT", "OpenAI"]), ("My name is Qwen.", ["Qwen"]),
    ("I was created by researchers at DeepSeek.", ["DeepSeek"]),
    ("我是通义千问，由阿里云开发。", ["通义千问", "阿里云"]),
    ("I'm an AI assistant made by Anthropic.", ["Anthropic"]), ("GPT-4 was developed by OpenAI.", []),
    ("I read that Llama was trained by Meta AI.", []), ("Ask ChatGPT. I am fine.", []), ("I am Claudette.", []),
])  # fmt: skip
def test_a_model_that_claims_to_be_another_is_marked(answer: str, found: list[str]):
    assert measured(answer)["answer_identities"] == found


@pytest.mark.parametrize(("answer", "found"), [
    ("Hello {{ name }}, I am from {{author}}.", ["{{name}}", "{{author}}"]), ("我是{{name}}。", ["{{name}}"]),
    ("Dear <insert name here>,", ["<insert name here>"]), ("Hi NAME_1, how are you?", ["NAME_1"]),
    (r"So $\frac{{ab}}{{cd}}$ and \text{{length}} hold.", []), (r"\(x_{{max}}\) is it.", []),
    ("```jinja\nHello {{ name }}\n```", []), ("Write `{{ name }}` there.", []), ("Sets are {{1, 2}, {3}}.", []),
    ("It is {brace} and {{x}}.", []), (r"We get \mathbf{{ab}}.", []),
])  # fmt: skip
def test_forms_that_nobody_filled_in_are_named(answer: str, found: list[str]):
    assert measured(answer)["answer_placeholders"] == found


@pytest.mark.parametrize(("answer", "found"), [
    ("Yours,\n[Your Name]\n[Company Name]", ["[Your Name]", "[Company Name]"]),
    ("[Your Name](https://a.org) is it.", []),
    ("Answer the {question} of {user}.", ["{question}", "{user}"]), ("Lorem ipsum dolor sit amet", ["Lorem ipsum"]),
    ("f`{question}`", []), ("The set {a, b} has [two] elements.", []), ("<your username>", ["<your username>"]),
])  # fmt: skip
def test_blanks_that_may_be_wanted_are_apart(answer: str, found: list[str]):
    signals = measured(answer)
    assert signals["answer_blanks"] == found
    assert signals["answer_placeholders"] == []


def test_placeholders_of_prompts_and_answers_are_apart_and_whoever_asks_for_templates_is_known():
    asked = measured("Fine.", "Say hello to {{name}}.")
    assert (asked["prompt_placeholders"], asked["answer_placeholders"]) == (["{{name}}"], [])
    assert measured("Dear {{name}}", "Write to a friend")["placeholders_discussed"] is False
    for question, answer in (("Write an e-mail template", "Dear {{name}}"), ("Say hi", "<p>Dear {{name}}</p>")):
        assert measured(answer, question)["placeholders_discussed"] is True
    assert measured("Dear friend")["placeholders_discussed"] is None


@pytest.mark.parametrize(("answer", "found"), [
    ("It is 4.<|im_end|>\n<|im_start|>user", ["<|im_end|>", "<|im_start|>"]), ("Four.</s>", ["</s>"]),
    ("[INST] more [/INST]", ["[INST]", "[/INST]"]), ("<｜end▁of▁sentence｜>", ["<｜end▁of▁sentence｜>"]),
    ("HTML strikes with <s>old</s> text.", []), ("`<|im_end|>` ends a turn.", []), ("<|begin_of_thought|> I see", []),
])  # fmt: skip
def test_control_tokens_in_an_answer_are_named(answer: str, found: list[str]):
    assert measured(answer)["answer_special_tokens"] == found


@pytest.mark.parametrize(("answer", "found"), [
    ("Yes.\nHuman: and then?", ["Human:"]), ("### Response:\nYes", ["### Response:"]), ("The Human: a study", []),
    ("### Results\nfine", []),
])  # fmt: skip
def test_speakers_at_the_beginning_of_a_line_are_named(answer: str, found: list[str]):
    assert measured(answer)["answer_role_markers"] == found


def test_the_sides_of_a_pair_are_apart():
    prompt = [turn("user", "Who?"), turn("assistant", "I am Bard."), turn("user", "{{name}}?")]
    chosen = [turn("assistant", "A name.", "Is it {{name}}?")]
    pair = of_pair("phrases", prompt, chosen, [turn("assistant", "I am ChatGPT, dear {{name}}.<|im_end|>")])
    alone = of_pair("phrases", prompt, chosen, None)
    assert (pair["rejected_identities"], pair["answer_identities"]) == (["ChatGPT"], [])
    assert (pair["rejected_placeholders"], pair["rejected_special_tokens"]) == (["{{name}}"], ["<|im_end|>"])
    assert pair["answer_placeholders"] == ["{{name}}"], "a thought of the chosen side is learnt too"
    assert pair["prompt_placeholders"] == ["{{name}}"]
    assert (alone["rejected_identities"], alone["rejected_self_references"]) == (None, None)


@pytest.mark.parametrize("kind", ["refusals", "self_reference", "identities"])
def test_every_phrase_of_a_file_is_found(kind: str):
    file = phrases.phrases(kind)
    plain = [spelled(phrase, file.words) for many in file.phrases.values() for phrase in many]
    assert [text for text, found in zip(plain, phrases.holding([f"({text})" for text in plain], kind), strict=True)
            if not found] == []  # fmt: skip
    assert not phrases.holding([f"Z{text}Z" for text in plain if text.isascii()], kind).any(), "words have borders"


def spelled(phrase: str, words: dict[str, list[str]]) -> str:
    """A phrase with the first of every choice, and nothing where something may be absent."""
    while "{" in phrase:
        phrase = re.sub(r"\{([^{}]+)\}", lambda name: words[name[1]][0], phrase)
    return re.sub(r"\[[^\]]*\]", "", phrase).replace("...", "now")


def test_the_signal_follows_the_phrases(monkeypatch: pytest.MonkeyPatch):
    before = named("phrases").fingerprint()
    monkeypatch.setattr(phrases, "fingerprint_of_phrases", lambda: "other")
    assert named("phrases").fingerprint() != before


CAUGHT = {
    "template_leftover": "the answer holds a placeholder such as {{name}}",
    "special_tokens_in_content": "the answer holds <|im_end|>",
    "role_markers_in_answer": "a line of the answer begins with Human:",
    "blanks_in_answer": "the answer leaves [Your Name]",
    "refusal": "1 of its answers refuse",
    "self_reference": "it says it is of Qwen",
}


def test_the_rules_catch_their_rows_with_reasons(catalog, kedge):
    answers = ["Dear {{ name }}", "Yes<|im_end|>", "Yes\nHuman: why?", "Bye, [Your Name]",
               "I cannot help you with that.",
               "I am Qwen.", "It is 4 {brace}."]  # fmt: skip
    Path("a.jsonl").write_text("".join(conversation(f"{n}?", answer) for n, answer in enumerate(answers)))
    assert kedge("add", "a.jsonl")[0] == 0
    assert {name: reasons(catalog, name) for name in CAUGHT} == {name: [reason] for name, reason in CAUGHT.items()}
    adopted = {rule.name for rule in load_rules(catalog)}
    assert adopted & set(CAUGHT) == {"template_leftover", "special_tokens_in_content"}


@pytest.mark.real_data
def test_the_placeholders_of_the_identity_rows_are_found():
    rows = json.loads((REAL_DATA / "sft" / "identity.json").read_text())
    messages = pa.array([[turn("user", row["instruction"]), turn("assistant", row["output"])] for row in rows],
                        schema.MESSAGES)  # fmt: skip
    found = named("phrases").measure(pa.table({"messages": messages}), "sft").to_pylist()
    holds = ["{{" in row["output"] for row in rows]
    assert [bool(row["answer_placeholders"]) for row in found] == holds and sum(holds) == 85
    assert {name for row in found for name in row["answer_placeholders"]} == {"{{name}}", "{{author}}"}
    assert not any(row["placeholders_discussed"] for row in found)
