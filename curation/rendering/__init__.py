"""Messages and a chat template -> token ids and loss mask, exactly as the trainer makes them."""

from __future__ import annotations

from curation.rendering.render import Rendered, Rendering, template_messages
from curation.rendering.templates import Template, load_template
from curation.rendering.tokenizers import Tokenizer, load_tokenizer

__all__ = ["Rendered", "Rendering", "Template", "Tokenizer", "load_template", "load_tokenizer", "template_messages"]
