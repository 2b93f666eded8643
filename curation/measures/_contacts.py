"""Personal data by its form and its check digits: addresses, numbers, accounts; told apart from documented examples."""

from __future__ import annotations

import ipaddress
import re

from curation.measures._secrets import EXAMPLE, NEITHER, REAL, Kind, examples

_EXAMPLE_DOMAIN = re.compile(
    r"^(.*\.)?(example|example-domain|test|invalid|localhost|yourdomain|domain|company|yourcompany|mycompany|website|yourwebsite|email|"
    r"mail|abc|xyz|acme|foo|bar|host|server|sample|business|organization|company-name|companyname|xyzcorp|abccompany)"
    r"\.(com|org|net|edu|co\.uk|co|io|cn|de|fr|local|[a-z]{2})$|(^|\.)(example|test|invalid|local)$", re.IGNORECASE,
)  # fmt: skip
_EXAMPLE_NAME = re.compile(
    r"^(git|your.*|user(name)?\d*|name|e?mail|someone|somebody|test\d*|example|foo|bar|(john|jane)[._-]?(doe|smith)?\d*|"
    r"j\.?doe|abc|xyz|first(name)?\.?last(name)?)$", re.IGNORECASE,
)  # fmt: skip
_CALL = re.compile(
    r"(phone|tel\b|tel\.|telephone|mobile|cell\b|call(?: us| me| at| now| on| now at| us at)\b|fax|whatsapp|\bsms\b|"
    r"contact|hotline|电话|手机|联系方式|热线|teléfono|móvil|téléphone|telefon|handy|rufnummer|телефон|電話)",
    re.IGNORECASE,
)  # fmt: skip
_CARD = re.compile(r"card|visa|amex|american express|credit|debit|信用卡|银行卡|karte|tarjeta|carte", re.IGNORECASE)
_ISSUERS = re.compile(r"^(4\d{12}(\d{3})?|5[1-5]\d{14}|2(22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}|"
                      r"6(011|5\d\d|4[4-9]\d)\d{12}|35(2[89]|[3-8]\d)\d{12}|62\d{14,17}|"
                      r"3(0[0-5]|[68]\d)\d{11})$")  # fmt: skip


def digits_of(text: str) -> str:
    """The ASCII digits of a text."""
    return re.sub(r"[^0-9]", "", text)


def before(match: re.Match[str], chars: int) -> str:
    """What stands before a match in its text."""
    return match.string[max(0, match.start() - chars) : match.start()]


def apart(match: re.Match[str]) -> bool:
    """Whether no number, letter or operator touches a match: it is no piece of a sum, a decimal, an ISBN or an id."""
    left, right = before(match, 2), match.string[match.end() : match.end() + 2]
    joined = re.search(r"[\w.,+*/=^$€£%#-]$", left, re.ASCII) or re.match(r"[\w+*/=^%]|[.,-]\w", right, re.ASCII)
    return joined is None and re.search(r"[-+*/=×÷−] $", left) is None and re.match(r" [-+*/=×÷−]", right) is None


def made_up(digits: str) -> bool:
    """Whether digits are those of a form: one digit again and again, or counting up or down."""
    return len(set(digits)) <= 2 or digits in "12345678901234567890" or digits in "98765432109876543210"


def judge_email(match: re.Match[str]) -> str:
    """An address whose last label is no file ending and that is no password of a URL."""
    name, domain = match["name"], match["domain"]
    if (
        domain.rpartition(".")[2].lower() in examples("file_endings")
        or before(match, 1) in (":", "/")
        or ".." in match.group()
    ):
        return NEITHER
    return EXAMPLE if _EXAMPLE_DOMAIN.search(domain) or _EXAMPLE_NAME.search(name) else REAL


def _judge_number(digits: str) -> str:
    """A telephone number: those of films (exchange 555) and of forms are examples."""
    national = digits[-10:]
    fictional = len(digits) in (7, 10, 11) and national[-7:-4] == "555"
    return EXAMPLE if fictional or national[:3] == "555" or made_up(digits) or made_up(national) else REAL


def judge_international(match: re.Match[str]) -> str:
    """`+` and 8 to 15 digits, ten of them or in groups, where no sum stands."""
    digits = digits_of(match.group())
    grouped = re.search(r"[ ().-]", match.group()) is not None
    if not 8 <= len(digits) <= 15 or not (grouped or len(digits) >= 10) or not apart(match):
        return NEITHER
    return NEITHER if re.search(r"[\d)]\s*$", before(match, 3)) else _judge_number(digits)


def judge_american(match: re.Match[str]) -> str:
    """(415) 200-1234 and 415-200-1234; with blanks alone (415 200 1234) only behind a word such as `call`."""
    if not apart(match):
        return NEITHER
    if re.search(r"[().-]", match.group()) is None and not _CALL.search(before(match, 30)):
        return NEITHER
    return _judge_number(digits_of(match.group()))


