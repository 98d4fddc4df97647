"""The sink page: one file, nothing loaded, hostile text harmless, works in a browser in light and dark."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_report_html import DRAWN, UNIT, Parsed, browsing, fake, needs_browser

from attnscope.present.html import render
from attnscope.present.sink_html import NAV, sink_page

sys.path.insert(0, str(UNIT))
from _fake_sink_report import NOTE, TOKENS, fake_sink_report

CHARTS = (
    "sink-map", "sink-spans", "sink-shares", "sink-norms", "sink-cosines", "sink-writers", "sink-effects",
    "sink-curves", "sink-services", "sink-weakening", "sink-dormant", "residual-reads", "residual-bound",
    "residual-direct", "residual-effects", "residual-bars",
)  # fmt: skip


@pytest.fixture(scope="session")
def sinks() -> str:
    return sink_page(fake_sink_report())


@pytest.fixture(scope="session")
def sinks_saved(sinks, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sinks") / "sinks.html"
    path.write_text(sinks, encoding="utf-8")
    return path


@pytest.fixture
def browser() -> Iterator:
    with browsing.Browser() as opened:
        yield opened


def test_every_section_is_there_and_every_chart_has_its_place(sinks):
    parsed = Parsed(sinks)
    sections = [attributes["id"] for tag, attributes in parsed.tags if tag == "section"]
    assert sections == [place for place, _ in NAV]
    places = {attributes["data-figure"] for _, attributes in parsed.tags if "data-figure" in attributes}
    assert places == set(CHARTS)
    assert "39 sinks in 16 prompts: 16 primary" in parsed.text
    assert "Without the write of MLP 2" in parsed.text


def test_hostile_text_is_escaped_and_nothing_is_loaded(sinks):
    parsed = Parsed(sinks)
    assert "<script>alert" not in sinks
    assert "<img" not in sinks
    assert "<i>pocket" not in sinks
    for token in (TOKENS[0], TOKENS[1], NOTE, fake.HOSTILE_MODEL):
        assert token in parsed.text
    for tag, attributes in parsed.tags:
        for name in ("src", "href"):
            value = attributes.get(name) or ""
            assert value == "" or value.startswith(("#", "data:", "https://arxiv.org/abs/")), (tag, name, value)
    assert "default-src 'none'" in sinks


def test_what_is_missing_gives_its_reason_or_the_command_and_no_empty_chart():
    parsed = Parsed(sink_page(fake_sink_report(bare=True)))
    assert not [attributes for _, attributes in parsed.tags if "data-figure" in attributes]
    assert "Not measured: LayerNorm <b>only</b>." in parsed.text
    assert "no write was changed; `attnscope sinks` measures it unless --no-interventions is given" in parsed.text
    assert "No sinks in 16 prompts" in parsed.text


def test_rendering_loads_no_torch():
    code = (
        f"import sys; sys.path.insert(0, {str(UNIT)!r})\n"
        "from _fake_sink_report import fake_sink_report\n"
        "from attnscope.present.sink_html import sink_page\n"
        "sink_page(fake_sink_report())\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_head_report_takes_the_same_sections():
    report, statistics = fake.fake_report()
    parsed = Parsed(render(report, statistics, fake_sink_report()))
    sections = [attributes["id"] for tag, attributes in parsed.tags if tag == "section"]
    assert len(sections) == len(set(sections))
    assert set(sections) >= {place for place, _ in NAV}
    assert sections.index("sink-map") == sections.index("sinks") + 1
    names = [attributes["id"] for _, attributes in parsed.tags if attributes.get("id")]
    assert len(names) == len(set(names))


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 1920])
def test_it_opens_without_errors_and_draws_every_chart(browser, sinks_saved, width, dark):
    browser.open(sinks_saved, width, 9000, dark=dark)
    browser.until(DRAWN)
    drawn = browser.run("[...document.querySelectorAll('.chart')].map((c) => [c.dataset.figure, c.dataset.drawn])")
    assert sorted(drawn) == sorted([name, "dark" if dark else "light"] for name in CHARTS)
    assert browser.run("document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.run("[...document.querySelectorAll('.chart')].every((c) => c.querySelector('.plotly'))")
    assert browser.problems == []
    assert {url.split(":")[0] for url in browser.requests} <= {"file", "data", "blob"}


@needs_browser
def test_hostile_tokens_are_text_in_tables_and_charts(browser, sinks_saved):
    browser.open(sinks_saved, height=9000)
    browser.until(DRAWN)
    shown = browser.run("document.body.innerText")
    assert TOKENS[0] in shown
    ticks = browser.run(
        "[...document.querySelectorAll('[data-figure=sink-map] .xtick text')].map((t) => t.textContent).join(' ')"
    )
    assert "<script>…" in ticks
    assert "$x$" in ticks
    assert browser.run("document.querySelectorAll('img:not(.chart img)').length") == 0
    assert browser.problems == []


@needs_browser
def test_the_menus_choose_a_prompt_and_a_measurement(browser, sinks_saved):
    browser.open(sinks_saved, height=9000)
    browser.until(f"{DRAWN} && document.querySelector('#sink-prompt').options.length")
    assert browser.run("document.querySelector('#sink-prompt').options[0].text") == "prompt 0: 5 sinks"
    browser.run("document.querySelector('#sink-prompt').selectedIndex = 11")
    browser.run("document.querySelector('#sink-prompt').dispatchEvent(new Event('change'))")
    browser.until("document.querySelector('[data-figure=sink-map]').data[0].z[0].length < 5")
    options = browser.run("[...document.querySelector('#sink-service').options].map((o) => o.text)")
    assert options == ["Dormant", "On primary sinks", "On secondary sinks"]
    assert browser.problems == []


@needs_browser
def test_the_head_report_with_a_sink_report_opens(browser, tmp_path):
    report, statistics = fake.fake_report()
    path = tmp_path / "report.html"
    path.write_text(render(report, statistics, fake_sink_report()), encoding="utf-8")
    browser.open(path, height=16000)
    browser.until(f"{DRAWN} && document.querySelector('#head h3')")
    assert set(browser.run("[...document.querySelectorAll('.chart')].map((c) => c.dataset.figure)")) >= set(CHARTS)
    assert browser.problems == []


def test_the_page_is_the_same_twice_and_small(sinks):
    assert sink_page(fake_sink_report()) == sinks
    assert len(sinks.encode()) < 5_000_000
    assert not re.search(r"\{\{\w+\}\}", sinks)
