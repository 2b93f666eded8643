"""What the measures over rendered rows share."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

from pydantic import Field

from curation.measures import PartMeasure
from curation.rendering import Rendering, load_tokenizer
from curation.rendering.render import Path


class RenderedMeasure(PartMeasure):
    """What the measures over rendered rows share: how rows are rendered, and what of it identifies them."""

    depends_on: ClassVar[tuple[str, ...]] = (
        "curation/measures/_rendered.py", "curation/rendering/anatomy.py", "curation/rendering/encoding.py",
        "curation/rendering/per_message.py", "curation/rendering/render.py", "curation/rendering/thoughts.py",
    )  # fmt: skip

    tokenizer: str = Field(exclude=True)
    template: str = Field(exclude=True)
    template_text: str | None = None
    tokenizer_fingerprint: str
    stop_ids: tuple[int, ...] = ()
    transformers_version: str
    path: Path = "whole"
    kwargs: dict[str, Any] = {}

    def identity(self) -> dict[str, Any]:
        config = {
            name: getattr(self, name) for name in type(self).model_fields if name not in ("tokenizer", "template")
        }
        return {"plugin": self.plugin_name(), "version": self.version, "config": config}

    @cached_property
    def rendering(self) -> Rendering:
        from curation.fingerprint import hash_bytes
        from curation.rendering import Template

        tokenizer = load_tokenizer(None, self.tokenizer)
        if tokenizer.fingerprint != self.tokenizer_fingerprint:
            raise RuntimeError(f"the tokenizer at {self.tokenizer} changed while it was in use")
        text = self.template_text
        template = None if text is None else Template(self.template, text, hash_bytes(text.encode()))
        return Rendering(tokenizer, template, self.path, self.kwargs)
