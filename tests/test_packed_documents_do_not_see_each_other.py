"""Check P2: documents packed by TRL's own code are read by the model's own code, together and alone."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml

from curation.auditing import isolation
from curation.auditing.isolation import collated, documents_apart, probe, probe_batch, small_config, small_model, words
from curation.auditing.mirrors.llama_factory_sft import LlamaFactorySFT
from curation.auditing.mirrors.trl_sft import TRLSFT
from curation.auditing.setting import Setting

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

APART, JOINED = 1e-4, 1e-3
LLAMA_31 = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "max_position_embeddings": 131072,
    "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "torch_dtype": "bfloat16",
    "rope_theta": 500000.0, "rope_scaling": {
        "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
        "rope_type": "llama3"},
}  # fmt: skip
SLIDING = {
    "mistral": {"model_type": "mistral", "sliding_window": 4, "num_hidden_layers": 32},
    "qwen2": {"model_type": "qwen2", "sliding_window": 4, "use_sliding_window": True, "max_window_layers": 10,
              "num_hidden_layers": 28},
    "gemma3": {"model_type": "gemma3_text", "sliding_window": 4, "num_hidden_layers": 26},
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    """Sums of a few numbers; more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def known(kind: str) -> dict[str, Any]:
    """The config of a model type at its own defaults."""
    from transformers import CONFIG_MAPPING

    if kind not in CONFIG_MAPPING:
        pytest.skip(f"this transformers has no {kind}")
    return {"model_type": kind}


def setting(folder: Path, config: dict[str, Any], **options: Any) -> Setting:
    (folder / "config.json").write_text(json.dumps(config))
    return Setting(folder, options)


@pytest.mark.parametrize("strategy", ["bfd", "bfd_split"])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3_text", "gemma4_text",
                                  "smollm3", "phi3", "olmo2", "glm4", "granite", "qwen3_moe", "mixtral",
                                  "deepseek_v3"])  # fmt: skip
def test_documents_of_one_packed_sequence_do_not_see_each_other(kind, strategy):
    seen = probe(known(kind), strategy, False)
    assert seen.difference < APART
    assert seen.unguarded > JOINED, "a probe that could see nothing would prove nothing"
    assert "eager" in seen.attentions


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral", "gemma"])
def test_documents_that_are_wrapped_see_each_other_and_that_is_an_error(kind, tmp_path):
    seen = probe(known(kind), "wrapped", False)
    assert seen.difference > JOINED and seen.difference == pytest.approx(seen.unguarded, rel=1e-4)
    assert seen.attentions == ("eager", "sdpa")
    for more in ({}, {"padding_free": True}, {"packing_strategy": "bfd"}):
        options = {"packing": True, "packing_strategy": "wrapped"} | more
        check = documents_apart(TRLSFT(**options), setting(tmp_path, known(kind)))
        if more.get("packing_strategy") == "bfd":
            assert (check.level, check.next) == ("ok", "") and check.value < APART
        else:
            assert check.level == "error" and check.value > JOINED and "bfd" in check.next


def test_padding_free_rows_that_share_a_sequence_do_not_see_each_other(tmp_path):
    assert probe(LLAMA_31, None, True).difference < APART
    mirror = TRLSFT(max_length=None, padding_free=True)
    check = documents_apart(mirror, setting(tmp_path, LLAMA_31))
    assert check.id == "P2" and check.level == "ok" and check.value == probe(LLAMA_31, None, True).difference
    assert documents_apart(TRLSFT(), setting(tmp_path, LLAMA_31)) is None


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_mask_or_a_cache_or_running_positions_join_what_was_apart(attention):
    documents = words(11, 9)
    model = small_model({"model_type": "qwen3"}, attention)
    batch = collated(documents, "bfd", False)
    assert "attention_mask" not in batch
    assert batch["position_ids"].tolist() == [[*range(11), *range(9)]]
    assert probe_batch(model, batch, documents) < APART
    joining = {
        "mask": batch | {"attention_mask": torch.ones_like(batch["input_ids"])},
        "cache": batch | {"use_cache": True},
        "positions": batch | {"position_ids": torch.arange(20)[None]},
    }
    for name, other in joining.items():
        assert probe_batch(model, other, documents) > JOINED, name
        assert probe_batch(model, other, documents[:1]) < APART, "the first document has nothing before it"
    with pytest.raises(ValueError, match="does not hold the document"):
        probe_batch(model, batch, [documents[1][::-1]])


