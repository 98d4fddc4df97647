"""The retrieval page: one file, nothing loaded, hostile text harmless, works in a browser in light and dark."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_report_html import DRAWN, UNIT, Parsed, browsing, fake, needs_browser

from attnscope.present.html import render
from attnscope.present.retrieval_html import NAV, retrieval_page

sys.path.insert(0, str(UNIT))
from _fake_retrieval_report import NOTE, REASON, fake_retrieval_report
from _fake_sink_report import fake_sink_report

CHARTS = (
    "retrieval-grid", "retrieval-top", "retrieval-stability", "retrieval-scores", "retrieval-curves",
    "retrieval-budget",
)  # fmt: skip


@pytest.fixture(scope="session")
def retrieval() -> str:
    return retrieval_page(fake_retrieval_report())


@pytest.fixture(scope="session")
def retrieval_saved(retrieval, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("retrieval") / "retrieval.html"
    path.write_text(retrieval, encoding="utf-8")
    return path


@pytest.fixture
def browser() -> Iterator:
    with browsing.Browser() as opened:
        yield opened


def test_every_section_is_there_and_every_chart_has_its_place(retrieval):
    parsed = Parsed(retrieval)
    sections = [attributes["id"] for tag, attributes in parsed.tags if tag == "section"]
    assert sections == [place for place, _ in NAV]
    places = {attributes["data-figure"] for _, attributes in parsed.tags if "data-figure" in attributes}
    assert places == set(CHARTS)
    assert "6 of 88 measured heads retrieve" in parsed.text
    assert "without 4 random others it is 98.2%" in parsed.text
    assert "not below every random choice" in parsed.text


def test_hostile_text_is_escaped_and_nothing_is_loaded(retrieval):
    parsed = Parsed(retrieval)
    assert "<script>alert" not in retrieval
    for harmful in ("<i>pocket", "<i>other", "<b>other", "<b>streams", "<b>cannot"):
        assert harmful not in retrieval
    for text in (NOTE, REASON, fake.HOSTILE_MODEL, "<i>other</i>", "too few <b>other</b> heads"):
        assert text in parsed.text
    for tag, attributes in parsed.tags:
        for name in ("src", "href"):
            value = attributes.get(name) or ""
            assert value == "" or value.startswith(("#", "data:", "https://arxiv.org/abs/")), (tag, name, value)
    assert "default-src 'none'" in retrieval


def test_what_is_missing_gives_its_reason_and_the_command_and_no_empty_chart():
    page = retrieval_page(fake_retrieval_report(bare=True))
    parsed = Parsed(page)
    assert {a["data-figure"] for _, a in parsed.tags if "data-figure" in a} == {"retrieval-grid"}
    assert "The model answered 0 of 48 needles, so no head has a retrieval score" in parsed.text
    assert "Not measured: no head has a <b>score</b>; made by `attnscope retrieval`." in parsed.text
    assert "Not measured: --no-budgets was <b>given</b>; made by `attnscope retrieval`." in parsed.text
    assert "<b>score" not in page
    empty = fake_retrieval_report(bare=True).model_copy(update={"cells": (), "heads": (), "n_needles": 0})
    assert not [a for _, a in Parsed(retrieval_page(empty)).tags if "data-figure" in a]


def test_rendering_loads_no_torch():
    code = (
        f"import sys; sys.path.insert(0, {str(UNIT)!r})\n"
        "from _fake_retrieval_report import fake_retrieval_report\n"
        "from attnscope.present.retrieval_html import retrieval_page\n"
        "retrieval_page(fake_retrieval_report())\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_head_report_takes_the_same_sections_beside_those_of_sinks():
    report, statistics = fake.fake_report()
    parsed = Parsed(render(report, statistics, fake_sink_report(), fake_retrieval_report()))
    sections = [attributes["id"] for tag, attributes in parsed.tags if tag == "section"]
    assert len(sections) == len(set(sections))
    assert set(sections) >= {place for place, _ in NAV}
    assert sections.index("retrieval-needles") == sections.index("causal") + 1
    names = [attributes["id"] for _, attributes in parsed.tags if attributes.get("id")]
    assert len(names) == len(set(names))
    assert "#retrieval-needles" in [a.get("href") for tag, a in parsed.tags if tag == "a"]
    alone = Parsed(render(report, statistics))
    assert "#retrieval-needles" not in [a.get("href") for tag, a in alone.tags if tag == "a"]


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 1920])
def test_it_opens_without_errors_and_draws_every_chart(browser, retrieval_saved, width, dark):
    browser.open(retrieval_saved, width, 9000, dark=dark)
    browser.until(DRAWN)
    drawn = browser.run("[...document.querySelectorAll('.chart')].map((c) => [c.dataset.figure, c.dataset.drawn])")
    assert sorted(drawn) == sorted([name, "dark" if dark else "light"] for name in CHARTS)
    assert browser.run("document.documentElement.scrollWidth <= window.innerWidth")
    wide = "[...document.querySelectorAll('.overflow')].filter((t) => t.scrollWidth > t.clientWidth)"
    kept = f"{wide}.filter((t) => !t.closest('#provenance')).length"
    assert browser.run(kept) == 0
    assert browser.run("[...document.querySelectorAll('.chart')].every((c) => c.querySelector('.plotly'))")
    assert browser.problems == []
    assert {url.split(":")[0] for url in browser.requests} <= {"file", "data", "blob"}


@needs_browser
def test_the_menu_chooses_a_measure_and_hostile_reasons_are_text(browser, retrieval_saved):
    browser.open(retrieval_saved, height=9000)
    browser.until(f"{DRAWN} && document.querySelector('#retrieval-measure').options.length")
    options = browser.run("[...document.querySelector('#retrieval-measure').options].map((o) => o.text)")
    assert options[0] == "Retrieval, answer given"
    assert options[-1] == "QR score (not measured)"
    browser.run("document.querySelector('#retrieval-measure').selectedIndex = 5")
    browser.run("document.querySelector('#retrieval-measure').dispatchEvent(new Event('change'))")
    note = "document.querySelector('[data-figure=retrieval-scores] .annotation')?.textContent"
    browser.until(f"({note} ?? '').includes('<b>cannot</b>')")
    assert browser.problems == []


@needs_browser
def test_the_head_report_with_both_reports_opens(browser, tmp_path):
    report, statistics = fake.fake_report()
    path = tmp_path / "report.html"
    path.write_text(render(report, statistics, fake_sink_report(), fake_retrieval_report()), encoding="utf-8")
    browser.open(path, height=24000)
    browser.until(f"{DRAWN} && document.querySelector('#head h3')")
    assert set(browser.run("[...document.querySelectorAll('.chart')].map((c) => c.dataset.figure)")) >= set(CHARTS)
    bar = "document.querySelector('.bar .wide')"
    assert browser.run(f"{bar}.scrollWidth <= {bar}.clientWidth")
    assert browser.problems == []


def test_the_page_is_the_same_twice_and_small(retrieval):
    assert retrieval_page(fake_retrieval_report()) == retrieval
    assert len(retrieval.encode()) < 5_000_000
    assert not re.search(r"\{\{\w+\}\}", retrieval)
