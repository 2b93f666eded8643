"""Tables and plots as self-contained HTML, Markdown and JSON, from the same numbers."""
