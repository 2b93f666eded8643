"""What a row asks for as a verb and its object: `write` a `story`, `summarize` an `article`."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import polars as pl
import pyarrow as pa

from curation.measures import PartMeasure
from curation.measures._asked import ASKED_IN, bounded, last_asked
from curation.measures._verbs import FIELD_NAMES, NO_COMMANDS, PHRASE_ENDS, VERBS

QUESTION = r"how many|how much|how long|how|what|which|whom|whose|who|when|where|why"
BEFORE = r"(?:(?:for|in|at|to|by|from|of|with|on|about) )?"
POLAR = r"is|are|was|were|am|do|does|did|can|could|should|would|will|has|have|had"
POLITE = r"(?:(?:please|kindly|but|now|then|next|also|so|and|ok|okay|hey|hi|hello|just|finally|step \d+)\b[,:!.]?\s*)*"
MODAL = (r"(?:(?:can|could|would|will) (?:you|u)|i (?:want|need|would like|'d like)(?: you)? to|i'd like(?: you)? to|"
         r"(?:you|we) (?:need|have|are asked|are required|are supposed) to|you (?:should|must|will)|"
         r"(?:your|the) (?:task|job|goal|objective|assignment) is to|help me(?: to)?|try to|let's|be sure to|"
         r"i need help to|write code to)\s+(?:please |kindly |help me (?:to )?|help (?:to )?|also )?")  # fmt: skip
SCENE = r"(?:given|using|based|for|in|from|with|if|as|when|after|considering|imagine|suppose|by)\b[^.!?\n]{1,160}?, "
REST = r"\b([^\n]{0,120})"


class TaskVerbs(PartMeasure):
    """Of the last user turn (of a long one its first and last 1,000 characters). task_verb: the first verb of a lexicon
    that stands where a command does: at the begin of a sentence or line, after a polite or modal opening ("please",
    "can you", "your task is to") or after the comma of an opening clause. A question without a command has the verb
    `answer` and its question word as object (`how many`, `why`; `whether` where it asks for yes or no). task_object:
    the head noun of the phrase after the verb, in the singular; null where none follows. Both are null where nothing
    is found, as in text that is not English. It is a lexicon with positions, no parser."""

    version: ClassVar[int] = 1
    depends_on: ClassVar[tuple[str, ...]] = ("curation/measures/_asked.py", "curation/measures/_verbs.py",
                                             "curation/texts.py")  # fmt: skip
    columns: ClassVar[pa.Schema] = pa.schema([("task_verb", pa.string()), ("task_object", pa.string())])

    def reads(self, stage: str) -> tuple[str, ...]:
        return (ASKED_IN[stage],)

    def measure(self, rows: pa.Table, stage: str) -> pa.Table:
        asked = bounded(last_asked(rows, stage)).str.to_lowercase().str.replace_all("’", "'", literal=True)
        command, polite, question = patterns()
        frame = asked.alias("text").to_frame().select(
            pl.col("text").str.extract_groups(command).struct.rename_fields(["verb", "rest"]).alias("first"),
            pl.col("text").str.extract_groups(polite).struct.rename_fields(["verb", "rest"]).alias("second"),
            pl.col("text").str.extract_groups(question).struct.rename_fields(["whole", "open", "polar"]).alias("third"),
        )  # fmt: skip
        format_only = r"\s+(?:(?:your|all) (?:final )?answers?\b|the (?:final )?answers? (?:as|in)\b)"
        no_command = rf"^(?:\s*\(|-|'|\s+(?:{'|'.join(NO_COMMANDS)})\b|{format_only})"
        both = ("first", "second")
        frame = frame.with_columns(_command(pl.col(name).struct, no_command).alias(name) for name in both)
        chosen = pl.coalesce(both)
        verb = chosen.struct.field("verb").str.replace_all(r"\s+", " ").str.replace(r"^re-", "re")
        asked_for = pl.col("third").struct
        answer = asked_for.field("whole").is_not_null()
        word = pl.coalesce(asked_for.field("open").str.replace_all(r"\s+", " "),
                           pl.when(asked_for.field("polar").is_not_null()).then(pl.lit("whether")))  # fmt: skip
        found = frame.select(
            pl.coalesce(verb, pl.when(answer).then(pl.lit("answer"))).alias("task_verb"),
            pl.when(verb.is_not_null()).then(head_noun(chosen.struct.field("rest"))).otherwise(word)
            .alias("task_object"),
        )  # fmt: skip
        return found.to_arrow().cast(self.columns)


def _command(found: Any, no_command: str) -> pl.Expr:
    """The struct of a match where it is a command, else null."""
    verb, rest = found.field("verb"), found.field("rest")
    field_name = verb.is_in(FIELD_NAMES) & rest.str.contains(r"^\s*:")
    return pl.when(verb.is_not_null() & ~rest.str.contains(no_command) & ~field_name).then(pl.struct(verb, rest))


@functools.cache
def patterns() -> tuple[str, str, str]:
    """Regexes over lower-case text: a command at the begin of a sentence (verb, rest of the line), one after a modal
    opening inside a sentence, and a question (whole, its open question word, its polar one)."""
    verbs = "|".join(sorted((verb.replace("-", r"[ -]") for verb in VERBS), key=lambda verb: (-len(verb), verb)))
    start = r"(?:^|[.!?:;)\]\"”][$*]*\s+|\\\]\s*|, |\n)[\s\-*•>#\"“]*(?:(?:[a-z]|\d+)[.)]\s+)?"
    command = rf"{start}{POLITE}(?:{SCENE})?{POLITE}(?:{MODAL})?({verbs}){REST}"
    inside = rf"(?:\bplease |\b{MODAL})({verbs}){REST}"
    question = rf"((?:^|[.!?\n:;,][$)\]]*[\s\"“]*){POLITE}(?:{BEFORE}({QUESTION})\b|({POLAR})\b[^.!\n]*\?))"
    return command, inside, question


def head_noun(rest: pl.Expr) -> pl.Expr:
    """The last word of the noun phrase at the begin of `rest` (lower case), in the singular; null where there is
    none. "me a short story about" -> story."""
    ends = "|".join(PHRASE_ENDS)
    opening = r"^\s*(?:(?:me|us|him|her|up|out|down|off|in|on|to|with|about|at|for|into|the|a|an|some|any|all|this|"
    opening += r"these|those|that|your|my|our|their|his|its|as many|at least|up to|following)\s+)*"
    phrase = rest.str.replace(opening, "").str.replace(rf"(?:[^\w\s'-]|(?:^|\s)(?:{ends})(?:[^\w-]|$)).*$", "")
    word = phrase.str.extract(r"([\p{L}][\p{L}'-]*)\s*$", 1)
    single = pl.when(word.str.contains(r"^(?:series|species)$|[^s]ss$|[aiou']s$")).then(word).otherwise(
        word.str.replace(r"^(mov|cook|zomb)ies$", "${1}ie").str.replace(r"([^aeiou])ies$", "${1}y")
        .str.replace(r"(ss|sh|ch|x)es$", "$1").str.replace(r"s$", ""))  # fmt: skip
    pronouns = r"this|that|these|those|it|them|the following"
    alone = rest.str.contains(rf"^\s*(?:{pronouns})\s*(?:$|[^\w\s]|(?:{ends})(?:[^\w-]|$))")
    return pl.when((word.str.len_chars() > 1) & ~alone & ~word.is_in(["following", "it", "them", "me"])).then(single)
