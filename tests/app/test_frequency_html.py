"""The frequency page: one file, nothing loaded, hostile text harmless, works in a browser in light and dark."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_report_html import DRAWN, UNIT, Parsed, browsing, fake, needs_browser

from attnscope.present.frequency_html import NAV, frequency_figures, frequency_page, frequency_sections

sys.path.insert(0, str(UNIT))
from _fake_frequency_report import NOTE, fake_frequency_report

CHARTS = ("frequency-map", "frequency-waves", "frequency-grid", "frequency-choices", "frequency-overlap")


@pytest.fixture(scope="session")
def page() -> str:
    return frequency_page(fake_frequency_report())


@pytest.fixture(scope="session")
def saved(page, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("frequency") / "frequency.html"
    path.write_text(page, encoding="utf-8")
    return path


@pytest.fixture
def browser() -> Iterator:
    with browsing.Browser() as opened:
        yield opened


def test_every_section_is_there_and_every_chart_has_its_place(page):
    parsed = Parsed(page)
    assert [attributes["id"] for tag, attributes in parsed.tags if tag == "section"] == [place for place, _ in NAV]
    places = {attributes["data-figure"] for _, attributes in parsed.tags if "data-figure" in attributes}
    assert places == set(CHARTS) == set(frequency_figures(fake_frequency_report()))
    assert "8 of 16 frequency chunks find 75% of a head's top 8 keys" in parsed.text
    assert "59.7%" in parsed.text


def test_hostile_text_is_escaped_and_nothing_is_loaded(page):
    parsed = Parsed(page)
    assert "<script>alert" not in page
    assert "<i>pocket" not in page
    for text in (NOTE, fake.HOSTILE_MODEL):
        assert text in parsed.text
    for tag, attributes in parsed.tags:
        for name in ("src", "href"):
            value = attributes.get(name) or ""
            assert value == "" or value.startswith(("#", "data:", "https://arxiv.org/abs/")), (tag, name, value)


def test_what_is_missing_gives_its_reason_and_no_empty_chart():
    report = fake_frequency_report(bare=True)
    parsed = Parsed(frequency_page(report))
    places = {attributes["data-figure"] for _, attributes in parsed.tags if "data-figure" in attributes}
    assert places == set(frequency_figures(report)) == {"frequency-map", "frequency-grid", "frequency-waves"}
    assert "Not measured: there were no other prompts to try the chunks on." in parsed.text
    assert "Not measured: a task needs at least two prompts." in parsed.text


def test_rendering_loads_no_torch():
    code = (
        f"import sys; sys.path.insert(0, {str(UNIT)!r})\n"
        "from _fake_frequency_report import fake_frequency_report\n"
        "from attnscope.present.frequency_html import frequency_page\n"
        "frequency_page(fake_frequency_report())\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_it_opens_without_errors_and_draws_every_chart(browser, saved, dark):
    browser.open(saved, 1280, 9000, dark=dark)
    browser.until(DRAWN)
    drawn = browser.run("[...document.querySelectorAll('.chart')].map((c) => [c.dataset.figure, c.dataset.drawn])")
    assert sorted(drawn) == sorted([name, "dark" if dark else "light"] for name in CHARTS)
    assert browser.run("document.documentElement.scrollWidth <= window.innerWidth")
    options = browser.run("[...document.querySelector('#frequency-grid-choice').options].map((o) => o.text)")
    assert options == ["Best chunk", "Dominant chunks", "Low-frequency share"]
    assert browser.problems == []
    assert {url.split(":")[0] for url in browser.requests} <= {"file", "data", "blob"}


def test_the_page_is_the_same_twice_and_small(page):
    assert frequency_page(fake_frequency_report()) == page
    assert len(page.encode()) < 5_000_000
    assert not re.search(r"\{\{\w+\}\}", page)
    assert len(frequency_sections(fake_frequency_report())) == len(NAV) - 1