@pytest.mark.parametrize("name", SLIDING)
def test_a_sliding_window_does_not_reach_over_the_border(name):
    config = SLIDING[name]
    known(config["model_type"])
    assert probe(config, "bfd", False).difference < APART
    assert small_config(config).sliding_window == 4
    ids = torch.tensor([words(11)[0]])
    with torch.no_grad():
        narrow, wide = (small_model(config | {"sliding_window": size}, "eager")(ids, use_cache=False).logits
                        for size in (4, 4096))  # fmt: skip
    assert float((narrow - wide).abs().max()) > JOINED, "the window must be in force"
    if name != "mistral":
        assert set(small_config(config).layer_types) == {"full_attention", "sliding_attention"}


def test_a_small_model_keeps_everything_of_the_runs_but_its_sizes():
    small = small_config(LLAMA_31 | {"attention_bias": True, "rms_norm_eps": 1e-3, "tie_word_embeddings": True})
    assert (small.hidden_size, small.num_hidden_layers, small.num_attention_heads, small.num_key_value_heads,
            small.head_dim, small.intermediate_size, small.vocab_size) == (64, 2, 4, 2, 16, 128, 128)  # fmt: skip
    assert small.attention_bias and small.tie_word_embeddings and small.rms_norm_eps == 1e-3
    assert small.rope_parameters["rope_type"] == "llama3" and small.rope_parameters["rope_theta"] == 500000.0
    assert small_config({"model_type": "llama", "num_attention_heads": 8}).num_key_value_heads == 4, "no sharing"
    assert small_config({"model_type": "llama", "num_key_value_heads": 1}).num_key_value_heads == 1
    pairs = {"short_factor": [1.0] * 48, "long_factor": [2.0] * 48, "type": "longrope"}
    phi = {"model_type": "phi3", "hidden_size": 3072, "num_attention_heads": 32, "rope_scaling": pairs,
           "original_max_position_embeddings": 4096}  # fmt: skip
    assert len(small_config(phi).rope_parameters["long_factor"]) == 8
    assert probe(phi, "bfd", False).difference < APART
    parameters = sum(parameter.numel() for parameter in small_model(LLAMA_31, "sdpa").parameters())
    assert parameters < 200_000


@pytest.mark.parametrize("options", [
    {"packing": True}, {"packing": True, "packing_strategy": "bfd_split"},
    {"packing": True, "packing_strategy": "wrapped"}, {"padding_free": True, "max_length": None},
    {"packing": True, "padding_free": True},
], ids=["bfd", "bfd_split", "wrapped", "padding_free", "both"])  # fmt: skip
def test_the_probed_batch_is_the_one_that_the_trainer_makes_and_trains_on(tiny_model, tmp_path, options):
    import datasets
    from trl import SFTConfig, SFTTrainer

    documents = words(11, 9)
    rows = datasets.Dataset.from_dict({"input_ids": documents})
    arguments = SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none",
                          **{"max_length": 20} | options)  # fmt: skip
    trainer = SFTTrainer(str(tiny_model), args=arguments, train_dataset=rows)
    made = trainer.data_collator(list(trainer.train_dataset))
    strategy = options.get("packing_strategy", "bfd") if options.get("packing") else None
    batch = collated(documents, strategy, bool(options.get("padding_free")))
    assert set(made) == set(batch)
    for name, value in made.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(batch[name])), name
    trainer.compute_loss(trainer.model, made)
    assert made["use_cache"] is False
    assert set(made) - set(batch) == {"use_cache"}, "the model is called with nothing else"


