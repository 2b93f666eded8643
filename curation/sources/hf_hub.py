"""Datasets of the hub, or local folders in hub layout, through the library `datasets`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from curation.errors import UserError
from curation.sources import Record, Source


class HfHub(Source):
    """`path` in the source file is a dataset id or a local folder. `revision` pins a hub dataset to a commit and is
    required for one. Records are streamed; `line` is the record's number in the split."""

    version: ClassVar[int] = 2
    config: str | None = None
    split: str = "train"
    revision: str | None = None

    def read(self, path: Path) -> Iterator[Record]:
        import datasets

        reference = str(path)
        if not path.is_dir() and self.revision is None:
            raise UserError(f"the hub dataset '{reference}' has no pinned revision", "set reader_options.revision to "
                            "a commit", key="revision")  # fmt: skip
        number = 0
        try:
            rows = datasets.load_dataset(
                reference, self.config, split=self.split, revision=self.revision, streaming=True
            )
            for number, value in enumerate(rows, 1):
                yield Record(number, _plain(value))
        except (datasets.exceptions.DatasetsError, OSError, ValueError, OverflowError) as error:
            what = " ".join(str(error).split("Example of usage")[0].split())[:500] or type(error).__name__
            yield Record(number + 1, problem=f"the dataset cannot be read: {what}")


def _plain(value: Any) -> Any:
    """Values as JSON has them: typed features that JSON lacks (dates, pictures) become text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def pinned_revision(reference: str) -> str:
    """The commit that a hub dataset's main branch points at now. Raises UserError where the hub cannot be asked."""
    from huggingface_hub import HfApi

    try:
        sha = HfApi().dataset_info(reference).sha
    except Exception as error:
        what = f"'{reference}' is no file, folder or source, and the hub could not be asked ({type(error).__name__})"
        raise UserError(what, "check the path or the id, and the network") from error
    return str(sha)
