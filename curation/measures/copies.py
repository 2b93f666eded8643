"""How many rows share a row's prompt, its answer, both, or a single turn, within and across sources."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import pyarrow as pa

from curation.measures import JoinMeasure

if TYPE_CHECKING:
    from curation.join_work import JoinWork

LAYERS = ("prompt", "answer", "prompt_answer")
TURNS = ("answer_turn", "user_turn")


class Copies(JoinMeasure):
    """Counts rows of one stage by the exact layers of `duplicate_layers`, and by the prompt (the user turns before the
    first answer, or the text; case and white space folded). LAYER_copies is the number of rows with the same key, this
    one included (null where a row has none), LAYER_rank the row's place among them, 0 first: held-out rows (all 0),
    then source priority, the larger `quality`, row_id. TURN_copies is that of the row's most frequent turn.

    The evidence names for every row that shares a layer the row that stands first there, of turns for the most frequent
    one."""

    version: ClassVar[int] = 1
    depends_on: ClassVar[tuple[str, ...]] = ("curation/duplicates/order.py", "curation/duplicates/counting.py")
    needs: ClassVar[tuple[str, ...]] = ("duplicate_layers", "text_statistics")
    columns: ClassVar[pa.Schema] = pa.schema(
        [(f"{layer}_{name}", pa.int32()) for layer in LAYERS for name in ("copies", "rank")]
        + [(f"{turn}_copies", pa.int32()) for turn in TURNS]
    )
    evidence: ClassVar[pa.Schema] = pa.schema(
        [
            ("row_id", pa.uuid()),
            ("layer", pa.string()),
            ("copies", pa.int32()),
            ("representative", pa.uuid()),
            ("source", pa.string()),
            ("representative_source", pa.string()),
        ]
    )
    evidence_kind: ClassVar[str] = "copied_layers"

    quality: Literal["chars", "words", "turns", "prompt_chars", "answer_chars"] = "chars"

    def join(self, work: JoinWork) -> None:
        from curation.duplicates.counting import count_copies

        count_copies(work, LAYERS, TURNS, self.quality)
