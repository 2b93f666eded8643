"""What `kedge show` adds to the description of a thing: figures of a preference source, refusals per category."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curation.catalog import Catalog
from curation.console import out, table

if TYPE_CHECKING:
    from curation.measuring import Measure
    from curation.pair_bias import Bias, Preference
    from curation.safety import Report

Table = tuple[str, list[str], list[list[Any]]]


@dataclass(frozen=True)
class Figures:
    """One section: plain values for --json, tables and lines for the terminal."""

    values: dict[str, Any]
    tables: tuple[Table, ...] = ()
    lines: tuple[str, ...] = ()


def figures(catalog: Catalog, name: str) -> list[Figures]:
    """The sections for the thing of a name: `pair_bias` for a preference source, `refusals` for a safety taxonomy.
    Nothing is measured here: where signals are missing the section says which command measures them."""
    found = []
    source = catalog.sources().get(name)
    if source is not None and source[1].stage == "preference":
        found.append(_of_pairs(catalog, name))
    if name in catalog.project.paths("taxonomies", ".yaml"):
        found.append(_of_safety(catalog, name))
    return found


def print_figures(sections: Sequence[Figures]) -> None:
    """The sections on the terminal."""
    for section in sections:
        for told in section.tables:
            table(*told)
        for line in section.lines:
            out.print(line, markup=False)


def _missing(kind: str, command: str) -> Figures:
    return Figures({"kind": kind, "next": command}, lines=(f"{kind.replace('_', ' ')}: not measured; run: {command}",))


def _of_pairs(catalog: Catalog, name: str) -> Figures:
    from curation.measuring import named, signal_parts
    from curation.pair_bias import bias

    if signal_parts(catalog, named("pair_quality"), name) is None:
        return _missing("pair_bias", f"kedge measure {name} --only pair_quality")
    found = bias(catalog, name)
    values = {"kind": "pair_bias", "name": name} | found.as_json()
    if not found.num_pairs:
        return Figures(values, lines=("pair bias: no row has both sides",))
    return Figures(values, tuple(_bias_tables(found)), tuple(_bias_lines(found)))


def _bias_tables(found: Bias) -> list[Table]:
    counts = [[what, count, _percent(count / found.num_pairs)] for what, count in found.counts.items() if count]
    sides = [["longer, in words", *_preference(found.longer)],
             *([f"has {name.replace('_', ' ')}", *_preference(of)] for name, of in found.formats.items()
               if of.num_pairs)]  # fmt: skip
    told = [("pairs", ["what", "pairs", "share"], counts),
            ("pairs in which one side alone is or has it, and how often that is the chosen one",
             ["feature", "pairs", "chosen", "95 % interval", "by"], sides)]  # fmt: skip
    odds = [[name.replace("_", " "), f"{value:+.2f}", f"{low:+.2f} .. {high:+.2f}"]
            for name, (value, (low, high)) in found.regression.coefficients.items()]  # fmt: skip
    if odds:
        told.append(("log-odds of chosen per standard deviation", ["feature", "log-odds", "95 % interval"], odds))
    return told


def _bias_lines(found: Bias) -> list[str]:
    lines = [f"{found.num_pairs:,} pairs of {found.num_rows:,} rows, {found.num_prompts:,} prompts"]
    if found.mean_words is not None:
        chosen, rejected = found.mean_words
        lines.append(f"words: chosen {chosen:.1f}, rejected {rejected:.1f} in the mean")
    if found.mean_ratio is not None:
        lines.append(f"chosen to rejected: {found.mean_ratio:.2f} in the mean, {found.median_ratio:.2f} in the median")
    if found.similarity is not None:
        lines.append(f"words that both sides have in order: {_percent(found.similarity)} in the mean")
    if found.shared_prefix is not None:
        lines.append(f"words with which both begin: {_percent(found.shared_prefix)} of the shorter side in the mean")
    if found.regression.problem is not None:
        lines.append(f"no regression: {found.regression.problem}")
    if found.regression.separating:
        told = ", ".join(f"{name} ({sign})" for name, sign in found.regression.separating.items())
        lines.append(f"always for (+) or against (-) chosen, so left out of the regression: {told}")
    return lines


def _preference(of: Preference) -> list[Any]:
    low, high = of.interval
    share = "-" if of.share is None else _percent(of.share)
    return [of.num_pairs, share, f"{_percent(low)} .. {_percent(high)}", of.method]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _of_safety(catalog: Catalog, name: str) -> Figures:
    from curation.measuring import applicable, named, signal_parts
    from curation.safety import refusals

    measure = named("safety", {} if name == "safety" else {"taxonomy": name})
    sources = applicable(catalog, measure)
    if not sources or any(signal_parts(catalog, measure, source) is None for source in sources):
        return _missing("refusals", _measures_safety(catalog, measure, name))
    report = refusals(catalog, taxonomy=name)
    alike, rows = (sum(getattr(item, key) for item in report.categories) for key in ("num_look_alikes", "num_rows"))
    line = f"look-alikes (prompts that sound dangerous and are benign): {alike:,} of {rows:,} rows"
    return Figures({"kind": "refusals", "name": name} | report.as_json(), (_refusal_table(report),), (line,))


def _measures_safety(catalog: Catalog, measure: Measure, taxonomy: str) -> str:
    """The command that measures under a taxonomy: `measure --only` for the one named safety, a rule for another."""
    from curation.rules import load_rules

    if taxonomy == "safety":
        return "kedge measure --only safety"
    rules = [rule.name for rule in load_rules(catalog, adopted_only=False)
             if measure.fingerprint() in {item.fingerprint() for item in rule.measures}]  # fmt: skip
    if rules:
        return f"kedge rules {rules[0]}"
    return f"kedge rules NAME, where catalogs/rules/NAME.sql has needs: [{{safety: {{taxonomy: {taxonomy}}}}}]"


def _refusal_table(report: Report) -> Table:
    columns = ["category", "policy", "refused", "share, 95 % interval", "against policy"]
    rows = []
    for item in report.categories:
        policy = (item.policy or "-").removeprefix("answer with ")
        share = "-"
        if item.share is not None:
            share = f"{_percent(item.share)} ({100 * item.interval.low:.1f} .. {100 * item.interval.high:.1f})"
        against = f"{item.over:,} over" if item.over else f"{item.under:,} under" if item.under else "-"
        rows.append([item.category, policy, f"{item.refused:,} of {item.num_answers:,}", share, against])
    return f"refusals per category over {', '.join(report.sources)}", columns, rows
