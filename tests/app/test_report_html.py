"""The report page: one file, nothing loaded, hostile text harmless, works in a browser in light and dark."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from attnscope.present.html import render
from attnscope.present.page import _payload

UNIT = Path(__file__).resolve().parents[1] / "unit"


def _beside(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fake = _beside(UNIT / "_fake_report.py")
browsing = _beside(Path(__file__).with_name("_browser.py"))
DRAWN = "document.querySelectorAll('.chart.wait').length === 0"
needs_browser = pytest.mark.skipif(browsing.EXECUTABLE is None, reason="no chromium is installed")


class Parsed(HTMLParser):
    """Tags with their attributes, and the text outside scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside not in ("script", "style"):
            self.text += data


@pytest.fixture(scope="session")
def page() -> str:
    return render(*fake.fake_report())


@pytest.fixture(scope="session")
def parsed(page) -> Parsed:
    return Parsed(page)


@pytest.fixture(scope="session")
def saved(page, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


@pytest.fixture
def browser() -> Iterator:
    with browsing.Browser() as opened:
        yield opened


def test_it_is_smaller_than_five_megabytes(page):
    assert len(page.encode()) < 5_000_000


@pytest.mark.slow
def test_five_thousand_heads_still_fit():
    assert len(render(*fake.fake_report(80, 64, 8)).encode()) < 5_000_000


def test_nothing_is_loaded_from_elsewhere(page, parsed):
    for tag, attributes in parsed.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            value = attributes.get(name) or ""
            if value.startswith("https://arxiv.org/abs/"):
                assert tag == "a"
            else:
                assert value == "" or value.startswith(("#", "data:")), (tag, name, value)
    styles = "".join(re.findall(r"<style>(.*?)</style>", page, re.DOTALL))
    assert "url(" not in styles
    assert "@import" not in styles
    assert "default-src 'none'" in page


def test_the_headline_and_every_section_are_there(parsed):
    assert re.search(r"64 heads: \d+ sinks, \d+ local, 3 retrieval, 2 induction", parsed.text)
    sections = {attributes["id"] for tag, attributes in parsed.tags if tag == "section"}
    assert sections == {
        "heads", "labels", "causal", "sinks", "residual", "profiles", "decode", "rules", "missing", "provenance",
    }  # fmt: skip
    links = {attributes["href"][1:] for tag, attributes in parsed.tags if tag == "a" and attributes["href"][0] == "#"}
    assert links <= sections | {"top"}
    cells = [attributes for tag, attributes in parsed.tags if (attributes.get("class") or "").startswith("cell")]
    assert len(cells) == 64


def test_hostile_text_is_escaped(page, parsed):
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "<i>pocket" not in page
    assert "onerror" not in {name for _, attributes in parsed.tags for name in attributes}
    assert fake.HOSTILE_MODEL in parsed.text
    assert "</script><img src=x onerror=alert(1)>" in parsed.text
    assert "<script>alert('note')</script>" in parsed.text
    assert "\u202e" not in page
    assert "\x1b" not in page


def test_what_was_not_measured_is_said(parsed):
    assert "no recall facts: <b>the tokenizer splits them</b>" in parsed.text
    report, _ = fake.fake_report()
    bare = render(report.model_copy(update={"causal_checks": (), "sink_rate": {}, "sinks": ()}), {})
    text = Parsed(bare).text
    assert "Not measured: no causal check was run." in text
    assert "Not measured: no residual norms were collected" in text


def test_random_weights_are_said_in_the_title_the_bar_the_header_and_the_provenance(page, parsed):
    report, statistics = fake.fake_report()
    model = report.model.model_copy(update={"weights": "random", "weights_seed": 2})
    random = Parsed(render(report.model_copy(update={"model": model}), statistics))
    assert random.text.count(f"{fake.HOSTILE_MODEL}, random weights") == 2
    assert "Random weights (seed 2): this model was never trained." in random.text
    assert "say nothing about a trained model" in random.text
    assert "random, seed 2, never trained" in random.text
    assert "Trained context" not in random.text
    assert "andom weights" not in parsed.text


def test_data_is_json_that_cannot_end_its_script():
    value = {"a": "</script><!--", "b": [float("nan"), 1.5], "c": "&\u2028"}
    plain = _payload.script_data("x", value)
    body = plain.partition(">")[2].removesuffix("</script>")
    assert not set(body) & set("<>&\u2028")
    assert json.loads(body) == {**value, "b": [None, 1.5]}
    long = _payload.script_data("x", ["<" * _payload.PLAIN_LIMIT])
    assert 'type="application/json+gzip"' in long
    assert len(long) < 10_000


def test_rendering_twice_gives_the_same_page(page):
    assert render(*fake.fake_report()) == page


def test_rendering_loads_no_torch():
    code = (
        f"import sys; sys.path.insert(0, {str(UNIT)!r})\n"
        "from _fake_report import fake_report\nfrom attnscope.present.html import render\nrender(*fake_report())\n"
        "assert 'torch' not in sys.modules and 'streamlit' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 1920])
def test_it_opens_without_errors_and_draws_every_chart(browser, saved, width, dark):
    browser.open(saved, width, 9000, dark=dark)
    browser.until(DRAWN)
    drawn = browser.run("[...document.querySelectorAll('.chart')].map((c) => [c.dataset.figure, c.dataset.drawn])")
    names = ("causal", "norms", "outliers", "profiles", "scores")
    assert sorted(drawn) == [[name, "dark" if dark else "light"] for name in names]
    assert browser.run("document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.problems == []
    assert {url.split(":")[0] for url in browser.requests} <= {"file", "data", "blob"}
    assert browser.run("document.querySelectorAll('img:not(.chart img)').length") == 0


@needs_browser
def test_a_click_on_a_head_shows_its_scores_and_rules(browser, saved):
    browser.open(saved)
    browser.until("document.querySelector('#head h3')")
    assert browser.run("document.querySelector('#head h3').textContent") == "L5H0"
    browser.run("document.querySelectorAll('.cell')[25].click()")
    shown = browser.run("document.querySelector('#head').innerText")
    assert shown.startswith("L3H1")
    assert "≥ 0.5" in shown
    assert "arXiv 2209.11895" in shown
    assert "not measured: no recall facts: <b>" in shown
    assert browser.run("location.hash") == "#L3H1"
    browser.run("document.querySelector('.legend button[data-label=induction]').click()")
    assert browser.run("document.querySelectorAll('.faded .cell.hit').length") == 2
    browser.run("document.querySelector('#labels [data-head=L6H7]').click()")
    assert browser.run("document.querySelector('#head h3').textContent") == "L6H7"
    assert browser.problems == []


@needs_browser
def test_the_score_menu_and_the_theme_switch(browser, saved):
    browser.open(saved, height=9000)
    browser.until(f"{DRAWN} && document.querySelector('#score').options.length")
    ground = browser.run("getComputedStyle(document.body).backgroundColor")
    browser.run("document.querySelector('#score').selectedIndex = document.querySelector('#score').options.length - 1")
    browser.run("document.querySelector('#score').dispatchEvent(new Event('change'))")
    browser.until("document.querySelector('[data-figure=scores]').textContent.includes('Not measured')")
    assert browser.run("document.querySelector('[data-figure=scores]').data[1].x.length") == 64
    browser.run("document.querySelector('#theme').click()")
    browser.until("[...document.querySelectorAll('.chart')].every((c) => c.dataset.drawn === 'dark')")
    assert browser.run("getComputedStyle(document.body).backgroundColor") != ground
    assert browser.run("document.querySelector('[data-figure=scores]').data[1].x.length") == 64
    assert browser.problems == []


@needs_browser
def test_long_data_is_inflated(browser, tmp_path):
    report, statistics = fake.fake_report(16, 16, 4)
    page = render(report, statistics)
    assert "application/json+gzip" in page
    path = tmp_path / "report.html"
    path.write_text(page, encoding="utf-8")
    browser.open(path)
    browser.until("document.querySelector('#head h3')")
    assert browser.run("document.querySelectorAll('.cell').length") == 256
    assert browser.problems == []
