"""Personal data and secrets: what counts, what is an example, and what only looks like one. Nothing of it is real; keys
are put together here, so that no file holds one whole."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curation.catalog import Catalog
from curation.caught import samples
from curation.measures._secrets import without_secrets
from curation.measures.personal_data import CONTACTS
from curation.measuring import named, signal_parts
from curation.rule_effects import judge_all
from curation.rules import load_rules
from tests.lakes import conversation
from tests.signal_rows import of_exchange, of_pair, reasons, turn

BODY = "q7Rk2WmZx9LbT4vNc8HdJ3sYf6Gp1XuEa5Qo0KiMrBtVnDz"  # looks like a key's body


def measured(answer: str, question: str = "a?") -> dict:
    return of_exchange("personal_data", answer, question)


def counted(text: str) -> dict[str, int]:
    """What a text holds, by name; what is not there is left out."""
    found = measured(text)
    return {name: found[name] for name in (*CONTACTS, "secrets", "example_personal_data", "example_secrets")
            if found[name]}  # fmt: skip


def token(header: dict, payload: dict) -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (header, payload)]
    return ".".join([*parts, BODY[:43]])


@pytest.mark.parametrize(("text", "name"), [
    ("Write to m.huber@stadtwerke-x.de today", "emails"), ("邮箱：liwei88@qq.com。", "emails"),
    ("Reach me at +49 170 9876543.", "phone_numbers"), ("(415) 867-5309 is the office", "phone_numbers"),
    ("415-867-5309 is the office", "phone_numbers"), ("Call us: 415 867 5309", "phone_numbers"),
    ("手机 13872965104", "phone_numbers"), ("Telefon: 030 9183746", "phone_numbers"),
    ("IBAN DE75 5121 0800 1245 1261 99", "ibans"), ("Card 4539 1488 0343 6467", "payment_cards"),
    ("my visa card is 4539148803436467", "payment_cards"), ("The host 185.199.108.153 answers", "ip_addresses"),
    ("at 2a00:1450:4001:82b::200e", "ip_addresses"), ("SSN: 536-90-4399", "social_security_numbers"),
])  # fmt: skip
def test_personal_data_is_counted(text: str, name: str):
    assert counted(text) == {name: 1}


@pytest.mark.parametrize("text", [
    "alice@example.com", "your_name@gmail.com", "john.doe@gmail.com", "boss@company.com", "(555) 123-4567",
    "415-555-0123",
    "Phone: 123-456-7890", "Card 4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00", "SSN: 123-45-6789",
    "The server is at 192.168.10.12", "at 2001:db8:85a3:0:0:8a2e:370:7334",
])  # fmt: skip
def test_documented_examples_are_counted_apart(text: str):
    assert counted(text) == {"example_personal_data": 1}


@pytest.mark.parametrize("text", [
    "So 4155 - 867 = 5309 and 12 * 415 867 5309 = x", "ISBN 978-0-306-40615-7",
    "On 2024-03-15 at 12:34:56", "pi is 3.14159265358",
    "The sum is 13872965104.", "5 +12345678901 is more", "x = 415-867-5309 + 2", "1234567890123456 is a large number",
    "version 10.12.14.16 is out", "see section 4.3.2.1", "999.300.20.10", "logo@2x.png", "@app.route and x@y",
    "4539148803436467 grains of rice", "Card 4539 1488 0343 6468", "IBAN DE75 5121 0800 1245 1261 98",
    "536-90-4399 parts",
    "00:1A:2B:3C:4D:5E", "std::vector::iterator", "In 2019 contact grew 20190315 times a day: 2020-11-12",
    "$415.867.5309",
    "Let us call the number N = 113311331.", "<<48/2=24>>24 and 48+24 = <<48+24=72>>72",
    "sk-learn and hf_transformer",
    "the AKIA prefix", "eyJust kidding.eyJoking around.here we are", "-----BEGIN PUBLIC KEY-----",
    "postgres://localhost:5432/db",
    "user: pass @ home", "A12 345 678 901",
])  # fmt: skip
def test_arithmetic_dates_and_other_numbers_are_no_personal_data(text: str):
    assert counted(text) == {}


SECRETS = {
    "AWS access key": "AKIA" + "Q7RK2WMZX9LBT4VN",
    "AWS secret key": "aws_secret_access_key = " + BODY[:40],
    "GitHub token": "ghp_" + BODY[:36],
    "GitLab token": "glpat-" + BODY[:20],
    "Slack token": "xoxb-" + "739184620571-" + BODY[:24],
    "Slack webhook": "https://hooks.slack.com/services/" + "T7RK2WMZX/B9LBT4VNC/" + BODY[:24],
    "Anthropic key": "sk-ant-" + "api03-" + BODY,
    "OpenAI key": "sk-" + "proj-" + BODY,
    "Google key": "AIza" + BODY[:35],
    "Stripe key": "sk_" + "live_" + BODY[:24],
    "Hugging Face token": "hf_" + BODY[:34],
    "npm token": "npm_" + BODY[:36],
    "PyPI token": "pypi-" + "AgEIcHlwaS5vcmc" + BODY,
    "SendGrid key": "SG." + BODY[:22] + "." + BODY[:43],
    "Telegram token": "739184620:" + "AA" + BODY[:33],
    "JSON web token": token({"alg": "HS256"}, {"sub": "u-48213", "exp": 1893456000}),
    "private key": "-----BEGIN RSA PRIVATE KEY-----\n" + f"{BODY}\n" * 3 + "-----END RSA PRIVATE KEY-----",
    "password in a URL": "postgres://app:" + BODY[:12] + "@db7.intern-net.io:5432/x",
}


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_is_known_by_its_issuers_form(kind: str):
    found = measured(f"Use this:\n{SECRETS[kind]}\nand go on.")
    assert (found["secrets"], found["answer_secrets"], found["answer_secret_kinds"]) == (1, 1, [kind])
    assert found["emails"] + found["ip_addresses"] + found["phone_numbers"] == 0
    asked = measured("Never share it.", f"Is {SECRETS[kind]} fine?")
    assert (asked["secrets"], asked["answer_secrets"], asked["answer_secret_kinds"]) == (1, 0, [])


@pytest.mark.parametrize("text", [
    "AKIAIOSFODNN7EXAMPLE", "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "ghp_" + "x" * 36,
    "sk-" + "a1" * 20, "sk_" + "test_4eC39HqLyjWDarjtT1zdp7dc", "postgres://user:password@localhost/db",
    "https://alice:s3cretAlice@example.com/", "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
    token({"alg": "HS256", "typ": "JWT"}, {"sub": "1234567890", "name": "John Doe", "iat": 1516239022}),
])  # fmt: skip
def test_a_secret_of_documentation_is_an_example(text: str):
    assert counted(text) == {"example_secrets": 1}


def test_a_key_behind_headers_is_one_and_a_line_of_colons_costs_no_time():
    begin, key = "-----BEGIN RSA PRIVATE KEY-----", f"{BODY}\n" * 3
    for headers in ("\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,93F1\n\n", " Version: 1 Comment: none "):
        assert counted(begin + headers + key) == {"secrets": 1}
    assert counted(begin + "A: " * 130) == {"example_secrets": 1}


def test_a_token_is_found_behind_a_word_and_what_only_begins_like_one_costs_no_time():
    """Were every `eyJ` searched to the end of such a stretch, this would take hours."""
    real = SECRETS["JSON web token"]
    for before in ("", "Bearer ", "x=", "ä", ".", "-", "--", "my-own-token-", "a.b-c-"):
        assert counted(before + real) == {"secrets": 1}, before
    assert counted("x" + real) == counted("_" + real) == {}, "it begins a word"
    for hostile in ("-eyJ" * 200_000, "eyJaaaaaaaaaaaa." * 50_000 + "x", "eyJaaaaaaaaaaaa-" * 50_000):
        assert counted(f"{hostile} {real}") == {"secrets": 1}
        assert without_secrets(f"{hostile} {real}") == f"{hostile} [JSON web token]"


@pytest.mark.parametrize("kind", SECRETS)
def test_what_is_shown_has_the_kind_in_place_of_a_secret(kind: str):
    shown = without_secrets(f"Use this:\n{SECRETS[kind]}\nand go on, a@b.de.")
    assert f"[{kind}]" in shown and BODY[4:12] not in shown
    assert shown.startswith("Use this:\n") and shown.endswith("\nand go on, a@b.de.")
    assert without_secrets("AKIAIOSFODNN7EXAMPLE") == "AKIAIOSFODNN7EXAMPLE"


def test_a_value_counts_once_however_often_and_however_it_is_written():
    assert counted("m.huber@stadtwerke-x.de or m.huber@stadtwerke-x.de") == {"emails": 1}
    assert counted("+1 415 867 5309, that is (415) 867-5309") == {"phone_numbers": 1}
    assert counted("m.huber@stadtwerke-x.de and v.huber@stadtwerke-x.de") == {"emails": 2}


def test_the_chosen_side_is_the_answer_and_tool_calls_are_read():
    secret = SECRETS["GitHub token"]
    sides = [turn("user", "a?")], [turn("assistant", "no")], [turn("assistant", secret)]
    assert of_pair("personal_data", *sides)["answer_secrets"] == 0
    assert of_pair("personal_data", sides[0], sides[2], sides[1])["answer_secrets"] == 1
    call = [turn("assistant", None, tool_calls=json.dumps([{"function": {"arguments": {"token": secret}}}]))]
    assert of_pair("personal_data", sides[0], call, None)["answer_secrets"] == 1


def test_values_are_never_stored(catalog: Catalog, kedge):
    values = {name: text for name, text in SECRETS.items() if name != "private key"}
    text = "\n".join([*values.values(), "m.huber@stadtwerke-x.de", "+49 170 9876543", "DE75512108001245126199"])
    Path("a.jsonl").write_text(conversation("Q?", text) + conversation("R?", "Mail m.huber@stadtwerke-x.de")
                               + conversation("S?", "Mail alice@example.com"))  # fmt: skip
    assert kedge("add", "a.jsonl")[0] == 0
    assert kedge("measure", "--only", "personal_data")[0] == 0
    paths = signal_parts(catalog, named("personal_data"), "a")
    assert paths is not None
    table = pq.read_table(paths[0])
    assert table["secrets"].to_pylist() == [len(values), 0, 0] and table["emails"].to_pylist() == [1, 1, 0]
    stored = str(table.to_pylist()) + str(reasons(catalog, "secrets_in_answer") + reasons(catalog, "personal_data"))
    assert not [name for name, value in values.items() if value in stored] and "huber" not in stored
    assert reasons(catalog, "secrets_in_answer")[0].startswith(
        f"{len(values)} secret(s) in what the model learns to say"
    )
    assert "1 e-mail" in reasons(catalog, "personal_data")
    for name in ("secrets_in_answer", "personal_data"):
        told = samples(catalog, judge_all(catalog, name), [name])[name]
        assert told and not [value for value in values.values() if value in str(told)], "nor are secrets shown"
        assert "[GitHub token]" in str(told) and "postgres://app:[password in a URL]@db7" in str(told)
    adopted = {rule.name for rule in load_rules(catalog)}
    assert "secrets_in_answer" in adopted and "personal_data" not in adopted


def test_the_story_of_a_row_tells_a_secret_by_its_kind_alone(catalog: Catalog, kedge):
    values = {name: text for name, text in SECRETS.items() if name != "private key"}
    call = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": SECRETS["GitHub token"]}}]
    answer = f"<think>{SECRETS['npm token']}</think>ok"
    turns = [turn("user", "\n".join(values.values())), turn("assistant", answer) | {"tool_calls": call}]
    Path("a.jsonl").write_text(json.dumps({"messages": turns, "note": SECRETS["Stripe key"]}) + "\n")
    assert kedge("add", "a.jsonl")[0] == 0
    (row,) = json.loads(kedge("sql", "SELECT row_id FROM rows", "--json")[1])
    for more in ([], ["--json"]):
        code, out, _ = kedge("why", row["row_id"], *more)
        assert code == 0 and "[AWS access key]" in out
        assert not [name for name, value in values.items() if value in out]
    told = json.loads(out)["row"]
    assert "[GitHub token]" in str(told["payload"]) and "[Stripe key]" in told["meta"]
