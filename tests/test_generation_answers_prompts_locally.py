"""`kedge generate` with a model in process: what is asked, what is drawn, and what is told of it."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation import checkpoints
from curation.catalog import Catalog
from curation.config import find_project
from curation.errors import UserError
from curation.generation import _sampling
from tests.generating import QUESTIONS, answers, local, make_project, run, texts, write_job
from tests.merging_models import adapter_of, copy_text, moved


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = make_project(tmp_path / "project")
    monkeypatch.chdir(root)
    return root


def test_every_prompt_is_answered_n_times_at_every_temperature_and_once_at_zero(project, tiny_model, kedge):
    write_job(project, generator=local(tiny_model), temperatures=[0, 0.7, 1.5], n=2, top_p=0.9, seed=3)
    told = run(kedge)
    assert (told["prompts"], told["rows"], told["repeated"], told["samples"]) == (3, 4, 1, 3 * (1 + 2 + 2))
    assert told["already_there"] == 0 and told["generated"] == 15 and told["finish_reasons"]["error"] == 0
    assert told["output_tokens"] > 0 and told["tokens_per_second"] > 0 and told["model"] == "model"
    rows = answers(project)
    assert {row["prompt"][0]["content"] for row in rows} == set(QUESTIONS)
    assert Counter(row["temperature"] for row in rows) == {0: 3, 0.7: 6, 1.5: 6}
    assert len({row["generation_id"] for row in rows}) == len({row["seed"] for row in rows}) == 15
    assert len({row["text"] for row in rows}) >= 12, "samples of one prompt differ"
    for row in rows:
        assert len(row["generation_id"]) == 32 and row["job"] == "answers" and row["source"] == "asked"
        assert row["weights"] == told["weights"] == checkpoints.weights_of(tiny_model)[1]
        (message,) = row["messages"]
        assert (message["role"], message["content"]) == ("assistant", row["text"]) and row["detail"] is None
        assert row["prompt_tokens"] > 5 and row["output_tokens"] == 12 and row["finish_reason"] == "length"
        kept = json.loads(row["settings"])
        assert (kept["generator"], kept["top_p"], kept["max_tokens"], kept["seed"]) == (
            "transformers_local",
            0.9,
            12,
            3,
        )
        assert kept["conditions"]["batch_size"] == 4 and "torch" in kept["software"]
        assert str(tiny_model) not in row["settings"]
    query = "SELECT count(*) AS n, count(DISTINCT weights) AS w FROM generation JOIN rows USING (row_id)"
    assert json.loads(kedge("sql", query, "--json")[1]) == [{"n": 15, "w": 1}]


def test_greedy_answers_are_those_of_transformers_and_end_where_the_model_says(project, tiny_model, tmp_path, kedge):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    lively = moved(tiny_model, tmp_path / "lively", seed=5, scale=0.3)  # the fixture's own says one word for ever
    model, tokenizer = AutoModelForCausalLM.from_pretrained(lively), AutoTokenizer.from_pretrained(lively)
    asked = tokenizer.apply_chat_template([{"role": "user", "content": QUESTIONS[0]}], add_generation_prompt=True,
                                          return_tensors="pt", return_dict=True)  # fmt: skip
    wanted = model.generate(**asked, do_sample=False, max_new_tokens=12)[0, asked["input_ids"].shape[1] :].tolist()
    assert len(set(wanted)) > 4
    write_job(project, generator=local(lively), temperatures=[0])
    run(kedge)
    assert texts(project)[QUESTIONS[0], 0, 0] == tokenizer.decode(wanted)
    ended = tmp_path / "ended"
    shutil.copytree(lively, ended)
    (ended / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, wanted[3]]}))
    write_job(project, generator=local(ended), temperatures=[0])
    assert run(kedge)["finish_reasons"]["stop"] >= 1
    (row,) = [row for row in answers(project) if row["prompt"][0]["content"] == QUESTIONS[0]]
    cut = wanted.index(wanted[3])
    assert (row["finish_reason"], row["output_tokens"], row["text"]) == ("stop", cut, tokenizer.decode(wanted[:cut]))


def test_a_checkpoint_is_asked_with_the_template_of_its_run_and_an_adapter_with_its_base(
    project, tiny_model, tmp_path, kedge
):  # fmt: skip
    adapter = adapter_of(tiny_model, tmp_path / "adapter")
    catalog = Catalog(find_project(project))
    (_, base_hash), (_, adapter_hash) = checkpoints.weights_of(tiny_model), checkpoints.weights_of(adapter)
    checkpoints.register(catalog, checkpoints.Checkpoint(
        run="tuned", step=4, path=str(adapter), weights="adapter", weights_hash=adapter_hash, base_hash=base_hash,
        base_path=str(tiny_model), tags=["best"]))  # fmt: skip
    asked = {"name": "transformers_local", "checkpoint": "best"}
    write_job(project, generator=asked)
    told = run(kedge)
    assert told["model"] == "tuned@4" and told["weights"] not in (base_hash, adapter_hash)
    tuned = texts(project)
    write_job(project, "plain", generator=local(tiny_model))
    run(kedge, "plain")
    assert tuned != texts(project, "plain")
    (project / "catalogs" / "templates").mkdir()
    (project / "catalogs" / "templates" / "bare.jinja").write_text("{{ messages[0].content }}<|im_end|>")
    (project / "catalogs" / "runs").mkdir()
    run_file = {"base": str(tiny_model), "mixture": "m", "trainer": {"name": "trl_dpo"}, "template": "bare"}
    (project / "catalogs" / "runs" / "tuned.yaml").write_text(json.dumps(run_file))
    before = {row["generation_id"]: row["prompt_tokens"] for row in answers(project)}
    assert run(kedge)["already_there"] == 0 and texts(project) != tuned
    assert sum(row["prompt_tokens"] for row in answers(project)) < sum(before.values())
    write_job(project, "bad", generator=local(adapter))
    code, _, err = kedge("generate", "bad")
    assert code == 2 and "is an adapter, whose base is not known; register it with its base" in err


def test_a_prompt_that_does_not_fit_is_an_error_row_and_the_others_are_answered(project, tiny_model, tmp_path, kedge):
    short = tmp_path / "short"
    shutil.copytree(tiny_model, short)
    config = json.loads((short / "config.json").read_text()) | {"max_position_embeddings": 30}
    (short / "config.json").write_text(json.dumps(config))
    write_job(project, generator=local(short), n=1)
    told = run(kedge)
    assert told["finish_reasons"] == {"stop": 0, "length": 2, "error": 1}
    (wrong,) = [row for row in answers(project) if row["finish_reason"] == "error"]
    assert "the model 30 positions" in wrong["detail"] and wrong["messages"] is None and wrong["text"] == ""
    for row in answers(project):
        assert row["finish_reason"] == "error" or row["output_tokens"] == min(12, 30 - row["prompt_tokens"])
    code, out, err = kedge("generate", "answers", "--json")
    assert code == 4 and json.loads(out)["already_there"] == 2, "what failed is asked again, and all of it failed"
    assert "none of the 1 answers came: the prompt has" in err


def test_a_template_that_raises_is_an_error_of_its_prompt(project, tiny_model, kedge):
    (project / "raising.jinja").write_text("{{ raise_exception('roles must alternate') }}")
    write_job(project, generator=local(tiny_model, template="./raising.jinja"))
    code, out, err = kedge("generate", "answers", "--json")
    assert code == 4 and json.loads(out)["finish_reasons"]["error"] == 6
    assert "the template raises: roles must alternate" in err


@pytest.mark.parametrize(("change", "told"), [
    (lambda folder: (folder / "model.safetensors").unlink(), "holds no safetensors weights"),
    (lambda folder: (folder / "config.json").write_text(json.dumps({"architectures": ["XForSequenceClassification"]})),
     "which writes nothing"),
    (lambda folder: (folder / "config.json").write_text(json.dumps({"model_type": "x", "auto_map": {}})),
     "the model cannot be loaded"),
    (lambda folder: (folder / "chat_template.jinja").unlink(), "carries no chat template; name one"),
    (lambda folder: [path.unlink() for path in folder.glob("tokenizer*")], "has no tokenizer beside its weights"),
])  # fmt: skip
def test_a_model_that_cannot_answer_is_named_with_what_to_do(project, tiny_model, tmp_path, kedge, change, told):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    change(folder)
    write_job(project, generator=local(folder))
    code, _, err = kedge("generate", "answers")
    assert code == 2 and told in err and "Traceback" not in err


def naive(logits: list[float], temperature: float, top_p: float, chance: float) -> int:
    """Nucleus sampling as it is told in words."""
    weights = np.exp(np.array(logits) / temperature - max(logits) / temperature)
    shares = weights / weights.sum()
    if top_p == 1:
        order, nucleus = list(range(len(shares))), list(range(len(shares)))
    else:
        order = sorted(range(len(shares)), key=lambda token: (-shares[token], token))
        nucleus, mass = [], 0.0
        for token in order:
            nucleus.append(token)
            mass += shares[token]
            if mass >= top_p:
                break
    left = chance * sum(shares[token] for token in nucleus)
    for token in nucleus:
        left -= shares[token]
        if left < 0:
            return token
    return nucleus[-1]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-20, 20), min_size=1, max_size=30), st.sampled_from([0.3, 1.0, 2.5]),
       st.sampled_from([0.1, 0.5, 0.9, 1.0]), st.floats(0.001, 0.999))  # fmt: skip
def test_a_token_is_drawn_from_the_smallest_likeliest_set(logits, temperature, top_p, chance):
    found = _sampling.choose(np.array(logits, np.float64), temperature, top_p, chance)
    near = {naive([float(item) for item in logits], temperature, top_p, chance + shift) for shift in (-1e-9, 0, 1e-9)}
    assert found in near


def test_tokens_come_as_often_as_their_probability_says_and_logits_that_are_none_end_the_answer():
    logits = np.log(np.array([0.5, 0.3, 0.2]))
    chances = random.Random(0)
    counts = Counter(_sampling.choose(logits, 1.0, 1.0, chances.random()) for _ in range(20_000))
    for token, share in enumerate((0.5, 0.3, 0.2)):
        assert abs(counts[token] / 20_000 - share) < 0.012
    assert _sampling.choose(np.array([1.0, 3.0, 3.0]), 0, 1.0, 0.9) == 1, "the first of equals"
    assert _sampling.choose(np.array([1.0, np.nan]), 1.0, 1.0, 0.5) is None


def test_a_model_whose_logits_are_no_numbers_gives_errors(tiny_model):
    import torch

    def broken(**given: Any) -> Any:
        return SimpleNamespace(past_key_values=None, logits=torch.full((2, 1, 4), float("nan")))

    model = type("Broken", (), {"device": "cpu", "forward": staticmethod(lambda: None),
                                "__call__": lambda self, **given: broken(**given)})()  # fmt: skip
    first, second = _sampling.write(model, [1], [5, None], 1.0, 1.0, 3, [0])
    assert first is not None and first.finish_reason == "error" and second is None


def test_an_unknown_folder_of_a_model_says_what_to_name(catalog):
    from curation.generation import _local

    with pytest.raises(UserError, match="neither a folder nor a model"):
        _local.find(catalog, None, "missing/folder", None, None, None)


def test_a_tokenizer_may_lie_elsewhere(project, tiny_model, tmp_path, kedge):
    bare = tmp_path / "bare"
    shutil.copytree(tiny_model, bare)
    for path in [*bare.glob("tokenizer*"), bare / "chat_template.jinja"]:
        path.unlink()
    copy_text(tiny_model, project / "tokenizer")
    write_job(project, generator=local(bare, tokenizer="tokenizer", template="chatml"), temperatures=[0])
    run(kedge)
    write_job(project, "own", generator=local(tiny_model), temperatures=[0])
    run(kedge, "own")
    assert texts(project) == texts(project, "own")
