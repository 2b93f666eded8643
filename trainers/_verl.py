"""What the wrappers of verl's trainers share: options under verl's names, what is written before the launch, and the
process that keeps watch over verl."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, model_validator

from curation.errors import did_you_mean
from trainers import Launch, Trainer

# Options that kedge sets itself, with where a user says it instead.
RESERVED = {
    "data.train_files": "the run's mixture", "data.val_files": "the held-out rows of the run's sources",
    "data.apply_chat_template_kwargs": "the run's template_kwargs",
    "data.trust_remote_code": "the run's trust_remote_code", "data.filter_overlong_prompts": "",
    "trainer.default_local_dir": "", "trainer.default_hdfs_dir": "", "trainer.resume_mode": "",
    "trainer.resume_from_path": "the run's extends or parent", "trainer.n_gpus_per_node": "the run's num_processes",
    "ray_kwargs.ray_init.address": "trainer.nnodes",
}  # fmt: skip
# Where verl read rewards once: it still takes these keys, never reads them and scores with functions of its own.
LEGACY = {"custom_reward_function": "reward.custom_reward_function", "reward_model": "reward.reward_model",
          "sandbox_fusion": "reward.sandbox_fusion"}  # fmt: skip


class VerlTrainer(Trainer):
    """A trainer of verl, in verl's own environment. Options are named as in verl's YAML: those below `data.` without
    that word, all others with their dots (`actor_rollout_ref.rollout.n`). Here only names below `data.` are known; all
    others are checked against verl's configuration and registries, in its environment, before the launch."""

    model_config = ConfigDict(frozen=True, extra="allow")
    uses: ClassVar[frozenset[str]] = frozenset()
    entry: ClassVar[str]  # the kind of job, as trainers/process/verl_settings.py tells them apart: rl, sft
    data_options: ClassVar[frozenset[str]]
    elsewhere: ClassVar[dict[str, str]] = {}  # names without dots that do not stand below data.
    reserved: ClassVar[dict[str, str]] = RESERVED

    @model_validator(mode="after")
    def _known(self) -> VerlTrainer:
        own = set(type(self).model_fields)
        for name, value in (self.model_extra or {}).items():
            full = self._full(name)
            root = full.partition(".")[0]
            if root in LEGACY and root not in self.data_options:
                raise ValueError(f"'{name}' is where verl read it once: today it is taken and never read; write "
                                 f"{LEGACY[root]}{full.removeprefix(root)}")  # fmt: skip
            if full in self.reserved and (full, value) != ("data.filter_overlong_prompts", True):
                step = self.reserved[full]
                raise ValueError(f"'{name}' is set by kedge; " + (f"see {step}" if step else "remove it"))
            if name.startswith("data."):
                raise ValueError(f"the audit does not see '{name}'; write {name.removeprefix('data.')}")
            if "." not in name and name not in self.data_options | set(self.elsewhere):
                known = self.data_options | set(self.elsewhere) | own
                raise ValueError(f"verl has no option 'data.{name}'; {did_you_mean(name, known)}")
        return self

    def _full(self, name: str) -> str:
        return name if "." in name else self.elsewhere.get(name, f"data.{name}")

    def config(self) -> dict[str, Any]:
        """verl's options under their full names, without what kedge sets."""
        return {self._full(name): value for name, value in (self.model_extra or {}).items()}

    def prepare(self, job: dict[str, Any]) -> None:
        """Write the rows, the tokenizer and verl's command into `verl/` of the run's folder, and check them in verl's
        environment. Raises UserError with everything that verl would not take, InstrumentError where it does not see
        the rows that were written."""
        from trainers.process.verl_prepare import prepare

        prepare(job, self.entry)

    def bundle(self, job: dict[str, Any], folder: Path) -> None:
        from trainers.bundling.verl import write

        write(job, self.entry, folder)

    def command(self, launch: Launch) -> list[str]:
        return [sys.executable, "-m", "trainers.process.verl_process", str(launch.job)]

    def launch(self, launch: Launch) -> int:
        with launch.log.open("ab") as log:
            process = subprocess.Popen(launch.wrapped(self.command(launch)), stdout=log, stderr=subprocess.STDOUT,
                                       stdin=subprocess.DEVNULL, env=launch.environment())  # fmt: skip
            try:
                return process.wait()
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
