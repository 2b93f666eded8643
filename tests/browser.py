"""A person at Argilla's page: headless Chromium through Playwright, with waits for what must be seen."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

SECONDS = 60
CHROMIUM = os.environ.get("KEDGE_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or ""


def missing() -> str:
    """Why no browser can be opened here; empty where one can."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: pip install playwright"
    return "" if CHROMIUM else "there is no chromium on this machine (KEDGE_CHROMIUM names one elsewhere)"


@contextlib.contextmanager
def opened(width: int = 1600, height: int = 1000) -> Iterator[Any]:
    """A page of a fresh browser; skips the test where Playwright or Chromium is not there."""
    if missing():
        pytest.skip(missing())
    from playwright import sync_api as playwright

    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"],
                                          env=environment)  # fmt: skip
        try:
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(SECONDS * 1000)
            # The page asks the internet for a typeface; where there is none, that would only take time.
            page.route(lambda url: "127.0.0.1" not in url and "localhost" not in url, lambda route: route.abort())
            yield page
        finally:
            browser.close()


def login(page: Any, url: str, user: str, password: str) -> None:
    """Log in at a server's page."""
    page.goto(f"{url}/sign-in", wait_until="domcontentloaded")
    page.wait_for_selector("input[type=password]")
    page.locator("input:not([type=password])").first.fill(user)
    page.locator("input[type=password]").fill(password)
    page.keyboard.press("Enter")
    page.wait_for_url(lambda address: "sign-in" not in address)
    page.locator("input[type=password]").wait_for(state="detached")


def open_dataset(page: Any, url: str, dataset_id: str) -> None:
    """Open a dataset for answering; returns when its first record is there."""
    page.goto(f"{url}/dataset/{dataset_id}/annotation-mode", wait_until="domcontentloaded")
    page.locator("button", has_text="Submit").first.wait_for(state="visible")


def question(page: Any, name: str) -> Any:
    """The part of the form that asks a question, by the question's name."""
    return page.locator(f'[aria-label="Question: {name}"]')


def choose(page: Any, label: str, name: str | None = None) -> None:
    """Choose an option by the text on it, of one question (`name`) or of the first that has it."""
    form = question(page, name) if name else page.locator("form")
    option = form.locator("label").filter(has_text=re.compile(rf"^\s*(\d+\s+)?{re.escape(label)}\s*$")).first
    option.click()
    chosen = page.locator(f'[id="{option.get_attribute("for")}"]')
    page.wait_for_function("element => element.checked", arg=chosen.element_handle())


def write(page: Any, text: str, name: str) -> None:
    """Write into a text question, in the place of what stands there."""
    question(page, name).locator("[role=textbox]").click()
    area = question(page, name).locator("[contenteditable=true]")
    area.fill(text)
    page.wait_for_function("([element, text]) => element.innerText.trim() === text.trim()",
                           arg=[area.element_handle(), text])  # fmt: skip


def rank(page: Any, order: Sequence[str], name: str) -> None:
    """Rank the options of a ranking question by the texts on them, the best first."""
    for place, label in enumerate(order, start=1):
        option = question(page, name).locator(f'[title="{label}"]')
        ranked = option.locator(".draggable__rank-card--ranked")
        for _ in range(20):  # the page takes no key for a moment after the one before
            option.focus()
            page.keyboard.press(str(place))
            page.wait_for_timeout(250)
            if ranked.count():
                break
        ranked.wait_for(state="visible")


def submit(page: Any) -> None:
    """Submit what is chosen and written; returns when the server has it and the next record, or none, is there."""
    _send(page, "Submit")


def discard(page: Any) -> None:
    """Discard the record; returns when the server has it and the next record, or none, is there."""
    _send(page, "Discard")


def _send(page: Any, name: str) -> None:
    """Press a button of the form, wait for the server's word and for another record or none."""
    before = record_text(page)
    with page.expect_response(lambda reply: "/responses" in reply.url and reply.request.method in ("POST", "PUT")
                              ) as waiting:  # fmt: skip
        page.locator("form button", has_text=name).first.click()
    assert waiting.value.ok, f"{name}: {waiting.value.status} {waiting.value.text()}"
    page.wait_for_function("""before => {
        const record = document.querySelector('.record');
        return !record || record.innerText.trim().split('\\n').slice(1).join('\\n') !== before;
    }""", arg=before)  # fmt: skip


def record_text(page: Any) -> str:
    """The text of the record that is shown, without the status above it; empty where none is left."""
    record = page.locator(".record")
    return str(record.first.inner_text()).strip().partition("\n")[2] if record.count() else ""


def shown(page: Any) -> str:
    """What the page shows as text."""
    return str(page.inner_text("body"))


def take(page: Any, path: Path | str) -> Path:
    """A picture of the page."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(path))
    return Path(path)
