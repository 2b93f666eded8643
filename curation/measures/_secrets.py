"""Keys, tokens and passwords by the form that their issuers give them, told apart from examples."""

from __future__ import annotations

import base64
import binascii
import functools
import json
import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from curation.config import read_yaml
from curation.phrases import FOLDER

REAL, EXAMPLE, NEITHER = "real", "example", "neither"
_MADE_UP = re.compile(r"example|xxxx|\*\*\*|\.\.\.|your|dummy|fake|sample|placeholder|redacted|1234567|abcdefg|0000000|"
                      r"changeme|<|>|\{|\}|\$|%", re.IGNORECASE)  # fmt: skip
_HOSTS = re.compile(r"(^|[.@])(localhost|127\.0\.0\.1|0\.0\.0\.0|host|hostname|server|db|example(\.\w+)?|test|proxy|"
                    r"proxyserver|domain\.com|website\.com|mydb|postgres|redis|mongo|mysql|rabbitmq)(:\d+)?$",
                    re.IGNORECASE)  # fmt: skip


@functools.cache
def examples(name: str) -> Any:
    """A list (as a frozenset) or a mapping of catalogs/phrases/examples.yaml."""
    value = read_yaml((FOLDER / "examples.yaml").read_text(), "examples.yaml")[0][name]
    return frozenset(value) if isinstance(value, list) else value


@dataclass(frozen=True)
class Kind:
    """A kind of value: `pattern` finds candidates (one syntax for Rust and Python: no look-around; `\\b` of ASCII
    words), `judge(match)` says whether one is REAL, an EXAMPLE or NEITHER, from the match and the text around it."""

    name: str
    pattern: str
    judge: Callable[[re.Match[str]], str]


def bits(text: str) -> float:
    """Shannon entropy of the characters of a text, in bits each: some 4 for random hex of 32 digits, 0 for `aaaa`."""
    return -sum(count / len(text) * math.log2(count / len(text)) for count in Counter(text).values())


def random_looking(least_bits: float = 3.0) -> Callable[[re.Match[str]], str]:
    """A judge of the group `value`: made-up words and few distinct characters make an example, and it must have a digit
    or both cases."""

    def judge(match: re.Match[str]) -> str:
        value = match["value"]
        if _MADE_UP.search(match.group()):
            return EXAMPLE
        mixed = any(one.isdigit() for one in value) or (value != value.lower() and value != value.upper())
        if not mixed:
            return NEITHER
        return EXAMPLE if bits(value) < least_bits else REAL

    return judge


def _json_of(part: str) -> Any:
    try:
        return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, binascii.Error, UnicodeDecodeError):
        return None


def judge_jwt(match: re.Match[str]) -> str:
    """A JSON web token: its header decodes to JSON with an algorithm. That of jwt.io (John Doe) is an example."""
    header, payload = (_json_of(part) for part in match["value"].split(".")[:2])
    if not isinstance(header, dict) or "alg" not in header:
        return NEITHER
    return EXAMPLE if isinstance(payload, dict) and payload.get("sub") == "1234567890" else REAL


def judge_private_key(match: re.Match[str]) -> str:
    """A key block with its key: 40 or more characters of it follow."""
    # Headers ("Proc-Type: 4,ENCRYPTED") on lines of their own, or two on one: more could be split in too many ways.
    body = re.match(r"[\s\\nr]*(?:[A-Z][\w-]*: [^\n]*\n\s*)*(?:[A-Z][\w-]*: [^\n]*\s+){0,2}"
                    r"([A-Za-z0-9+/=]{16,}[\s\\nr]*[A-Za-z0-9+/=\s\\]*)",
                    match.string[match.end() : match.end() + 400])  # fmt: skip
    if body is None or len(body[1]) < 40:
        return EXAMPLE
    return EXAMPLE if _MADE_UP.search(body[1]) or bits(body[1]) < 3.5 else REAL


def judge_password_in_url(match: re.Match[str]) -> str:
    """`scheme://user:password@host`: words of documentation and local hosts make an example."""
    value, host = match["value"], match["host"]
    made_up = (
        _MADE_UP.search(match.group())
        or value.lower() in examples("passwords")
        or match["user"].lower() == value.lower()
    )
    return EXAMPLE if made_up or _HOSTS.search(host) or not host.strip(".") else REAL


def _key(name: str, prefix: str, body: str, least_bits: float = 3.0, end: str = r"\b") -> Kind:
    return Kind(name, rf"\b{prefix}(?P<value>{body}){end}", random_looking(least_bits))


