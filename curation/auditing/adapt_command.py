"""`kedge template adapt`: fit a template to a base tokenizer, publish the folder, and say which rows to train."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import psutil
import yaml

from curation.auditing.template_checks import TemplateReport, check_template
from curation.auditing.template_command import print_template
from curation.auditing.template_inheritance import Inheritance, compare
from curation.config import Project, project_around, read_text
from curation.console import out, print_json, table
from curation.errors import EXIT_FAILED, EXIT_OK, UserError
from curation.fingerprint import hash_bytes
from curation.outputs import sync
from curation.rendering import Template, Tokenizer, load_template, load_tokenizer
from curation.rendering.adapting import ROWS_MULTIPLE, Adaptation, adapt, unused_tokens, write_adapted
from curation.rendering.templates import OWN, template_path
from curation.rendering.tokenizers import resolve

Floats = npt.NDArray[np.float32]
Verdict = Literal["used", "untrained", "unclear"]
INPUTS = ("embed_tokens", "wte", "embed_in", "word_embeddings", "tok_embeddings")
OUTPUTS = ("lm_head", "embed_out")
NEAR_ZERO = 0.1  # of the mean norm of used rows
FEWEST_UNUSED = 4  # rows that make a mean worth a distance
BLOCK = 8192


@dataclass(frozen=True)
class Matrix:
    """An embedding matrix in a safetensors file: the module's name, and float32[rows, width] in blocks of rows."""

    module: str
    rows: int
    blocks: Callable[[], Iterator[Floats]]


@dataclass(frozen=True)
class Row:
    """One embedding row. `norm` is its length, `used_norm` the mean over the rows of ordinary tokens."""

    norm: float
    used_norm: float
    verdict: Verdict


@dataclass(frozen=True)
class Adapted:
    """What the command found and did. `measured`: module -> id -> row, empty without weights; `rows_to_train`: ids of
    new and renamed tokens, and of those that the base has but never trained (a pad's row needs no training); `lora`:
    see lora_options."""

    folder: str
    written: bool
    adaptation: Adaptation
    tied: bool | None
    measured: dict[str, dict[int, Row]]
    rows_to_train: list[int]
    lora: dict[str, dict[str, Any]]
    parent: Inheritance | None
    report: TemplateReport

    @property
    def passed(self) -> bool:
        return self.report.passed and (self.parent is None or self.parent.verdict != "breaks")


def run(name: str, tokenizer: str, to: Path, parent: Path | None, as_json: bool) -> int:
    """Adapt, print, and return the exit code: 1 where a check fails or the parent is broken. The folder is published
    all the same, since a known deviation may be wanted. Needs no project."""
    project = project_around()
    found = adapt_to(project, name, tokenizer, to, parent)
    if as_json:
        print_json(asdict(found) | {"passed": found.passed})
    else:
        print_adapted(found)
        if found.parent is not None:
            print_inheritance(str(parent), found.parent)
        print_template(name, found.report)
    return EXIT_OK if found.passed else EXIT_FAILED


def adapt_to(project: Project | None, name: str, tokenizer: str, to: Path, parent: Path | None) -> Adapted:
    """Fit the template `name` to the tokenizer, publish the folder `to`, compare it with the parent's and check it."""
    base = load_tokenizer(project, tokenizer)
    grown_from = load_tokenizer(project, str(parent)) if parent is not None else None
    text = read_text(Path(name) / "chat_template.jinja" if Path(name).is_dir() else template_path(project, name))
    template = Template(name, text, hash_bytes(text.encode()))
    model = Path(resolve(project, tokenizer)[0])
    matrices, tied = read_matrices(model)
    adaptation = adapt(template, base, matrices[0].rows if matrices else _config(model).get("vocab_size"))
    measured = {matrix.module: measure(matrix, base, adaptation) for matrix in matrices}
    written = publish(to, lambda folder: write_adapted(adaptation, template, base, folder))
    adapted = load_tokenizer(project, str(to.resolve()))
    inheritance = None
    if grown_from is not None:
        inheritance = compare((load_template(project, OWN, grown_from), grown_from), (template, adapted))
    ids = {token.id for token in adaptation.changed}
    ids |= {number for rows in measured.values() for number, row in rows.items() if row.verdict == "untrained"}
    train = sorted(ids - ({adaptation.pad[1]} if adaptation.pad else set()))
    return Adapted(str(to), written, adaptation, tied, measured, train, lora_options(train, list(measured), tied),
                   inheritance, check_template(template, adapted, {}, to))  # fmt: skip


