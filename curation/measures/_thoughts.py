"""Thoughts and answers of rows as spans of one buffer: what the measures of reasoning traces share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from curation import schema
from curation.measures import PartMeasure
from curation.measures._judged import with_answer
from curation.rendering.thoughts import SOLUTION_MARKS, THINK_MARKS
from curation.texts import FIELDS, PLAIN, Segments, segments

Mark = Annotated[str, Field(min_length=2)]
Marks = tuple[tuple[Mark, Mark], ...]
MORE_THINK_MARKS: Marks = (("<thinking>", "</thinking>"), ("<thought>", "</thought>"), ("<reasoning>", "</reasoning>"),
                           ("[THINK]", "[/THINK]"), ("◁think▷", "◁/think▷"))  # fmt: skip
ANSWER_MARKS: Marks = (*SOLUTION_MARKS, ("<answer>", "</answer>"))
READS = {"midtrain": ("text", "messages"), "sft": ("messages",), "preference": ("prompt", "chosen", "rejected")}
APART, CONTENT, CALLS = FIELDS.index("reasoning"), FIELDS.index("content"), FIELDS.index("tool_calls")


@dataclass(frozen=True)
class Spans:
    """The P spans of thoughts and answers of N rows (kinds of kernels/traces.py), in reading order; S texts. `turn_S`
    numbers the turns of all rows."""

    texts: Segments
    row_S: npt.NDArray[np.int64]
    turn_S: npt.NDArray[np.int64]
    assistant_S: npt.NDArray[np.bool_]
    fault_S: npt.NDArray[np.int64]
    pairs_S: npt.NDArray[np.int64]
    open_S: npt.NDArray[np.bool_]
    segment_P: npt.NDArray[np.int64]
    start_P: npt.NDArray[np.int64]
    end_P: npt.NDArray[np.int64]
    kind_P: npt.NDArray[np.int64]


class ThoughtMeasure(PartMeasure):
    """What the measures of reasoning traces share: `think_marks` are the pairs that enclose a thought (a `reasoning`
    field is one anyway), `answer_marks` those that enclose an answer. A mark between quotation marks or backticks is
    spoken of and counts as text. A page of text counts as an assistant's; of pairs the chosen side is read, else the
    rejected one."""

    stages: ClassVar[tuple[str, ...]] = ("midtrain", "sft", "preference")
    depends_on: ClassVar[tuple[str, ...]] = (
        "curation/measures/_thoughts.py", "curation/measures/_judged.py", "curation/kernels/traces.py",
        "curation/kernels/scripts.py", "curation/rendering/thoughts.py", "curation/texts.py",
    )  # fmt: skip

    think_marks: Marks = Field(THINK_MARKS + MORE_THINK_MARKS, min_length=1)
    answer_marks: Marks = ANSWER_MARKS

    def reads(self, stage: str) -> tuple[str, ...]:
        return READS[stage]

    def spans(self, rows: pa.Table, stage: str) -> Spans:
        """The thoughts and answers of rows of a stage."""
        from curation.kernels import traces

        judged = with_answer(rows, stage)
        texts = segments(judged, judged.column_names, FIELDS)
        size = len(texts.start_S)
        assistant = np.isin(texts.role_S, (PLAIN, schema.ROLES.index("assistant"))) & (texts.field_S != CALLS)
        row = texts.row_S
        place = np.stack([row, texts.column_S, texts.turn_S])
        turn = np.cumsum(np.r_[False, (place[:, 1:] != place[:, :-1]).any(axis=0)]) if size else np.zeros(0, np.int64)
        fault, pairs, is_open = np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(size, np.bool_)
        pairs_of_marks = [*self.think_marks, *self.answer_marks]
        marks = [mark.encode() for pair in pairs_of_marks for mark in pair]
        order = sorted(range(len(marks)), key=lambda index: -len(marks[index]))  # the longest of those that match
        sizes = np.array([len(marks[index]) for index in order], np.int64)
        table = np.zeros((len(marks), max(sizes, default=0)), np.uint8)
        for at, index in enumerate(order):
            table[at, : len(marks[index])] = np.frombuffer(marks[index], np.uint8)
        first, second = np.zeros(256, np.bool_), np.zeros(256, np.bool_)
        first[[mark[0] for mark in marks]] = second[[mark[1] for mark in marks]] = True
        does = np.array([index % 2 + 2 * (index // 2 >= len(self.think_marks)) for index in order], np.int64)
        events = traces.find_marks(texts.data_B, texts.start_S, texts.end_S, table, sizes, first, second)
        found = traces.read_spans(
            texts.data_B, texts.start_S, texts.end_S, texts.field_S == APART, assistant, *events, sizes, does,  # type: ignore[call-arg]
            np.array([index // 2 for index in order], np.int64), fault, pairs, is_open,
        )  # fmt: skip
        columns = [np.ascontiguousarray(column) for column in found.T]
        return Spans(texts, row, turn, assistant, fault, pairs, is_open, *columns)
