"""Launch files of other frameworks: what a configuration that was written for axolotl, LLaMA-Factory, TRL or verl would
train, under which mirror and options. Such a file is data: it is read as YAML (or as the text of a shell script) and
nothing in it is executed.
"""

from __future__ import annotations

from pathlib import Path

from curation.auditing.launch_files import axolotl, llama_factory, trl, verl
from curation.auditing.launch_files.reading import Launch, LaunchFile, read_script, read_settings

__all__ = ["Launch", "LaunchFile", "read_launch"]

SCRIPTS, SETTINGS = (".sh", ".bash"), (".yaml", ".yml")
# In the order of recognition: the first whose keys are there.
FRAMEWORKS = (verl, axolotl, llama_factory, trl)


def read_launch(path: Path, dataset: Path | None = None) -> Launch | None:
    """The launch that a file describes; None where it is no launch file of a known framework (`.yaml`, `.yml`, or a
    shell script that starts verl).

    `dataset` stands in for the data that the file names. What it names is looked for in the working directory and then
    beside the file. Options that the framework ignores, refuses or does not have come back as `problems` with
    `file:line`, not as an error. Raises UserError for data that is not on this machine, for YAML that cannot be read,
    and for stages that no mirror knows."""
    if not path.is_file() or path.suffix not in SCRIPTS + SETTINGS:
        return None
    file = read_script(path) if path.suffix in SCRIPTS else read_settings(path)
    if file is None:
        return None
    for framework in FRAMEWORKS:
        if framework.recognises(file):
            return framework.read(file, dataset)
    return None