def test_a_class_that_joins_packed_documents_fails_the_check_unless_another_attention_is_asked_for(tmp_path):
    config = known("gpt_oss")
    if probe(config, "bfd", False).difference < APART:
        pytest.skip("this transformers gives the mask of gpt_oss its positions (transformers#39997)")
    mirror = TRLSFT(packing=True)
    check = documents_apart(mirror, setting(tmp_path, config))
    assert check.level == "error" and check.value > JOINED and "GptOssForCausalLM" in check.next
    for options in ({"attn_implementation": "flash_attention_3"},
                    {"model_init_kwargs": {"attn_implementation": "flash_attention_3"}}):  # fmt: skip
        check = documents_apart(mirror, setting(tmp_path, config, **options))
        assert check.level == "warn" and "flash_attention_3 is not run here" in check.message
    wrapped = documents_apart(TRLSFT(packing=True, packing_strategy="wrapped"), setting(tmp_path, config, **options))
    assert wrapped.level == "error", "no attention keeps wrapped documents apart"


@pytest.mark.parametrize(("config", "said"), [
    ({"model_type": "lama"}, "has no model type 'lama'"),
    ({"model_type": "llama", "num_hidden_layers": "many"}, "num_hidden_layers"),
    ({"model_type": "qwen2", "initializer_range": 1e-6}, "shows no difference"),
    ({"model_type": "t5"}, "not probed"),
], ids=lambda value: value["model_type"] if isinstance(value, dict) else None)  # fmt: skip
def test_a_model_that_cannot_be_probed_is_a_warning_with_the_reason(config, said, tmp_path):
    place = setting(tmp_path, config)
    check = documents_apart(TRLSFT(packing=True), place)
    assert check.level == "warn" and check.next
    assert said in check.message and "\n" not in check.message and len(check.message) < 500
    wrapped = documents_apart(TRLSFT(packing=True, packing_strategy="wrapped"), place)
    assert wrapped.level == "error" and "not probed" in wrapped.message
    with pytest.raises(ValueError):
        probe(config, "bfd", False)


def test_what_is_not_probed_says_why(tmp_path):
    check = documents_apart(TRLSFT(packing=True), Setting())
    assert check.level == "ok" and "not probed: the model's config.json is not known here" in check.message
    check = documents_apart(TRLSFT(packing=True, packing_strategy="wrapped"), Setting())
    assert (check.level, check.value) == ("error", 1.0)
    place = setting(tmp_path, LLAMA_31)
    neat = documents_apart(LlamaFactorySFT(neat_packing=True), place)
    assert neat.level == "ok" and "not probed: only TRL's collator is" in neat.message
    assert documents_apart(LlamaFactorySFT(packing=True), place).level == "error"
    assert documents_apart(LlamaFactorySFT(), place) is None


def test_a_probe_leaves_random_state_threads_and_processes_as_they_are():
    config = {"model_type": "qwen2", "rope_theta": 54321.0}
    torch.manual_seed(3)
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(),
              torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled())  # fmt: skip
    running, children = set(threading.enumerate()), psutil.Process().children()
    misses = isolation._outcome.cache_info().misses
    first = probe(config, "bfd", False)
    assert isolation._outcome.cache_info().misses == misses + 1, "a probe must have taken place"
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(),
                      torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled())  # fmt: skip
    assert set(threading.enumerate()) <= running and psutil.Process().children() == children
    torch.manual_seed(4)
    isolation._outcome.cache_clear()
    assert probe(config, "bfd", False) == first, "the figure depends on nothing but the model, the packing and versions"


FRESH = """
import random, sys, threading
from pathlib import Path
from curation.auditing.isolation import documents_apart
from curation.auditing.mirrors.trl_sft import TRLSFT
from curation.auditing.setting import Setting
assert documents_apart(TRLSFT(max_length=512), Setting(Path(sys.argv[1]))) is None
assert "(not probed" in documents_apart(TRLSFT(packing=True), Setting()).message
print(sorted({"torch", "trl", "transformers", "datasets"} & set(sys.modules)))
random.seed(3)
state, running = random.getstate(), threading.enumerate()
print(documents_apart(TRLSFT(packing=True), Setting(Path(sys.argv[1]))).level)
print("trl" in sys.modules, random.getstate() == state, threading.enumerate() == running)
"""


def test_without_packing_nothing_is_imported_and_a_first_probe_disturbs_nothing(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_31))
    made = subprocess.run([sys.executable, "-c", FRESH, str(tmp_path)], capture_output=True, text=True, check=True)
    assert made.stdout.splitlines() == ["[]", "ok", "True True True"]
    assert "examples/s" not in made.stderr and "[transformers]" not in made.stderr, "no bar, no warning"


