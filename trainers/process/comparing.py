"""What TRL prepared against what was audited: rows, lengths, trained tokens and the hash of the ids that stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from trainers.process.rows import frozen

SHOWN = 5
DIFFERENT = "the trainer's rows are not those of the audit: "
SIDES = ("chosen", "rejected")
Document = tuple[int, int, int]  # tokens, trained tokens, hash of the ids
Piece = tuple[str, list[int], list[bool]]  # row id, ids, mask


def documents(prepared: Any, job: dict[str, Any]) -> list[str]:
    """Mid-training and SFT, document by document in order; packed documents are compared whatever bin
    they lie in, wrapped sequences as a whole. Empty where all agree."""
    import numpy as np

    found = []
    for row in _documents(prepared):
        labels = np.asarray(row["labels"])
        found.append((len(labels), int((labels != -100).sum()), hash_ids(row["input_ids"])))
    names, wanted = expected(job)
    if len(found) != len(wanted):
        return [f"TRL prepared {len(found)} rows, the audit {len(wanted)}"]
    if _strategy(job) in ("bfd", "bfd_split"):
        lost, new = Counter(wanted) - Counter(found), Counter(found) - Counter(wanted)
        problems = [f"{_told(item)}: in the audit and in no bin of TRL" for item in sorted(lost)]
        problems += [f"{_told(item)}: in a bin of TRL and not in the audit" for item in sorted(new)]
    else:
        problems = [f"row {name}: TRL has {_told(seen)}, the audit {_told(item)}"
                    for name, seen, item in zip(names, found, wanted, strict=True) if seen != item]  # fmt: skip
    return _some(problems)


def pairs(prepared: Any, job: dict[str, Any]) -> list[str]:
    """DPO: whole sides (TRL cuts them batch by batch) of the pairs that it keeps, in order."""
    found = [[(len(ids), hash_ids(ids)) for ids in (row["prompt_ids"] + row[f"{side}_ids"] for side in SIDES)]
             for row in prepared]  # fmt: skip
    return _pair_differences(found, job)


def whole_pairs(prepared: Any, job: dict[str, Any]) -> list[str]:
    """Reward models: both sides of the pairs that TRL keeps, in order."""
    found = [[(len(row[f"{side}_ids"]), hash_ids(row[f"{side}_ids"])) for side in SIDES] for row in prepared]
    return _pair_differences(found, job)


def sides(prepared: Any, job: dict[str, Any]) -> list[str]:
    """KTO: the sides that TRL keeps, whatever their order."""
    found = Counter((bool(row["label"]), len(row["prompt_ids"] + row["completion_ids"]),
                     hash_ids(row["prompt_ids"] + row["completion_ids"])) for row in prepared)  # fmt: skip
    wanted = Counter((fate["side"] == 0, fate["tokens"], fate["ids_hash"]) for fate in _kept(job))
    told = [f"{size} tokens, ids {digest:016x}, {'chosen' if chosen else 'rejected'}: in {where}"
            for of, where in ((wanted - found, "the audit alone"), (found - wanted, "TRL alone"))
            for chosen, size, digest in sorted(of)]  # fmt: skip
    return _some(told)


def prompts(prepared: Any, job: dict[str, Any]) -> list[str]:
    """Trainers that generate take every prompt as it is."""
    wanted = len(_kept(job))
    return [] if len(prepared) == wanted else [f"TRL prepared {len(prepared)} prompts, the audit {wanted}"]


def _pair_differences(found: list[list[tuple[int, int]]], job: dict[str, Any]) -> list[str]:
    kept: dict[int, dict[int, tuple[int, int]]] = {}
    names: dict[int, str] = {}
    for fate in _kept(job):
        kept.setdefault(fate["position"], {})[fate["side"]] = (fate["tokens"], fate["ids_hash"])
        names[fate["position"]] = fate["row_id"]
    wanted = [(names[position], [of[0], of[1]]) for position, of in sorted(kept.items()) if len(of) == 2]
    if len(found) != len(wanted):
        return [f"TRL prepared {len(found)} pairs, the audit {len(wanted)}"]
    return _some([f"row {name}: TRL has {seen} (tokens, hash of the ids), the audit {item}"
                  for seen, (name, item) in zip(found, wanted, strict=True) if seen != item])  # fmt: skip


def _kept(job: dict[str, Any]) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    columns = ["position", "side", "row_id", "fate", "tokens", "ids_hash"]
    return [row for row in pq.read_table(job["fates"], columns=columns).to_pylist() if row["fate"] != "dropped"]


def _some(problems: list[str]) -> list[str]:
    return problems[:SHOWN] + ([f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else [])


def _strategy(job: dict[str, Any]) -> str | None:
    config = job["config"]
    return str(config.get("packing_strategy") or "bfd") if config.get("packing") else None


def _told(item: Document) -> str:
    return f"{item[0]} tokens, {item[1]} trained, ids {item[2]:016x}"


def hash_ids(ids: Any) -> int:
    """xxh3-64 of token ids as little-endian int32, as the anatomy measures it."""
    import numpy as np
    import xxhash

    return xxhash.xxh3_64_intdigest(np.asarray(ids, "<i4").tobytes())


def expected(job: dict[str, Any]) -> tuple[list[str], list[Document]]:
    """Row ids and documents that the audit says the trainer keeps, in order. The anatomy hashes whole rows, so rows
    that are cut or split are rendered once more for the hash of what stays."""
    import pyarrow.parquet as pq

    fates = pq.read_table(job["fates"]).to_pylist()
    wrapped = _strategy(job) == "wrapped"
    names: list[str] = []
    documents: list[Document] = []
    blocks: dict[int, list[Piece]] = {}
    again = {row["position"] for row in fates if row["fate"] in ("cut", "split") or wrapped}
    rendered = _rendered(job, again)
    for row in fates:
        if row["fate"] == "dropped":
            continue
        if row["position"] not in again:
            names.append(row["row_id"])
            documents.append((row["kept_tokens"], row["kept_trained_tokens"], row["ids_hash"]))
            continue
        ids, mask = rendered[row["position"]]
        for piece in row["pieces"] or [{"start": 0, "length": row["kept_tokens"], "bin": row["bin"]}]:
            of = slice(piece["start"], piece["start"] + piece["length"])
            trained = int(mask[of].sum()) if row["pieces"] else row["kept_trained_tokens"]
            if wrapped:
                blocks.setdefault(piece["bin"], []).append((row["row_id"], ids[of].tolist(), mask[of].tolist()))
            else:
                names.append(row["row_id"])
                documents.append((len(ids[of]), trained, hash_ids(ids[of])))
    for number in sorted(blocks):
        names.append(blocks[number][0][0])
        tokens = [token for _, ids, _ in blocks[number] for token in ids]
        documents.append((len(tokens), sum(sum(mask) for _, _, mask in blocks[number]), hash_ids(tokens)))
    return names, documents


def _rendered(job: dict[str, Any], wanted: set[int]) -> dict[int, tuple[Any, Any]]:
    """(ids, mask) of rows by position."""
    from curation.fingerprint import hash_bytes
    from curation.rendering import Rendering, Template, load_tokenizer

    if not wanted:
        return {}
    text = job["template"]
    template = None if text is None else Template("audited", text, hash_bytes(text.encode()))
    rendering = Rendering(load_tokenizer(None, job["tokenizer"]), template, job["path"], job["kwargs"])
    found = {}
    for position, row in enumerate(frozen(job["parts"])):
        if position in wanted:
            made = rendering.render(row, job["stage"])
            found[position] = (made.ids, made.mask)
    return found


def _documents(prepared: Any) -> Iterator[dict[str, Any]]:
    for row in prepared:
        if "seq_lengths" not in row:
            yield row
            continue
        start = 0
        for length in row["seq_lengths"]:
            yield {name: row[name][start : start + length] for name in ("input_ids", "labels")}
            start += length
