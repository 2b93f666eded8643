"""What the characters of a row are: letters, digits and signs, scripts, and what a broken encoding leaves behind."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curation.measures import PartMeasure
from curation.texts import SIDES, segments

OF_CHARS = {"letter_share": ("latin", "cjk", "cyrillic", "arabic", "other_script"), "digit_share": ("digit",),
            "punctuation_share": ("punctuation",), "symbol_share": ("symbol", "emoji"), "space_share": ("space",),
            "non_ascii_share": ("non_ascii",)}  # fmt: skip
OF_LETTERS = ("latin", "cjk", "cyrillic", "arabic", "other_script")
PLAIN_COUNTS = {"control_chars": "control", "private_use_chars": "private_use", "replacement_chars": "replacement",
                "mojibake_chars": "mojibake", "emoji": "emoji", "longest_character_run": "longest_run"}  # fmt: skip


class Characters(PartMeasure):
    """Over all texts of a row (content and reasoning, both sides of a pair): shares of all characters (`letter_`,
    `digit_` (numbers of any script), `punctuation_`, `symbol_`, `space_`, `non_ascii_share`); shares of its letters by
    script (`latin_share`, `cjk_share` with Hangul, `cyrillic_share`, `arabic_share`, `other_script_share`);
    `capitals_share` of the letters that have case, `capital_words_share` of the words of two or more such letters;
    counts of control characters other than tab and line ends, private-use characters, U+FFFD, characters of mojibake
    (UTF-8 read as Latin-1 or Windows-1252: Ã©, â€™), emoji; the longest run of one character that is no space.
    `answer_broken_share`: control, private-use, U+FFFD and mojibake characters among those of the assistant turns
    (of `chosen` where there is one; a plain text counts whole). A share of nothing is null.
    """

    version: ClassVar[int] = 1
    depends_on: ClassVar[tuple[str, ...]] = (
        "curation/kernels/characters.py", "curation/kernels/scripts.py", "curation/kernels/words.py",
        "curation/texts.py",
    )  # fmt: skip
    columns: ClassVar[pa.Schema] = pa.schema(
        [(name, pa.float64()) for name in OF_CHARS]
        + [(f"{name}_share", pa.float64()) for name in OF_LETTERS]
        + [("capitals_share", pa.float64()), ("capital_words_share", pa.float64())]
        + [(name, pa.int32()) for name in PLAIN_COUNTS]
        + [("answer_broken_share", pa.float64())]
    )

    def reads(self, stage: str) -> tuple[str, ...]:
        return tuple(name for name in SIDES[stage] if name != "ground_truth")

    def measure(self, rows: pa.Table, stage: str) -> pa.Table:
        from curation.kernels.characters import COUNTS, count_characters, kind_table, mojibake_table

        found = segments(rows, self.reads(stage))
        into_S = 2 * found.row_S + found.learnt_S
        count_RC = np.zeros((2 * rows.num_rows, len(COUNTS)), np.int64)
        count_characters(found.data_B, found.start_S, found.end_S, into_S, kind_table(), mojibake_table(), count_RC)
        answer = dict(zip(COUNTS, count_RC[1::2].T, strict=True))
        row = dict(zip(COUNTS, (count_RC[::2] + count_RC[1::2]).T, strict=True))
        row["longest_run"] = np.maximum(*(count_RC[start::2, COUNTS.index("longest_run")] for start in (0, 1)))
        letters = sum(row[name] for name in OF_LETTERS)
        broken = sum(answer[name] for name in ("control", "private_use", "replacement", "mojibake"))
        arrays = [_share(sum(row[name] for name in names), row["chars"]) for names in OF_CHARS.values()]
        arrays += [_share(row[name], letters) for name in OF_LETTERS]
        arrays += [_share(row["upper"], row["upper"] + row["lower"]), _share(row["capital_words"], row["cased_words"])]
        arrays += [pa.array(row[name], pa.int32()) for name in PLAIN_COUNTS.values()]
        arrays += [_share(broken, answer["chars"])]
        return pa.table(arrays, schema=self.columns)


def _share(count: Any, of: Any) -> pa.Array:
    share = np.divide(count, of, out=np.zeros(len(of)), where=of > 0)
    return pa.array(share, pa.float64(), mask=of == 0)
