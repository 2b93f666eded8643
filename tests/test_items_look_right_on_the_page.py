"""Rendered items in the real page: what annotators read, and what their browser does with it."""

from __future__ import annotations

import pytest

from curation.annotation.rendering import as_written, candidate, chat
from tests import browser
from tests.annotated import turn

pytest_plugins = ["tests.argilla_fixtures"]
pytestmark = [pytest.mark.argilla, pytest.mark.browser]

ANSWER = r"""<think>two
and two</think>
The area \(a<b\) is $x_1^2$:
\[
\frac{1}{2}
\]
<img src="http://127.0.0.1:9/spy.png" onerror="document.title='run'"> ![pic](http://127.0.0.1:9/spy2.png)
<object data="http://127.0.0.1:9/spy3.html"></object><script>document.title='run'</script>

```html
<div class="x">&lt;</div>
```
last line"""


def test_the_page_shows_every_word_and_fetches_and_runs_nothing(argilla_server, tmp_path):
    dataset = argilla_server.make_dataset(
        [{"external_id": "1", "fields": {"prompt": chat([turn("user", ANSWER), turn("assistant", "ok")]),
                                         "a": candidate([turn("assistant", ANSWER)])}}],
        fields=[{"name": "prompt", "title": "Prompt", "required": True,
                 "settings": {"type": "chat", "use_markdown": True}},
                {"name": "a", "title": "A", "required": True, "settings": {"type": "text", "use_markdown": True}}],
    )  # fmt: skip
    account = argilla_server.credentials.annotators[0]
    asked: list[str] = []
    with browser.opened(height=2200) as page:
        page.on("request", lambda request: asked.append(request.url))
        browser.login(page, argilla_server.url, account.login, account.password)
        browser.open_dataset(page, argilla_server.url, dataset)
        page.locator(".katex").first.wait_for(state="attached")
        text = as_written(page.locator(".record").inner_text())
        page.screenshot(path=str(tmp_path / "page.png"))
        pictures = page.locator(".record img[src*=spy], .record object, .record script, .record embed").count()
        formulas, title = page.locator(".record .katex").all_inner_texts(), page.title()
    for words in ("<think>two", "and two</think>", "<img src=", "<object data=", "<script>", "</script>", "last line",
                  '<div class="x">&lt;</div>'):  # fmt: skip
        assert text.count(words) == 2, words
    assert "two\nand two</think>\nThe area" in text
    assert len(formulas) == 6 and "<" in formulas[0]
    assert "\\frac" not in text
    assert pictures == 0 and title != "run" and not [url for url in asked if "spy" in url]
