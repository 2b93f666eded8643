"""What a preference source teaches beside what it means to: length, format, refusals; and what its pairs lack."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from curation.catalog import Catalog
from curation.measures.pair_quality import FORMATS
from curation.measuring import ensure, named, source_view
from curation.statistics import Interval, PairedLogit, exact_interval, mcnemar_exact, paired_logit, share_interval

NEAR = 0.95  # similarity from which sides are counted as near-identical here
COUNTED = {
    "identical sides": "sides_identical",
    "near-identical sides": f"side_similarity >= {NEAR} AND NOT sides_identical",
    "prompt mismatch between sides": "prompts_mismatch",
    "a side repeats the prompt": "chosen_repeats_prompt OR rejected_repeats_prompt",
    "a side is empty": "chosen_empty OR rejected_empty",
    "one side thinks": "chosen_thinks <> rejected_thinks",
    "chosen alone ends inside a sentence": "chosen_ends_open AND NOT rejected_ends_open",
    "rejected alone ends inside a sentence": "rejected_ends_open AND NOT chosen_ends_open",
    "chosen refuses": "chosen_refuses",
    "rejected refuses": "rejected_refuses",
    "chosen alone refuses": "chosen_refuses AND NOT rejected_refuses",
    "rejected alone refuses": "rejected_refuses AND NOT chosen_refuses",
    "margin missing": "score_margin IS NULL",
    "margin zero": "score_margin = 0",
    "margin negative": "score_margin < 0",
    "margin against the scores": "margin_contradicts_scores",
    "judged by a verifier": "chosen_state IS NOT NULL AND rejected_state IS NOT NULL",
    "chosen wrong and rejected right by the verifier": "chosen_state = 'wrong' AND rejected_state = 'right'",
}


@dataclass(frozen=True)
class Preference:
    """Of `num_pairs` pairs that differ in something, the share in which the chosen side has (more of) it, with an
    interval of 95 % made by `method` (see statistics.share_interval; `exact` is Clopper-Pearson's, of the discordant
    pairs). `p_value` is McNemar's exact test that both sides are as likely, null where pairs are not independent."""

    num_pairs: int
    num_chosen: int
    share: float | None
    interval: Interval
    method: str
    p_value: float | None = None


@dataclass(frozen=True)
class Bias:
    """Figures of one preference source. `counts` are of its pairs (both sides present); the length is in words. Ratios
    are chosen to rejected, of pairs in which both have words. `shared_prefix` is the mean share of the shorter side's
    words with which both begin. `formats`: which side alone has a feature. `regression`: see
    statistics.paired_logit; its features are the words' difference and each feature's."""

    source: str
    num_rows: int
    num_pairs: int
    num_prompts: int
    counts: dict[str, int]
    longer: Preference
    num_equal_length: int
    mean_ratio: float | None
    median_ratio: float | None
    mean_words: tuple[float, float] | None
    shared_prefix: float | None
    similarity: float | None
    formats: dict[str, Preference]
    regression: PairedLogit

    def as_json(self) -> dict[str, Any]:
        """Everything, plain; intervals as [low, high]."""
        told: dict[str, Any] = plain(asdict(self))
        told["regression"] = self.regression._asdict() | {"coefficients": {
            name: {"log_odds": value, "interval": list(interval)}
            for name, (value, interval) in self.regression.coefficients.items()}}  # fmt: skip
        return told


def plain(value: Any) -> Any:
    """Tuples, named ones too, as lists, all the way down."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value


def bias(catalog: Catalog, source: str) -> Bias:
    """The figures of an ingested preference source; measures `pair_quality` where it is missing. Pairs of one prompt
    are no independent evidence: where prompts repeat (by prompt_hash), intervals are cluster-robust over prompts.
    Raises UserError for an unknown source."""
    measure = named("pair_quality")
    ensure(catalog, measure, [source])
    connection = catalog.session()
    try:
        body = source_view(catalog, source, [measure])
        connection.execute(f"CREATE TEMP VIEW pairs AS SELECT * FROM ({body}) WHERE sides_identical IS NOT NULL")
        num_rows = connection.execute(f"SELECT count(*) FROM ({body})").fetchall()[0][0]
        counted = ", ".join(f"count(*) FILTER ({test})" for test in COUNTED.values())
        counts = connection.execute(f"SELECT {counted} FROM pairs").fetchall()[0]
        features = ", ".join(f"chosen_{name}, rejected_{name}" for name in ("words", *FORMATS))
        table = connection.sql(f"SELECT place AS prompt, shared_prefix_words_share, side_similarity, {features} "
                               "FROM pairs JOIN (SELECT prompt_hash, row_number() OVER (ORDER BY prompt_hash) AS place "
                               "FROM pairs GROUP BY prompt_hash) AS hash_of USING (prompt_hash) "
                               "ORDER BY row_id").to_arrow_table()  # fmt: skip
    finally:
        connection.close()
    values = {name: table[name].to_numpy() for name in table.column_names}
    return _figures(source, num_rows, dict(zip(COUNTED, counts, strict=True)), values)


def _figures(source: str, num_rows: int, counts: dict[str, int], values: dict[str, np.ndarray]) -> Bias:
    prompts = values["prompt"]
    chosen, rejected = values["chosen_words"], values["rejected_words"]
    differ = chosen != rejected
    spoken = (chosen > 0) & (rejected > 0)
    ratios = chosen[spoken] / rejected[spoken]
    names = ("words", *FORMATS)
    differences = np.stack([values[f"chosen_{name}"] - values[f"rejected_{name}"] for name in names], axis=1)
    formats = {}
    for name in FORMATS:
        has, lacks = values[f"chosen_{name}"] > 0, values[f"rejected_{name}"] > 0
        formats[name] = _discordant(int((has & ~lacks).sum()), int((lacks & ~has).sum()))
    return Bias(
        source=source, num_rows=num_rows, num_pairs=len(prompts), num_prompts=len(np.unique(prompts)), counts=counts,
        longer=_longer((chosen > rejected)[differ], prompts[differ]), num_equal_length=int((~differ).sum()),
        mean_ratio=float(ratios.mean()) if len(ratios) else None,
        median_ratio=float(np.median(ratios)) if len(ratios) else None,
        mean_words=(float(chosen.mean()), float(rejected.mean())) if len(chosen) else None,
        shared_prefix=_mean(values["shared_prefix_words_share"]), similarity=_mean(values["side_similarity"]),
        formats=formats, regression=paired_logit(differences, names, prompts),
    )  # fmt: skip


def _mean(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _longer(longer_N: np.ndarray, prompts_N: np.ndarray) -> Preference:
    count, size = int(longer_N.sum()), len(longer_N)
    interval, method = share_interval(longer_N, prompts_N)
    p_value = mcnemar_exact(size - count, count) if method == "wilson" else None  # the test takes pairs as independent
    return Preference(size, count, count / size if size else None, interval, method, p_value)


def _discordant(chosen: int, rejected: int) -> Preference:
    size = chosen + rejected
    return Preference(size, chosen, chosen / size if size else None, exact_interval(chosen, size), "exact",
                      mcnemar_exact(rejected, chosen))  # fmt: skip