def judge_called(match: re.Match[str]) -> str:
    """7 to 15 digits close behind a word such as `phone`, that are no date."""
    digits, lead = digits_of(match["value"]), _CALL.search(before(match, 24))
    if lead is None or not 7 <= len(digits) <= 15 or not apart(match) or "\n" in before(match, 24)[lead.end() :]:
        return NEITHER
    dated = re.search(r"^(19|20)\d{6}$|^(19|20)\d\d[-./ ](0?[1-9]|1[0-2])[-./ ]|[-./ ](19|20)\d\d$", match["value"])
    return NEITHER if dated else _judge_number(digits)


def judge_iban(match: re.Match[str]) -> str:
    """The length of its country and a remainder of 1 modulo 97 (ISO 13616)."""
    lengths = examples("iban_lengths")
    value = match.group().replace(" ", "")
    if len(value) < 15 or lengths.get(value[:2]) is None:
        return NEITHER
    value = value[: lengths[value[:2]]]
    number = int("".join(str(int(one, 36)) for one in value[4:] + value[:4]))
    if len(value) != lengths[value[:2]] or number % 97 != 1:
        return NEITHER
    return EXAMPLE if value in examples("ibans") else REAL


def judge_card(match: re.Match[str]) -> str:
    """The form of an issuer and Luhn's check digit; without a word such as `card` before it, only in groups."""
    digits = digits_of(match.group())
    doubled = [int(one) for one in digits[-2::-2]]
    total = sum(int(one) for one in digits[-1::-2]) + sum(one * 2 - 9 * (one > 4) for one in doubled)
    if not _ISSUERS.match(digits) or total % 10 or not apart(match):
        return NEITHER
    grouped = re.fullmatch(r"\d{4}([ -])\d{4}\1\d{4}\1\d{4}|\d{4}([ -])\d{6}\2\d{5}", match.group())
    word = _CARD.search(before(match, 80))
    if not grouped and not word:
        return NEITHER
    return EXAMPLE if digits in examples("payment_cards") or made_up(digits) or len(set(digits)) <= 3 else REAL


def judge_ipv4(match: re.Match[str]) -> str:
    """A public address; those of one-digit parts are version and section numbers more often."""
    if re.search(r"[\w.]$|v(ersion)? ?$|section ?$|release ?$", before(match, 9), re.IGNORECASE) or re.match(
        r"[\w-]|\.\d", match.string[match.end() : match.end() + 2]
    ):
        return NEITHER
    parts = match.group().split(".")
    if any(int(part) > 255 or (len(part) > 1 and part[0] == "0") for part in parts):
        return NEITHER
    if not ipaddress.ip_address(match.group()).is_global or sum(len(part) > 1 for part in parts) < 2:
        return EXAMPLE if sum(len(part) > 1 for part in parts) >= 2 else NEITHER
    return REAL


def judge_ipv6(match: re.Match[str]) -> str:
    """A public address of IPv6."""
    value = match.group()
    try:
        address = ipaddress.IPv6Address(value if value.endswith("::") else value.rstrip(":"))
    except ValueError:
        return NEITHER
    return REAL if address.is_global else EXAMPLE


def judge_ssn(match: re.Match[str]) -> str:
    """A social security number of the United States, behind a word that says so."""
    area, group, serial = match.group().split("-")
    if area in ("000", "666") or area[0] == "9" or group == "00" or serial == "0000" or not apart(match):
        return EXAMPLE if match.group() in examples("social_security_numbers") else NEITHER
    if not re.search(r"\bssn\b|social security|社会安全|社会保障", before(match, 60), re.IGNORECASE):
        return NEITHER
    return (
        EXAMPLE if match.group() in examples("social_security_numbers") or made_up(digits_of(match.group())) else REAL
    )


KINDS = (
    Kind("emails", r"\b(?P<name>[A-Za-z0-9][A-Za-z0-9._%+-]{0,63})@"
                   r"(?P<domain>(?:[A-Za-z0-9-]{1,63}\.){1,5}[A-Za-z]{2,24})\b", judge_email),
    Kind("phone_numbers", r"\+[1-9][0-9 ().-]{6,20}[0-9]\b", judge_international),
    Kind("phone_numbers", r"(?:\b1[ .-])?(?:\([2-9][0-9]{2}\) ?|\b[2-9][0-9]{2}[ .-])[1-9][0-9]{2}[ .-][0-9]{4}\b",
         judge_american),
    Kind("phone_numbers", r"(?P<value>\b[0-9](?:[ ./()-]{0,2}[0-9]){6,14})\b", judge_called),
    Kind("ibans", r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", judge_iban),
    Kind("payment_cards", r"\b[2-6](?:[ -]?[0-9]){12,18}\b", judge_card),
    Kind("ip_addresses", r"\b[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\b", judge_ipv4),
    Kind("ip_addresses", r"\b[0-9a-fA-F]{3,4}:(?:[0-9a-fA-F]{0,4}:){2,6}[0-9a-fA-F]{0,4}", judge_ipv6),
    Kind("social_security_numbers", r"\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b", judge_ssn),
)  # fmt: skip