# What every candidate of some kind holds: texts without any of these are not searched further.
SOME_SECRET = (
    r"\bA[KS]IA|(?i:secret)|\bgh[pousr]_|github_pat_|glpat-|\bxox|hooks\.slack|\bsk-|AIza|\b[sr]k_|\bhf_|\bnpm_|"
    r"\bpypi-|\bSG\.|\beyJ|PRIVATE KEY|[0-9]:AA|://[^\s/@]+@"
)

KINDS = (
    _key("AWS access key", "(?:AKIA|ASIA)", "[0-9A-Z]{16}", 2.8),
    Kind("AWS secret key", r"(?i)aws_?secret_?(?:access_?)?key.{0,6}[=:]\s*[\"']?(?P<value>[A-Za-z0-9/+=]{40})",
         random_looking(3.5)),
    _key("GitHub token", "gh[pousr]_", "[A-Za-z0-9]{36,255}"),
    _key("GitHub token", "github_pat_", "[A-Za-z0-9_]{22,255}"),
    _key("GitLab token", "glpat-", "[A-Za-z0-9_-]{20,}", end=""),
    _key("Slack token", "xox[abeprs]-", "[A-Za-z0-9-]{20,}", 2.5, end=""),
    Kind("Slack webhook", r"hooks\.slack\.com/services/(?P<value>T[A-Z0-9]{6,}/B[A-Z0-9]{6,}/[A-Za-z0-9]{20,})",
         random_looking()),
    _key("Anthropic key", "sk-ant-", "[A-Za-z0-9_-]{32,}", 3.5, end=""),
    _key("OpenAI key", "sk-(?:proj-|svcacct-|admin-)", "[A-Za-z0-9_-]{32,}", 3.5, end=""),
    _key("OpenAI key", "sk-", "[A-Za-z0-9]{32,}", 3.5),
    _key("Google key", "AIza", "[0-9A-Za-z_-]{35}", 3.5, end=""),
    Kind("Stripe key", r"\b[sr]k_live_(?P<value>[0-9a-zA-Z]{16,})\b", random_looking()),
    Kind("Stripe key", r"\b[sr]k_test_(?P<value>[0-9a-zA-Z]{16,})\b", lambda match: EXAMPLE),
    _key("Hugging Face token", "hf_", "[A-Za-z0-9]{34}", 3.5),
    _key("npm token", "npm_", "[A-Za-z0-9]{36}", 3.5),
    _key("PyPI token", "pypi-AgE", "[A-Za-z0-9_-]{50,}", 3.5, end=""),
    Kind("SendGrid key", r"\bSG\.(?P<value>[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43})", random_looking(3.5)),
    Kind("Telegram token", r"\b[0-9]{8,10}:(?P<value>AA[A-Za-z0-9_-]{33})", random_looking(3.5)),
    # A token begins its stretch of such characters, or one of the first eight words behind a hyphen of it: were it any
    # word, each would be searched to the end of the stretch.
    Kind("JSON web token", r"(?:^|[^A-Za-z0-9_-])(?:[A-Za-z0-9_]*-){0,8}?"
         r"(?P<value>eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,})", judge_jwt),
    Kind("private key", r"(?P<value>-----BEGIN (?:RSA |EC |DSA |OPENSSH |ENCRYPTED |PGP )?PRIVATE KEY(?: BLOCK)?-----)",
         judge_private_key),
    Kind("password in a URL",
         r"\b[a-zA-Z][a-zA-Z0-9+]{1,14}://(?P<user>[^\s:/@'\"<>`?#]{1,64}):(?P<value>[^\s/@'\"<>`]{3,64})@"
         r"(?P<host>[^\s/'\"<>`?#)\],;]{1,100})", judge_password_in_url),
)  # fmt: skip


@functools.cache
def python_pattern(expression: str) -> re.Pattern[str]:
    """A pattern of a Kind for Python."""
    return re.compile(expression, re.ASCII)


def without_secrets(text: str) -> str:
    """A text with `[KIND]` in place of every value that is REAL, for what people are shown; of a private key all of
    it."""
    if not python_pattern(SOME_SECRET).search(text):
        return text
    found = []
    for kind in KINDS:
        for match in python_pattern(kind.pattern).finditer(text):
            if kind.judge(match) == REAL:
                start, end = match.span("value")
                if kind.name == "private key":
                    closing = text.find("-----END", end)
                    end = closing if closing >= 0 else len(text)
                found.append((start, end, kind.name))
    shown, at = [], 0
    for start, end, name in sorted(found):
        if start >= at:
            shown += [text[at:start], f"[{name}]"]
        at = max(at, end)
    return "".join(shown) + text[at:]