def talks(path: Path) -> Path:
    """Twenty short conversations."""
    with path.open("w") as stream:
        for number in range(20):
            answer = f"<think>{number}+3</think>The answer is {number + 3}."
            turns = [{"role": "user", "content": f"{number} plus 3?"}, {"role": "assistant", "content": answer}]
            stream.write(json.dumps({"messages": turns}) + "\n")
    return path


def test_a_sweep_over_twenty_lengths_probes_once(tiny_model, tmp_path):
    from curation.auditing.bare import bare_case
    from curation.auditing.sweep import sweep

    case = bare_case(talks(tmp_path / "talks.jsonl"), str(tiny_model), None, None, tmp_path)
    packed = replace(case, mirror=TRLSFT(packing=True, packing_strategy="wrapped"))
    isolation._outcome.cache_clear()
    lengths = tuple(range(30, 50))
    swept = sweep(packed, lengths)
    assert [entry["max_length"] for entry in swept.lengths] == list(lengths)
    assert all("P2" in entry["failed"] for entry in swept.lengths)
    assert isolation._outcome.cache_info().misses == 1
    isolation._outcome.cache_clear()
    sweep(case, lengths)
    assert isolation._outcome.cache_info().misses == 0


@pytest.fixture
def run_with(project_folder: Path, tiny_model: Path, kedge, monkeypatch):
    """A project with a frozen mixture; writes the run `packed` under options."""
    monkeypatch.chdir(project_folder)
    Path("kedge.yaml").write_text(f"tokenizers: {{tiny: {tiny_model}}}\n")
    for name in ("mixtures", "runs"):
        Path("catalogs", name).mkdir()
    header = "/* ---\nstage: sft\ntokenizer: tiny\ntemplate: chatml\nrendering: trl_assistant\n--- */\n"
    Path("catalogs/mixtures/sums.sql").write_text(header + "SELECT row_id FROM kept")
    assert kedge("add", talks(project_folder / "sums.jsonl"), "--stage", "sft")[0] == 0
    code, _, err = kedge("mix", "build", "sums")
    assert code == 0, err

    def write(**options: Any) -> None:
        trainer = {"name": "trl_sft", "assistant_only_loss": True, "max_length": 512, "packing": True} | options
        run = {"trainer": trainer, "mixture": "sums", "base": str(tiny_model), "template": "chatml"}
        Path("catalogs/runs/packed.yaml").write_text(yaml.safe_dump(run))

    return write


def isolation_of(out: str) -> dict[str, Any]:
    (check,) = [check for check in json.loads(out)["checks"] if check["id"] == "P2"]
    return check


def test_the_audit_of_a_packed_run_shows_the_probed_figure_and_its_gate_opens(run_with, catalog, kedge, tiny_model):
    from curation.auditing.gate import require_passing
    from curation.runs import Run

    run_with()
    code, out, err = kedge("audit", "packed", "--json")
    assert code == 0, err
    check = isolation_of(out)
    seen = probe(json.loads((tiny_model / "config.json").read_text()), "bfd", False)
    assert check["level"] == "ok" and check["value"] == seen.difference < APART
    assert f"{seen.difference:.1e}" in check["message"] and "LlamaForCausalLM" in check["message"]
    assert require_passing(catalog, Run(catalog, "packed")).passed


def test_the_gate_of_a_wrapped_run_stays_shut(run_with, catalog, kedge, tiny_model):
    from curation.auditing.gate import require_passing
    from curation.errors import GateFailed
    from curation.runs import Run

    run_with(packing_strategy="wrapped")
    code, out, _ = kedge("audit", "packed", "--json")
    check = isolation_of(out)
    seen = probe(json.loads((tiny_model / "config.json").read_text()), "wrapped", False)
    assert code == 1 and check["level"] == "error" and check["value"] == seen.difference > JOINED
    with pytest.raises(GateFailed, match=r"attend to each other: logits change by .*P2 at"):
        require_passing(catalog, Run(catalog, "packed"))
