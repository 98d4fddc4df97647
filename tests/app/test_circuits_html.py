"""The circuit page: one file, nothing loaded, hostile text harmless, works in a browser in light and dark."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_report_html import DRAWN, UNIT, Parsed, browsing, fake, needs_browser

from attnscope.present.circuit_html import SECTIONS, circuit_page

sys.path.insert(0, str(UNIT))
from _fake_circuit_report import EDIT, NOTE, REASON, fake_circuit_report

CHARTS = (
    "circuits-scatter", "circuits-grid", "circuits-top-head", "circuits-blocks", "circuits-top-neuron",
    "circuits-dissociation", "circuits-curves-head", "circuits-faithfulness", "circuits-graph-0", "circuits-graph-1",
)  # fmt: skip


@pytest.fixture(scope="session")
def circuits() -> str:
    return circuit_page(fake_circuit_report())


@pytest.fixture(scope="session")
def circuits_saved(circuits, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("circuits") / "circuits.html"
    path.write_text(circuits, encoding="utf-8")
    return path


@pytest.fixture
def browser() -> Iterator:
    with browsing.Browser() as opened:
        yield opened


def figures_of(parsed: Parsed) -> set[str]:
    return {attributes["data-figure"] for _, attributes in parsed.tags if "data-figure" in attributes}


def test_every_section_is_there_and_every_chart_has_its_place(circuits):
    parsed = Parsed(circuits)
    sections = [attributes["id"] for tag, attributes in parsed.tags if tag == "section"]
    assert sections == [*(place for place, _, _ in SECTIONS), "provenance"]
    links = [
        attributes["href"] for tag, attributes in parsed.tags if tag == "a" and attributes.get("href", "")[:1] == "#"
    ]
    assert {f"#{section}" for section in sections} <= set(links)
    assert figures_of(parsed) == set(CHARTS)
    assert "Double dissociation of recall and reasoning at 1 of 2 levels: heads" in parsed.text
    assert "selective, and Δ is above 0 and above every random draw" in parsed.text
    assert "Everything was measured." in parsed.text


def test_hostile_text_is_escaped_and_nothing_is_loaded(circuits):
    parsed = Parsed(circuits)
    assert "<script>alert" not in circuits
    for harmful in ("<i>pocket", "<i>four", "<b>first", "<b>out"):
        assert harmful not in circuits
    for text in (NOTE, EDIT, fake.HOSTILE_MODEL):
        assert text in parsed.text
    assert REASON in Parsed(circuit_page(fake_circuit_report("screened"))).text
    for tag, attributes in parsed.tags:
        for name in ("src", "href"):
            value = attributes.get(name) or ""
            assert value == "" or value.startswith(("#", "data:", "https://arxiv.org/abs/")), (tag, name, value)
    assert "default-src 'none'" in circuits


@pytest.mark.parametrize(
    ("kind", "places", "charts"),
    [
        ("bare", ["circuits-tasks", "circuits-heads", "circuits-setup"], {"circuits-grid", "circuits-top-head"}),
        (
            "screened",
            ["circuits-tasks", "circuits-heads", "circuits-setup"],
            {"circuits-scatter", "circuits-grid", "circuits-top-head"},
        ),
    ],
)
def test_what_was_not_measured_makes_no_section_and_no_empty_chart_but_is_listed(kind, places, charts):
    parsed = Parsed(circuit_page(fake_circuit_report(kind)))
    assert [attributes["id"] for tag, attributes in parsed.tags if tag == "section"] == [*places, "provenance"]
    assert figures_of(parsed) == charts
    for part in ("Double dissociation", "Faithfulness over circuit size", "Graph of edges", "Effects of neurons"):
        assert part in parsed.text


def test_a_report_without_effects_still_opens():
    parsed = Parsed(circuit_page(fake_circuit_report("bare").model_copy(update={"levels": ()})))
    assert figures_of(parsed) == set()
    assert "No effect was measured on recall" in parsed.text


def test_rendering_loads_no_torch():
    code = (
        f"import sys; sys.path.insert(0, {str(UNIT)!r})\n"
        "from _fake_circuit_report import fake_circuit_report\n"
        "from attnscope.present.circuit_html import circuit_page\n"
        "circuit_page(fake_circuit_report())\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 1920])
def test_it_opens_without_errors_and_draws_every_chart(browser, circuits_saved, width, dark):
    browser.open(circuits_saved, width, 14000, dark=dark)
    browser.until(DRAWN)
    drawn = browser.run("[...document.querySelectorAll('.chart')].map((c) => [c.dataset.figure, c.dataset.drawn])")
    assert sorted(drawn) == sorted([name, "dark" if dark else "light"] for name in CHARTS)
    assert browser.run("document.documentElement.scrollWidth <= window.innerWidth")
    browser.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    wide = "[...document.querySelectorAll('.overflow')].filter((t) => t.scrollWidth > t.clientWidth)"
    assert browser.run(f"{wide}.filter((t) => !t.closest('#provenance')).map((t) => t.closest('section').id)") == []
    bar = "document.querySelector('.bar .wide')"
    assert browser.run(f"{bar}.scrollWidth <= {bar}.clientWidth")
    assert browser.run("[...document.querySelectorAll('.chart')].every((c) => c._fullLayout._size.w > 200)")
    assert browser.problems == []
    assert {url.split(":")[0] for url in browser.requests} <= {"file", "data", "blob"}


@needs_browser
def test_the_menu_chooses_an_effect(browser, circuits_saved):
    browser.open(circuits_saved, height=14000)
    browser.until(f"{DRAWN} && document.querySelector('#circuits-effect').options.length")
    options = browser.run("[...document.querySelector('#circuits-effect').options].map((o) => o.text)")
    assert options == ["Effect on recall", "Effect on reasoning", "Recall minus reasoning"]
    browser.run("document.querySelector('#circuits-effect').selectedIndex = 1")
    browser.run("document.querySelector('#circuits-effect').dispatchEvent(new Event('change'))")
    shown = "document.querySelector('[data-figure=circuits-grid]').data[0]"
    browser.until(f"{shown}.z[3][2] > 1.2 && {shown}.zmin === -{shown}.zmax")
    assert browser.problems == []


def test_the_page_is_the_same_twice_and_small(circuits):
    assert circuit_page(fake_circuit_report()) == circuits
    assert len(circuits.encode()) < 5_000_000
    assert not re.search(r"\{\{\w+\}\}", circuits)
