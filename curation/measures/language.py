"""Which language a row and its answer are written in, by py3langid, whose model comes with its wheel: no network."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from curation import phrases, schema
from curation.measures import PartMeasure
from curation.texts import SIDES, segments, utf8

NO_LANGUAGE = "zxx"  # the model's label for text without language: formulas, tables, code
NOT_PROSE = r"(?s)```.*?(?:```|\z)|https?://\S+|\\\[.*?\\\]|\\\(.*?\\\)|\$\$.*?\$\$|\$[^$\n]{1,300}\$"
BATCH = 4_096
MACRO = {"wuu": "zh", "yue": "zh", "ary": "ar", "arz": "ar", "sdh": "ku", "uzs": "uz"}  # members of ISO 639-3


class Language(PartMeasure):
    """`language` of a row's contents (ISO 639-1, or 639-3 where that has none; a member of a macrolanguage is that one:
    Wu is zh) and `answer_language` of its last assistant turn (of `chosen`, else of `rejected`; a plain text is its
    own answer), each with the probability that the model gives it, in 0..1. Fenced code, web addresses, formulas and a
    thought before `</think>` are left out; of a longer text the first and the last `sample_chars` / 2 characters are
    read, of every turn, then of the row. Null where fewer than `least_bytes` bytes of letters are left (24 letters, or
    8 Chinese characters) and where the model finds no language at all."""

    version: ClassVar[int] = 1
    depends_on: ClassVar[tuple[str, ...]] = (
        "curation/kernels/languages.py", "curation/phrases.py", "curation/texts.py",
    )  # fmt: skip
    columns: ClassVar[pa.Schema] = pa.schema(
        [("language", pa.string()), ("language_probability", pa.float64()), ("answer_language", pa.string()),
         ("answer_language_probability", pa.float64())]
    )  # fmt: skip
    sample_chars: int = 2_000
    least_bytes: int = 24

    def identity(self) -> dict[str, Any]:
        """Covers the release of py3langid, whose model decides."""
        from importlib.metadata import version

        return super().identity() | {"py3langid": version("py3langid")}

    def reads(self, stage: str) -> tuple[str, ...]:
        return tuple(name for name in SIDES[stage] if name != "ground_truth")

    def measure(self, rows: pa.Table, stage: str) -> pa.Table:
        found = segments(rows, self.reads(stage), ("content",))
        texts = phrases.answers(pl.Series(found.strings(), dtype=pl.String))
        row_S = found.row_S
        says = ~np.isin(found.role_S, [schema.ROLES.index(name) for name in schema.ROLES if name != "assistant"])
        says &= np.isin(found.column_S, [index for index, name in enumerate(found.columns) if name != "prompt"])
        last = np.full(rows.num_rows, -1)
        chosen_last = says.copy()
        if "rejected" in found.columns:  # the rejected side answers only where no other does
            rejected = found.column_S == found.columns.index("rejected")
            last[row_S[says & rejected]] = np.flatnonzero(says & rejected)
            chosen_last &= ~rejected
        last[row_S[chosen_last]] = np.flatnonzero(chosen_last)
        prose = self._sampled(texts)
        lists = pa.LargeListArray.from_arrays(pa.array(found.first_N1, pa.int64()), prose.to_arrow())
        whole = self._cut(pl.Series(pc.binary_join(lists, pa.scalar("\n", pa.large_string())), dtype=pl.String))
        values = self._identified(whole)
        answers = [values[0].copy(), values[1].copy()]
        other = np.flatnonzero((np.diff(found.first_N1) != 1) & (last >= 0))  # elsewhere the answer is all there is
        for item, empty, new in zip(answers, (None, np.nan), self._identified(prose.gather(last[other])), strict=True):
            item[last < 0] = empty
            item[other] = new
        arrays = [pa.array(array, kind, from_pandas=True)
                  for array, kind in zip([*values, *answers], self.columns.types, strict=True)]  # fmt: skip
        return pa.table(arrays, schema=self.columns)

    def _sampled(self, texts: pl.Series) -> pl.Series:
        """Prose alone, cut to the sample."""
        marked = texts.str.contains(r"```|https?://|\\[\[(]|\$")
        return self._cut(phrases.replaced(texts, marked, texts.filter(marked).str.replace_all(NOT_PROSE, " ")))

    def _cut(self, texts: pl.Series) -> pl.Series:
        long = texts.str.len_chars() > self.sample_chars
        half = self.sample_chars // 2
        kept = texts.filter(long)
        return phrases.replaced(texts, long, kept.str.head(half) + "\n" + kept.str.tail(half))

    def _identified(self, texts: pl.Series) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
        """(language or None, probability or NaN) of N texts."""
        labels, probability = np.full(len(texts), None, object), np.full(len(texts), np.nan)
        names = np.array(_model()[0], object)
        for first in range(0, len(texts), BATCH):
            scores, enough = _scores(texts.slice(first, BATCH), self.least_bytes)
            best = scores.argmax(axis=1)
            known = np.flatnonzero(enough & (names[best] != NO_LANGUAGE))
            labels[first + known] = names[best[known]]
            probability[first + known] = np.round(scores[known, best[known]], 4)
        return labels, probability


@functools.cache
def _model() -> tuple[Any, ...]:
    """(labels, next moves, row bases, outputs, weights, priors, pairs of columns with one label) of py3langid."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    labels = [MACRO.get(label, label) for label in model.nb_classes]
    first = {label: labels.index(label) for label in labels}
    aliases = [(first[label], place) for place, label in enumerate(labels) if place != first[label]]
    return (labels, np.asarray(model.tk_nextmove), np.asarray(model.tk_row, np.int64) << 8,
            np.asarray(model.tk_output, np.int32), np.ascontiguousarray(model.nb_ptc, np.float32),
            np.asarray(model.nb_pc, np.float32), aliases)  # fmt: skip


def _scores(texts: pl.Series, least_bytes: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """(probability of every label N x L, which of N texts have enough letters), as py3langid's `classify` computes
    them: upper-case texts are lowered, NFC, scores divided by the root of the length, aliases of a label added."""
    from curation.kernels.languages import count_letter_bytes, score_texts

    moves, bases, outputs, weights, priors, aliases = _model()[1:]
    upper = pl.Series(pc.utf8_is_upper(texts.to_arrow()))
    texts = phrases.replaced(texts, upper, texts.filter(upper).str.to_lowercase())
    array = texts.to_arrow().cast(pa.large_string())
    if not pc.all(pc.string_is_ascii(array)).as_py():
        array = pc.utf8_normalize(array, "NFC")
    buffer, ends = utf8(array)
    scores, features = score_texts(buffer, ends[:-1], ends[1:], moves, bases, outputs, weights, priors)
    scores = scores.astype(np.float64) / np.sqrt(np.maximum(np.diff(ends), 1))[:, None]
    scores = np.exp(scores - scores.max(axis=1, keepdims=True)) if len(scores) else scores
    scores /= scores.sum(axis=1, keepdims=True)
    for first, second in aliases:
        scores[:, first] += scores[:, second]
        scores[:, second] = 0
    return scores, (features > 0) & (count_letter_bytes(buffer, ends[:-1], ends[1:]) >= least_bytes)
