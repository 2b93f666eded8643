"""The structure of reasoning traces: where thoughts stand, whether they are whole, what follows, in which script."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from curation import schema
from curation.measures._thoughts import CALLS, CONTENT, Spans, ThoughtMeasure
from curation.texts import PLAIN

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class TraceStructure(ThoughtMeasure):
    """Facts of the thoughts of a row. Characters are code points without the white space around a stretch.

    num_thoughts: how many there are, thoughts_per_turn the most of one turn, empty_thoughts those without text.
    think_fault: null, or the first of: 'unclosed', 'never opened' (the first mark closes: a template opened it),
    'closed twice', 'nested' (also marks inside of reasoning apart), 'mismatched' (closed by another pair's mark); else
    'duplicated' (a turn thinks the same text twice), else 'empty'. think_marks: the opening marks of the pairs that
    are used, and 'reasoning' for a thought that stands apart. chars_before_thought: text of an assistant turn before
    its first thought. answer_after_thought: whether text or a call follows in every turn whose last thought is closed;
    null where no turn has one. misplaced_thought_*: the longest block that marks enclose in a turn that is no
    assistant's, and whose turn it is (a prompt that explains the format has a short one).

    truncated_at_source: whether the last assistant text ends inside of a thought or of a marked answer, and in the
    middle of a sentence (a letter, digit, comma, operator or open bracket): what one row can tell of a cut; null
    without such a text. thought_script, answer_script: the script of most letters. second_script: that of the next most
    in thoughts and answers, second_script_share its share of the letters; script_switches: changes between runs of
    letters inside a thought or an answer. Latin counts in runs of `latin_letters` on and not behind a backslash."""

    version: ClassVar[int] = 1
    columns: ClassVar[pa.Schema] = pa.schema(
        [
            ("num_thoughts", pa.int32()),
            ("thoughts_per_turn", pa.int32()),
            ("empty_thoughts", pa.int32()),
            ("think_fault", pa.string()),
            ("think_marks", pa.list_(pa.string())),
            ("thought_chars", pa.int32()),
            ("chars_outside_thoughts", pa.int32()),
            ("thought_share", pa.float64()),
            ("chars_before_thought", pa.int32()),
            ("answer_after_thought", pa.bool_()),
            ("misplaced_thought_role", pa.string()),
            ("misplaced_thought_chars", pa.int32()),
            ("truncated_at_source", pa.bool_()),
            ("thought_script", pa.string()),
            ("answer_script", pa.string()),
            ("second_script", pa.string()),
            ("second_script_share", pa.float64()),
            ("script_switches", pa.int32()),
        ]
    )

    latin_letters: int = Field(4, ge=1)

    def measure(self, rows: pa.Table, stage: str) -> pa.Table:
        from curation.kernels import traces

        spans = self.spans(rows, stage)
        chars, text_hash = np.zeros(len(spans.kind_P), np.int64), np.zeros(len(spans.kind_P), np.uint64)
        table = np.stack([spans.segment_P, spans.start_P, spans.end_P, spans.kind_P], axis=1)
        traces.describe_spans(spans.texts.data_B, table, chars, text_hash)
        found = self._thoughts(spans, chars, text_hash, rows.num_rows) | self._misplaced(spans, chars, rows.num_rows)
        found |= self._scripts(spans, rows.num_rows) | {"truncated_at_source": _truncated(spans, rows.num_rows)}
        return pa.table({field.name: found[field.name].cast(field.type) for field in self.columns})

    def _thoughts(self, spans: Spans, chars_P: Ints, hash_P: npt.NDArray[np.uint64],
                  num_rows: int) -> dict[str, pa.Array]:  # fmt: skip
        from curation.kernels import traces

        row_P, turn_P = spans.row_S[spans.segment_P], spans.turn_S[spans.segment_P]
        thought_P = spans.kind_P <= traces.UNFINISHED
        answer_P = spans.kind_P == traces.ANSWER
        empty_P = thought_P & (chars_P == 0)
        turns = int(spans.turn_S.max(initial=-1)) + 1
        row_T = np.zeros(turns, np.int64)
        row_T[spans.turn_S] = spans.row_S
        per_turn = np.bincount(turn_P[thought_P], minlength=turns)
        most, before = np.zeros(num_rows, np.int64), np.zeros(num_rows, np.int64)
        np.maximum.at(most, row_T, per_turn)
        early, late, finished_T = _around(spans, turn_P, thought_P, answer_P, per_turn > 0)
        np.maximum.at(before, row_T, np.bincount(turn_P[early], chars_P[early], turns).astype(np.int64))
        follows_T = np.bincount(turn_P[late], chars_P[late], turns) > 0
        follows_T[spans.turn_S[spans.texts.field_S == CALLS]] = True
        asked, lacking = (np.bincount(row_T[some], minlength=num_rows) > 0 for some in
                          (finished_T, finished_T & ~follows_T))  # fmt: skip
        fault = _first_fault(spans, num_rows)
        for code, some in ((traces.DUPLICATED, _twice(turn_P, hash_P, thought_P & ~empty_P)), (traces.EMPTY, empty_P)):
            fault[row_P[some]] = np.where(fault[row_P[some]] == 0, code, fault[row_P[some]])
        thought, answer = (np.bincount(row_P[some], chars_P[some], num_rows) for some in (thought_P, answer_P))
        whole = thought + answer
        share = np.divide(thought, whole, out=np.zeros(num_rows), where=whole > 0)
        return {
            "num_thoughts": pa.array(np.bincount(row_P[thought_P], minlength=num_rows)),
            "thoughts_per_turn": pa.array(most),
            "empty_thoughts": pa.array(np.bincount(row_P[empty_P], minlength=num_rows)),
            "think_fault": _named(fault, traces.FAULTS, fault == 0),
            "think_marks": self._pairs(spans, num_rows),
            "thought_chars": pa.array(thought),
            "chars_outside_thoughts": pa.array(answer),
            "thought_share": pa.array(share, mask=whole == 0),
            "chars_before_thought": pa.array(before),
            "answer_after_thought": pa.array(~lacking, mask=~asked),
        }

    def _pairs(self, spans: Spans, num_rows: int) -> pa.Array:
        used = np.zeros(num_rows, np.int64)
        np.bitwise_or.at(used, spans.row_S, np.where(spans.assistant_S, spans.pairs_S, 0))
        names = ["reasoning", *(opening for opening, _ in self.think_marks)]
        sets, which = np.unique(used, return_inverse=True)
        lists = [[name for bit, name in enumerate(names) if pairs >> bit & 1] for pairs in sets.tolist()]
        return pa.array(lists, pa.list_(pa.string())).take(pa.array(which))

    def _misplaced(self, spans: Spans, chars_P: Ints, num_rows: int) -> dict[str, pa.Array]:
        from curation.kernels import traces

        some = np.flatnonzero((spans.kind_P == traces.MISPLACED) & (spans.texts.field_S[spans.segment_P] == CONTENT))
        some = some[np.argsort(chars_P[some], kind="stable")]
        row = spans.row_S[spans.segment_P[some]]
        role, chars = np.full(num_rows, PLAIN), np.zeros(num_rows, np.int64)
        role[row], chars[row] = spans.texts.role_S[spans.segment_P[some]], chars_P[some]  # the longest is written last
        return {"misplaced_thought_role": _named(role, schema.ROLES, role == PLAIN),
                "misplaced_thought_chars": pa.array(chars)}  # fmt: skip

    def _scripts(self, spans: Spans, num_rows: int) -> dict[str, pa.Array]:
        from curation.kernels import traces
        from curation.kernels.scripts import SCRIPTS, count_scripts, script_table

        row_P = spans.row_S[spans.segment_P]
        counts, switches = np.zeros((2 * num_rows, len(SCRIPTS)), np.int64), np.zeros(2 * num_rows, np.int64)
        taught = spans.kind_P != traces.MISPLACED
        into = 2 * row_P + (spans.kind_P == traces.ANSWER)
        count_scripts(spans.texts.data_B, spans.start_P[taught], spans.end_P[taught], into[taught], script_table(),
                      self.latin_letters, counts, switches)  # fmt: skip
        both = counts[0::2] + counts[1::2]
        total = both.sum(axis=1)
        second = np.argsort(-both, axis=1, kind="stable")[:, 1] if num_rows else np.zeros(0, np.int64)
        letters = both[np.arange(num_rows), second]
        found = {name: _named(part.argmax(axis=1), SCRIPTS, part.sum(axis=1) == 0) for name, part in
                 (("thought_script", counts[0::2]), ("answer_script", counts[1::2]))}  # fmt: skip
        share = np.divide(letters, total, out=np.zeros(num_rows), where=total > 0)
        return found | {"second_script": _named(second, SCRIPTS, letters == 0),
                        "second_script_share": pa.array(share, mask=total == 0),
                        "script_switches": pa.array(switches[0::2] + switches[1::2])}  # fmt: skip


def _around(spans: Spans, turn_P: Ints, thought_P: Bools, answer_P: Bools,
            thinks_T: Bools) -> tuple[Bools, Bools, Bools]:  # fmt: skip
    """(answers before the first thought of their turn, those after its last one, turns whose last thought is closed);
    only turns that think have either."""
    from curation.kernels import traces

    turns = len(thinks_T)
    place = np.arange(len(turn_P))
    first, last = np.full(turns, len(turn_P)), np.full(turns, -1)
    last[turn_P[thought_P]] = place[thought_P]
    first[turn_P[thought_P][::-1]] = place[thought_P][::-1]
    finished = thinks_T.copy()
    finished[thinks_T] = spans.kind_P[last[thinks_T]] == traces.THOUGHT
    here = answer_P & thinks_T[turn_P]
    return here & (place < first[turn_P]), here & (place > last[turn_P]), finished


def _first_fault(spans: Spans, num_rows: int) -> Ints:
    """The fault of the first text of each row (N) that has one; 0 for none."""
    some = np.flatnonzero((spans.fault_S > 0) & spans.assistant_S)[::-1]
    fault = np.zeros(num_rows, np.int64)
    fault[spans.row_S[some]] = spans.fault_S[some]
    return fault


def _twice(turn_P: Ints, hash_P: npt.NDArray[np.uint64], among_P: Bools) -> Bools:
    """Spans among some whose text stands in an earlier one of the same turn."""
    chosen = np.flatnonzero(among_P)
    order = chosen[np.lexsort((hash_P[chosen], turn_P[chosen]))]
    again = np.zeros(len(turn_P), np.bool_)
    again[order[1:]] = (turn_P[order[1:]] == turn_P[order[:-1]]) & (hash_P[order[1:]] == hash_P[order[:-1]])
    return again


def _truncated(spans: Spans, num_rows: int) -> pa.Array:
    """Whether the last assistant content of each row (N) ends inside of a thought or a marked answer and in
    mid-sentence; null without one."""
    from curation.kernels import traces

    last = np.full(num_rows, -1)
    some = np.flatnonzero(spans.assistant_S & (spans.texts.field_S == CONTENT))
    last[spans.row_S[some]] = some
    cut = np.zeros(num_rows, np.bool_)
    for row in np.flatnonzero((last >= 0) & spans.open_S[last] if len(spans.open_S) else last >= 0):
        start, end = spans.texts.start_S[last[row]], spans.texts.end_S[last[row]]
        cut[row] = not traces.ends_in_sentence(spans.texts.data_B, start, end)
    return pa.array(cut, mask=last < 0)


def _named(code_N: npt.NDArray[np.integer], names: tuple[str, ...], null_N: Bools) -> pa.Array:
    return pa.array(names).take(pa.array(np.where(null_N, 0, code_N), mask=null_N))