def publish(target: Path, write: Callable[[Path], None]) -> bool:
    """Fill a temporary sibling with `write`, and put it in place by one rename: a killed command leaves no half folder,
    and what it wrote is removed by the next. False where `target` holds the same already. Raises UserError where it
    holds anything else."""
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in target.parent.glob(f".{target.name}.*.tmp"):
        pid = leftover.name.split(".")[-2]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(leftover, ignore_errors=True)
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        write(draft)
        for path in (*sorted(draft.iterdir()), draft):
            sync(path)
        try:
            draft.rename(target)  # fails where it is a file, or a folder that is not empty
        except OSError:
            if _content(target) != _content(draft):
                raise UserError("holds something else already", "name another folder with --to, or remove it",
                                where=str(target), key="--to") from None  # fmt: skip
            return False
        sync(target.parent)
        return True
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _config(model: Path) -> dict[str, Any]:
    path = model / "config.json"
    config: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return config | config.get("text_config", {})


def read_matrices(model: Path) -> tuple[list[Matrix], bool | None]:
    """(input and, where it is another one, output embeddings of a folder with safetensors; whether they are tied). An
    empty list where there are no weights to read, None where nothing says whether they are tied."""
    config = _config(model)
    index = model / "model.safetensors.index.json"
    files = {model / "model.safetensors"} if (model / "model.safetensors").is_file() else set()
    if index.is_file():
        files = {model / name for name in json.loads(index.read_text())["weight_map"].values()}
    found = {}
    for path in sorted(files):
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size))
        for name, entry in header.items():
            module = name.removesuffix(".weight").split(".")[-1]
            if name.endswith(".weight") and module in (*INPUTS, *OUTPUTS) and entry["dtype"] in ("F32", "F16", "BF16"):
                found[module] = _matrix(path, 8 + size, module, entry)
    matrices = [found[name] for name in (*INPUTS, *OUTPUTS) if name in found]
    if not config:
        return matrices, None
    from transformers import AutoConfig

    try:  # the family's default counts where the file is silent
        settings: Any = AutoConfig.from_pretrained(model, trust_remote_code=False).get_text_config()
        tied = bool(settings.tie_word_embeddings)
    except (ValueError, OSError, KeyError, AttributeError):
        tied = bool(config.get("tie_word_embeddings", not any(name in found for name in OUTPUTS)))
    return [matrix for matrix in matrices if not tied or matrix.module in INPUTS], tied


def _matrix(path: Path, start: int, module: str, entry: dict[str, Any]) -> Matrix:
    """A view of one tensor (format: huggingface/safetensors README)."""
    rows, width = entry["shape"]
    kind = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}[entry["dtype"]]

    def blocks() -> Iterator[Floats]:
        raw = np.memmap(path, dtype=kind, mode="r", offset=start + entry["data_offsets"][0], shape=(rows, width))
        for first in range(0, rows, BLOCK):
            block = np.asarray(raw[first : first + BLOCK])
            wide = (block.astype(np.uint32) << 16).view(np.float32) if kind is np.uint16 else block.astype(np.float32)
            yield wide

    return Matrix(module, rows, blocks)


def measure(matrix: Matrix, base: Tokenizer, adaptation: Adaptation) -> dict[int, Row]:
    """The embedding rows of the template's tokens. A row is `untrained` where its norm is below a tenth of the mean
    norm of ordinary tokens' rows, or where it lies as near to the mean of the unused rows as they do themselves and
    nearer than ordinary ones (after Land and Bartolo 2024, arXiv 2405.05417); `unclear` where unused and ordinary rows
    cannot be told apart."""
    size, unused = max(base.hf.get_vocab().values()) + 1, list(unused_tokens(base))
    spare = np.zeros(matrix.rows, np.bool_)
    spare[[number for number in unused if number < matrix.rows]] = True
    spare[size:] = True
    ordinary = ~spare
    ordinary[[number for number in base.hf.added_tokens_decoder if number < matrix.rows]] = False
    norms = np.concatenate([np.linalg.norm(block, axis=1) for block in matrix.blocks()])
    used_norm = float(norms[ordinary].mean())
    count = int(spare.sum())
    middle, border = np.zeros(0), 0.0
    if count >= FEWEST_UNUSED:
        chosen = np.split(spare, range(BLOCK, matrix.rows, BLOCK))
        sums = [block[rows].sum(axis=0, dtype=np.float64) for block, rows in zip(matrix.blocks(), chosen, strict=True)]
        mean = np.sum(sums, axis=0) / count
        middle = np.concatenate([np.linalg.norm(block - mean, axis=1) for block in matrix.blocks()])
        middle[spare] *= count / (count - 1)  # the distance to the mean of the others
        near, far = np.quantile(middle[spare], 0.95), np.quantile(middle[ordinary], 0.05)
        border = float((near + far) / 2) if near < far else 0.0
    found = {}
    for token in adaptation.tokens:
        if token.id >= matrix.rows:
            continue
        verdict: Verdict = "unclear" if border <= 0 else "untrained" if middle[token.id] <= border else "used"
        if norms[token.id] < NEAR_ZERO * used_norm:
            verdict = "untrained"
        found[token.id] = Row(float(norms[token.id]), used_norm, verdict)
    return found


