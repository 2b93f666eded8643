"""Weighted means of checkpoints: numbers, shards, dtypes, tied weights, refusals, memory, kills."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from curation import checkpoints
from curation.errors import UserError
from tests.merging_models import moved, state
from trainers.merging.linear import merge_linear
from trainers.merging.tensor_stream import to_bytes, to_floats

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def pair(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pair")
    return moved(tiny_model, folder / "a", seed=1), moved(tiny_model, folder / "b", seed=2, shard="100KB")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def rewrite(folder: Path, change) -> None:
    """Save the only shard of a folder again with other tensors."""
    from safetensors.torch import save_file

    tensors = state(folder)
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_the_mean_is_that_of_float32_and_everything_else_is_the_first_ones(pair, tmp_path: Path):
    a, b = pair
    kind, digest = merge_linear([a, b], [0.75, 0.25], tmp_path / "merged")
    assert (kind, digest) == checkpoints.weights_of(tmp_path / "merged")
    one, other, found = state(a), state(b), state(tmp_path / "merged")
    assert found.keys() == one.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, one[name] * 0.75 + other[name] * 0.25), name
    copied = {"config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"}
    for name in copied:
        assert (tmp_path / "merged" / name).read_bytes() == (a / name).read_bytes()
    record = json.loads((tmp_path / "merged" / "merge.json").read_text())
    assert [item["weight"] for item in record["merged"]] == [0.75, 0.25]


def test_the_merged_model_loads_and_three_checkpoints_merge_as_well(pair, tiny_model: Path, tmp_path: Path):
    from transformers import AutoModelForCausalLM

    merge_linear([*pair, tiny_model], [0.5, 0.3, 0.2], tmp_path / "merged")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    expected = AutoModelForCausalLM.from_pretrained(tiny_model)
    parts = [state(pair[0]), state(pair[1]), state(tiny_model)]
    mean = {name: sum(part[name] * share for part, share in zip(parts, (0.5, 0.3, 0.2), strict=True))
            for name in parts[0]}  # fmt: skip
    expected.load_state_dict(mean | {"lm_head.weight": mean["model.embed_tokens.weight"]})
    ids = torch.arange(40)[None]
    with torch.no_grad():
        assert torch.allclose(model(ids).logits, expected(ids).logits, atol=1e-5)


def test_shards_are_laid_out_as_the_first_ones_are(pair, tmp_path: Path):
    a, b = pair
    merge_linear([b, a], [0.5, 0.5], tmp_path / "merged")
    shards = sorted(path.name for path in b.glob("*.safetensors"))
    assert len(shards) > 2 and sorted(path.name for path in (tmp_path / "merged").glob("*.safetensors")) == shards
    assert all((tmp_path / "merged" / name).stat().st_size == (b / name).stat().st_size for name in shards)
    index = "model.safetensors.index.json"
    assert (tmp_path / "merged" / index).read_bytes() == (b / index).read_bytes()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_the_first_ones_dtype_is_kept_and_numbers_are_rounded_once(pair, tiny_model: Path, tmp_path: Path, dtype: str):
    first = moved(tiny_model, tmp_path / "first", seed=3, dtype=dtype)
    merge_linear([first, pair[0]], [0.3, 0.7], tmp_path / "merged")
    one, other = state(first), state(pair[0])
    wide = torch.float64 if dtype == "float64" else torch.float32
    for name, tensor in state(tmp_path / "merged").items():
        assert tensor.dtype == getattr(torch, dtype)
        mean = one[name].to(wide) * 0.3 + other[name].to(wide) * 0.7
        assert torch.equal(tensor, mean.to(tensor.dtype)), name


def test_bfloat16_is_read_and_rounded_as_torch_does_for_every_number():
    bits = np.arange(1 << 16, dtype=np.uint16)
    every = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16).float().numpy()
    read = to_floats(bits.tobytes(), "BF16")
    assert np.array_equal(read, every, equal_nan=True)
    values = np.random.default_rng(0).integers(0, 1 << 32, 1 << 16, dtype=np.uint32).view(np.float32)
    ties = ((bits.astype(np.uint32) << 16) | 0x8000).view(np.float32)
    for numbers in (values, ties):
        finite = numbers[np.isfinite(numbers) & (np.abs(numbers) < 3.3e38)]
        expected = torch.from_numpy(finite.copy()).bfloat16().view(torch.int16).numpy()
        assert to_bytes(finite, "BF16") == expected.tobytes()


def test_a_head_that_only_one_of_two_tied_models_stores_is_no_difference(pair, tmp_path: Path):
    a, b = pair
    shutil.copytree(a, tmp_path / "stored")
    rewrite(tmp_path / "stored", lambda tensors: tensors.update(
        {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}))  # fmt: skip
    merge_linear([tmp_path / "stored", b], [0.5, 0.5], tmp_path / "one")
    merge_linear([b, tmp_path / "stored"], [0.5, 0.5], tmp_path / "other")
    found = state(tmp_path / "one")
    assert torch.equal(found["lm_head.weight"], found["model.embed_tokens.weight"])
    assert "lm_head.weight" not in state(tmp_path / "other")
    shutil.copytree(tmp_path / "stored", tmp_path / "trained")
    rewrite(tmp_path / "trained", lambda tensors: tensors["lm_head.weight"].add_(1))
    with pytest.raises(UserError, match=r"lacks the tensor lm_head\.weight"):
        merge_linear([tmp_path / "trained", b], [0.5, 0.5], tmp_path / "refused")


def test_every_difference_is_told_at_once(pair, tmp_path: Path):
    a, _ = pair
    other = tmp_path / "other"
    shutil.copytree(a, other)

    def change(tensors):
        del tensors["model.norm.weight"]
        tensors["extra.weight"] = torch.zeros(3)
        tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(2, 2)

    rewrite(other, change)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5, "dtype": "float16"}))
    (other / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(UserError) as caught:
        merge_linear([a, other], [0.5, 0.5], tmp_path / "merged")
    text = str(caught.value)
    for part in ("lacks the tensor model.norm.weight", "has the tensor extra.weight", "[2, 2], not [256, 64]",
                 "rms_norm_eps = 0.5", "has another chat template", "--waive REASON"):  # fmt: skip
        assert part in text
    assert len(caught.value.problems) == 5, "a dtype is no difference"
    assert not (tmp_path / "merged").exists()


def test_another_tokenizer_or_template_is_refused_unless_waived(pair, tmp_path: Path):
    a, b = pair
    other = tmp_path / "other"
    shutil.copytree(b, other)
    (other / "chat_template.jinja").write_text("{{ messages }}")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] = {word: place ^ 1 for word, place in tokenizer["model"]["vocab"].items()}
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match=r"(?s)another tokenizer.*another chat template"):
        merge_linear([a, other], [0.5, 0.5], tmp_path / "merged")
    merge_linear([a, other], [0.5, 0.5], tmp_path / "merged", waive="the template only lost a space")
    assert json.loads((tmp_path / "merged" / "merge.json").read_text())["waived"] == "the template only lost a space"


def test_a_tokenizer_saved_in_other_bytes_is_the_same_tokenizer(pair, tmp_path: Path):
    a, b = pair
    other = tmp_path / "other"
    shutil.copytree(b, other)
    (other / "tokenizer.json").write_text(json.dumps(json.loads((a / "tokenizer.json").read_text()), indent=4))
    assert merge_linear([a, other], [0.5, 0.5], tmp_path / "merged") == merge_linear(
        [a, b], [0.5, 0.5], tmp_path / "same bytes")  # fmt: skip


@pytest.mark.parametrize(("number", "dtype"), [(float("nan"), "float32"), (float("inf"), "float32"), (9e9, "float16")])
def test_numbers_that_are_not_finite_are_not_spread(tiny_model: Path, tmp_path: Path, number: float, dtype: str):
    one = moved(tiny_model, tmp_path / "one", seed=1, dtype=dtype)
    other = moved(tiny_model, tmp_path / "other", seed=2)
    rewrite(other, lambda tensors: tensors["model.norm.weight"].index_fill_(0, torch.tensor([5]), number))
    with pytest.raises(UserError, match=r"model\.norm\.weight holds a number that is not finite"):
        merge_linear([one, other], [0.5, 0.5], tmp_path / "merged")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "other"]


def test_numbers_that_are_no_floats_must_be_equal_and_are_copied(pair, tmp_path: Path):
    folders = []
    for name, value in (("one", 7), ("same", 7), ("other", 8)):
        shutil.copytree(pair[0], tmp_path / name)
        rewrite(tmp_path / name, lambda tensors, value=value: tensors.update(places=torch.full((3,), value)))
        folders.append(tmp_path / name)
    merge_linear(folders[:2], [0.5, 0.5], tmp_path / "merged")
    assert state(tmp_path / "merged")["places"].tolist() == [7, 7, 7]
    with pytest.raises(UserError, match="other numbers in places"):
        merge_linear([folders[0], folders[2]], [0.5, 0.5], tmp_path / "refused")


@pytest.mark.parametrize("weights", [[0.5, 0.6], [float("nan"), 1.0], [1.0], [0.2, 0.3, 0.5]])
def test_weights_that_are_no_shares_are_refused(pair, tmp_path: Path, weights: list[float]):
    with pytest.raises(UserError):
        merge_linear(list(pair), weights, tmp_path / "merged")


@pytest.mark.parametrize("harm", ["cut", "header", "overlap", "twice"])
def test_files_that_are_not_sound_are_refused(pair, tmp_path: Path, harm: str):
    shutil.copytree(pair[0], tmp_path / "harmed")
    weights = tmp_path / "harmed" / "model.safetensors"
    data = weights.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    if harm == "cut":
        weights.write_bytes(data[:-8])
    elif harm == "header":
        weights.write_bytes(data[:8] + b"[" * length + data[8 + length :])
    elif harm == "overlap":
        header["model.norm.weight"]["data_offsets"] = [0, 256]
        text = json.dumps(header).encode()
        weights.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    else:
        shutil.copyfile(weights, tmp_path / "harmed" / "model-00001-of-00002.safetensors")
    with pytest.raises(UserError):
        merge_linear([pair[0], tmp_path / "harmed"], [0.5, 0.5], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_equal_inputs_give_equal_bytes(pair, tmp_path: Path):
    for name in ("once", "again"):
        merge_linear(list(pair), [0.6, 0.4], tmp_path / name)
    assert files(tmp_path / "once") == files(tmp_path / "again")


def test_memory_is_that_of_some_blocks_and_not_of_a_shard(pair, tmp_path: Path):
    large = [tmp_path / "one", tmp_path / "other"]
    for folder, value in zip(large, (1.0, 3.0), strict=True):
        shutil.copytree(pair[0], folder)
        rewrite(folder, lambda tensors, value=value: tensors.update(
            {"large.weight": torch.full((40, 1 << 20), value)}))  # fmt: skip
    shard = (large[0] / "model.safetensors").stat().st_size
    assert shard > 160e6
    tracemalloc.start()
    merge_linear(large, [0.5, 0.5], tmp_path / "merged")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.3 * shard
    assert state(tmp_path / "merged")["large.weight"].unique().tolist() == [2.0]


MERGE = """
import sys
from pathlib import Path
from trainers.merging.linear import merge_linear
merge_linear([Path(sys.argv[1]), Path(sys.argv[2])], [0.5, 0.5], Path(sys.argv[3]))
"""


def test_a_merge_that_is_killed_leaves_no_target_and_the_next_one_cleans_up(pair, tmp_path: Path):
    for name in ("one", "other"):
        shutil.copytree(pair[0], tmp_path / "from" / name)
        rewrite(tmp_path / "from" / name, lambda tensors: tensors.update(large=torch.ones(60, 1 << 20)))
    target = tmp_path / "to" / "merged"
    folders = [tmp_path / "from" / "one", tmp_path / "from" / "other"]
    command = [sys.executable, "-c", MERGE, *map(str, folders), str(target)]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if any(path.stat().st_size > 1e6 for path in tmp_path.glob("to/.tmp-*/*.safetensors")):
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.001)
    assert process.wait() == -signal.SIGKILL, "the kill came too late to prove anything"
    assert not target.exists() and len(list(target.parent.iterdir())) == 1
    merge_linear(folders, [0.5, 0.5], target)
    assert [path.name for path in target.parent.iterdir()] == ["merged"]


def test_a_target_that_is_there_is_not_overwritten(pair, tmp_path: Path):
    (tmp_path / "merged").mkdir()
    with pytest.raises(UserError, match="is there already"):
        merge_linear(list(pair), [0.5, 0.5], tmp_path / "merged")
