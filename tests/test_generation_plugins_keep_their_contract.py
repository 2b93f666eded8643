"""Every generator: who answers is told before anything heavy is loaded, and each ask gets one answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curation import registry
from curation.fingerprint import fingerprint
from curation.generation import FINISH_REASONS, Ask, Generator, Sampling
from tests.endpoints import Served, says, served

SAMPLING = Sampling(0.95, 6)
OPTIONS: dict[str, Callable[[Path, Served], dict[str, Any]]] = {
    "transformers_local": lambda model, server: {"model": str(model), "batch_size": 2},
    "openai_endpoint": lambda model, server: {"url": server.url, "model": "m", "tries": 1},
}


def asks(questions: tuple[str, ...] = ("One?", "Two, you think?"), samples: int = 3) -> list[Ask]:
    return [Ask(fingerprint([question, sample, temperature]), fingerprint(question),
                [{"role": "user", "content": question}], None, sample, temperature, 7 * sample + len(question))
            for question in questions for temperature in (0.0, 0.8) for sample in range(samples if temperature else 1)
            ]  # fmt: skip


def test_the_table_of_this_file_has_every_generator():
    assert {name for name, entry in registry.entries("generators").items() if entry.origin == "kedge"} == set(OPTIONS)


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_a_generator_answers_every_ask_once_whatever_is_asked_beside_it(name: str, tiny_model: Path, catalog):
    with served() as server:
        server.answer = lambda body: (200, says(f"seed {body['seed']}"))
        made = registry.make("generators", name, OPTIONS[name](tiny_model, server))
        assert isinstance(made, Generator) and made.kind == "generators" and made.version >= 1
        writer = made.writer(catalog)
        assert writer == made.writer(catalog) and writer.model and writer.weights
        assert len(fingerprint(dict(writer.conditions))) == 32 and str(tiny_model) not in str(writer)
        wanted = asks()
        found = {answer.id: answer for batch in made.generate(catalog, wanted, SAMPLING) for answer in batch}
        assert set(found) == {ask.id for ask in wanted}
        for answer in found.values():
            assert answer.finish_reason in FINISH_REASONS[:2] and answer.message is not None
            assert answer.message["role"] == "assistant" and answer.message.get("content", "") == answer.text
        alone = [answer for batch in made.generate(catalog, wanted[-1:], SAMPLING) for answer in batch]
        assert alone == [found[wanted[-1].id]], "the last sample, asked alone"
        mixed = [answer for batch in made.generate(catalog, wanted[::-1], SAMPLING) for answer in batch]
        assert {answer.id: answer for answer in mixed} == found
        assert list(made.generate(catalog, [], SAMPLING)) == []


def test_loading_the_generators_imports_nothing_heavy():
    import subprocess
    import sys

    code = ("import sys; from curation import registry; [registry.load('generators', name) for name in "
            "registry.entries('generators')]; import curation.generation.command; heavy = {'torch', 'transformers', "
            "'httpx', 'numba', 'scipy'} & set(sys.modules); print(heavy, file=sys.stderr); "
            "sys.exit(bool(heavy))")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