def lora_options(ids: list[int], modules: list[str], tied: bool | None) -> dict[str, dict[str, Any]]:
    """Trainer -> options of peft's LoraConfig that train these rows, both cases where nothing says whether the
    embeddings are tied. TRL 1.16 reads the bias of the output layer, which peft 0.21 has not where single rows of it
    are trained (also where it is tied to such an input), so that the output is trained whole there. Without
    ensure_weight_tying a tied output would keep its old rows."""
    if not ids:
        return {}
    first, last = modules[0] if modules else INPUTS[0], modules[1] if len(modules) > 1 else OUTPUTS[0]
    found: dict[str, dict[str, Any]] = {}
    if tied is not False:
        found["TRL, tied embeddings"] = {"modules_to_save": [first], "ensure_weight_tying": True}
        found["peft alone, tied embeddings"] = {"trainable_token_indices": ids}
    if tied is not True:
        found["TRL, untied embeddings"] = {"trainable_token_indices": {first: ids}, "modules_to_save": [last]}
        found["peft alone, untied embeddings"] = {"trainable_token_indices": {first: ids, last: list(ids)}}
    return found


def print_adapted(found: Adapted) -> None:
    """The tokens with their embedding rows, the ends of sequence and the pad, and what LoRA must train."""
    adaptation, measured = found.adaptation, found.measured
    done = "written" if found.written else "holds this already, nothing was done"
    out.print(f"{found.folder}: {done}", markup=False)
    lines = []
    for token in adaptation.tokens:
        norms = [_shown(rows.get(token.id)) for rows in measured.values()]
        lines.append([token.text, str(token.id), token.place, token.was, token.id in found.rows_to_train, *norms])
    table("special tokens", ["token", "id", "place", "was", "train its row", *measured], lines)
    eos, pad = (f"{item[0]} ({item[1]})" if item else "none" for item in (adaptation.eos, adaptation.pad))
    same = " (the same token: no other can be had)" if adaptation.eos == adaptation.pad else ""
    stops = ", ".join(map(str, adaptation.stop_ids))
    out.print(f"eos_token: {eos}; generation stops at {stops}; pad_token: {pad}{same}", markup=False)
    if adaptation.begins is not None:
        out.print(f"the base begins every text with {adaptation.begins}, and the template does not write it: put "
                  "{{ bos_token }} before its first turn, or train and serve without it", markup=False)  # fmt: skip
    before, after = adaptation.embedding_rows, adaptation.rows_needed
    if after > before:
        out.print(f"grow the embeddings by {after - before} rows, from {before} to {after} (a multiple of "
                  f"{ROWS_MULTIPLE}): model.resize_token_embeddings({after})", markup=False)  # fmt: skip
    if found.lora:
        out.print("under LoRA these rows must be trained too (full training needs nothing); run file, under trainer:")
    for trainer, options in found.lora.items():
        text = yaml.safe_dump({"lora": options}, default_flow_style=None, sort_keys=False, width=10**6)
        out.print(f"# {trainer}\n{text}".rstrip(), markup=False)
    if not measured:
        out.print("embedding rows were not measured: with a model's folder as --tokenizer, those of tokens that are "
                  "kept are looked at too", markup=False)  # fmt: skip


def _shown(row: Row | None) -> str | None:
    return None if row is None else f"{row.verdict}: norm {row.norm:.3g}, used rows {row.used_norm:.3g}"


def print_inheritance(parent: str, found: Inheritance) -> None:
    """The verdict on the parent's template, what is new, and the first conversation that differs."""
    style = "red" if found.verdict == "breaks" else "green"
    out.print(f"{found.verdict} {parent}: {found.num_compared} conversations, {found.num_different} differ",
              style=style, markup=False)  # fmt: skip
    if found.new_tokens:
        table("new tokens", ["token", "id"], [[text, str(number)] for text, number in found.new_tokens.items()])
    for line in (*found.changes, *map(str, found.problems)):
        out.print(line, markup=False)
    if found.difference is not None:
        where = f"{found.difference.kind}, {found.difference.part}, from token {found.difference.at}"
        texts = [["parent", repr(found.difference.parent)], ["child", repr(found.difference.child)]]
        table(where, ["side", "text"], texts)
    if found.skipped:
        out.print(f"the parent renders none of: {', '.join(found.skipped)}", markup=False)
