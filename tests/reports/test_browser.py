"""The report in a real browser, where one is installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from reports.html import render, write_comparison
from results import records, store
from results.store import Run
from tests.reports.chromium import BROWSER, Chromium, chromium
from tests.reports.test_html import HOSTILE
from tests.results.synthetic import Synthetic
from tests.results.test_merged import other_protocol

pytestmark = pytest.mark.skipif(not BROWSER, reason="no browser is installed")

WIDE, NARROW = 1280, 390

CUT_OFF = """[...document.querySelectorAll("header *, main *, footer *")].filter((element) => {
  const box = element.getBoundingClientRect();
  if (!box.width || (box.right <= innerWidth + 1 && box.left >= -1)) return false;
  for (let parent = element.parentElement; parent; parent = parent.parentElement) {
    // What scrolls by itself can be reached, and what is hidden for eyes is for screen readers.
    if (["auto", "scroll"].includes(getComputedStyle(parent).overflowX)) return false;
  }
  return getComputedStyle(element).position !== "absolute";
}).map((element) => element.outerHTML.slice(0, 80))"""

FIRST_SEED = """(() => {
  const plot = document.querySelector('[data-kind="scatter"]');
  plot.scrollIntoView({block: "center", behavior: "instant"});
  const seeds = plot.data.find((each) => each.customdata && each.customdata[0][0] === "dag");
  const box = plot.getBoundingClientRect(), {_size: size, xaxis, yaxis} = plot._fullLayout;
  return [box.x + size.l + xaxis.l2p(seeds.x[0]), box.y + size.t + yaxis.l2p(seeds.y[0])];
})()"""

SHOWN = """[...document.querySelectorAll("#shown .content img")].map((image) => image.src)"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def report(browser: Chromium, run: Run, page: str) -> Chromium:
    """The report of the synthetic run, loaded once; ``page`` has written it."""
    browser.open(run.folder / "report.html", WIDE)
    return browser


@pytest.fixture(autouse=True)
def nothing_went_wrong(browser: Chromium) -> Iterator[None]:
    yield
    assert browser.messages == []
    outside = [url for url in browser.requests if not url.startswith(("file:", "data:", "blob:"))]
    assert outside == []
    assert all(url.endswith(".html") for url in browser.requests if url.startswith("file:"))


def focused(report: Chromium) -> str:
    text = report.run("document.activeElement.outerHTML.slice(0, 300)")
    return str(text)


def press_until(report: Chromium, wanted: str, most: int = 200) -> None:
    for _ in range(most):
        report.press("Tab")
        if wanted in focused(report):
            return
    pytest.fail(f"no Tab leads to {wanted}")


def test_it_is_used_by_keyboard(report: Chromium) -> None:
    # The first test of the page: the focus is where loading leaves it.
    report.press("Tab")
    assert 'class="skip"' in focused(report)
    report.press("Enter")
    press_until(report, 'name="encoder"')
    report.press("ArrowRight")
    chosen = "document.querySelector('input[name=\"encoder\"]:checked').value"
    assert report.run(chosen) == "efficientnet-lite0"
    press_until(report, 'data-method="dag"')
    opener = focused(report)
    report.press("Enter")
    assert report.run("document.getElementById('shown').open")
    assert "Close" in focused(report)
    title = report.run("document.getElementById('shown-title').textContent")
    assert title == "dag, reward style, seed 0"
    report.press("Escape")
    assert not report.run("document.getElementById('shown').open")
    assert focused(report) == opener
    press_until(report, "<summary>Table of this figure")
    report.press("Enter")
    assert report.run("document.activeElement.parentElement.open")


def test_it_draws_its_figures(report: Chromium) -> None:
    report.look(WIDE)
    figures = report.run("document.querySelectorAll('.plot').length")
    assert (
        report.run("document.querySelectorAll('.plot .main-svg .cartesianlayer').length")
        >= figures
        > 4
    )


def test_controls_redraw_what_they_are_for(report: Chromium) -> None:
    report.look(WIDE)
    titles = (
        """[...document.querySelectorAll('[data-kind="%s"] .xtitle')].map(t => t.textContent)"""
    )
    report.run('document.querySelector(\'input[name="cost"][value="reward_calls"]\').click()')
    assert report.run(titles % "curve") == ["Reward calls"] * 2
    report.run("document.querySelector('input[value=\"efficientnet-lite0\"]').click()")
    for kind in ("scatter", "attainment"):
        assert report.run(titles % kind) == ["Diversity (efficientnet-lite0)"] * 2
    report.run('document.querySelector(\'input[name="gallery-seed"][value="1"]\').click()')
    shown = "[...document.querySelectorAll('.panel')].filter(p => !p.hidden).map(p => p.dataset)"
    assert [(p["task"], p["seed"]) for p in report.run(f"{shown}.map(d => ({{...d}}))")] == [
        ("style", "1")
    ]


def test_a_chosen_metric_is_drawn_over_the_distance_with_the_turns(report: Chromium) -> None:
    report.look(WIDE)
    plots = """[...document.querySelectorAll('[data-kind="distance"]')]"""
    titles = f"{plots}.map((plot) => plot.querySelector('.ytitle').textContent)"
    rings = f"""{plots}.map((plot) => plot.data.filter((each) => each.marker
      && each.marker.symbol === "circle-open").map((each) => [...each.y]))"""
    report.run("document.querySelector('select[name=\"metric\"]').focus()")
    assert report.run(titles) == ["Panel, change in standard deviations"] * 2
    before = report.run(rings)
    report.press("ArrowDown")
    assert report.run(titles) == ["style (probability)"] * 2
    after = report.run(rings)
    assert [list(map(len, each)) for each in after] == [list(map(len, each)) for each in before]
    assert sum(map(len, after[0])) > 0 and after != before
    across = f"{plots}.map((plot) => plot.querySelector('.xtitle').textContent)"
    assert report.run(across) == ["Distance from base (root of path KL)"] * 2
    report.press("ArrowUp")
    assert report.run(rings) == before


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_nothing_is_cut_off(report: Chromium, width: int, dark: bool, tmp_path: Path) -> None:
    report.look(width, dark=dark)
    assert report.run("document.documentElement.scrollWidth") <= width
    assert report.run(CUT_OFF) == []
    with Image.open(report.screenshot(tmp_path / "page.png")) as image:
        assert image.width == width and image.height > 3000
        corner = image.convert("L").getpixel((2, 2))
    assert isinstance(corner, int) and (corner < 60) == dark
    ink = report.run("document.querySelector('.plot')._fullLayout.font.color")
    assert ink == ("#e9e9e5" if dark else "#1b1d21")


def test_a_legend_stays_below_the_axis_title_when_the_window_changes(report: Chromium) -> None:
    between = """[...document.querySelectorAll('.plot')].map(plot => {
      const box = (name) => plot.querySelector(name).getBoundingClientRect();
      return box('.legend').top - box('.xtitle').bottom;
    })"""
    for width in (WIDE, NARROW, WIDE):
        report.look(width)
        gaps = report.run(between)
        assert gaps and min(gaps) > -2, (width, gaps)


def test_a_click_on_a_point_shows_its_pictures(report: Chromium, tmp_path: Path) -> None:
    report.look(WIDE)
    x, y = report.run(FIRST_SEED)
    report.click(x, y)
    assert report.run("document.getElementById('shown').open")
    title = report.run("document.getElementById('shown-title').textContent")
    assert title == "dag, reward style, seed 0"
    in_gallery = report.run(
        """[...document.querySelectorAll('.panel[data-task="style"][data-seed="0"] td img')]
        .filter((image) => image.alt.startsWith("dag,")).map((image) => image.src)"""
    )
    shown = report.run(SHOWN)
    assert shown == in_gallery and len(shown) == 4 * 4 + 5
    # All of them are in view or can be scrolled to.
    assert report.run("document.getElementById('shown').getBoundingClientRect().right") <= WIDE
    with Image.open(report.screenshot(tmp_path / "shown.png", whole=False)) as image:
        assert image.size == (WIDE, 900)
    report.press("Escape")
    assert not report.run("document.getElementById('shown').open")


def from_the_top(report: Chromium) -> None:
    """Wide, at the top, with the focus where it is in a page just loaded."""
    report.look(WIDE)
    report.run("document.getElementById('shown').close(); scrollTo(0, 0)")
    report.run("document.body.tabIndex = -1; document.body.focus(); document.body.blur()")


def test_whatever_is_focused_can_be_seen(report: Chromium) -> None:
    from_the_top(report)
    seen = set()
    for _ in range(60):
        report.press("Tab")
        box = report.run(
            """(() => { const e = document.activeElement, b = e.getBoundingClientRect();
            const place = [...document.querySelectorAll('*')].indexOf(e);
            return [place, b.width, b.height, b.top, b.bottom, e.outerHTML.slice(0, 200)]; })()"""
        )
        seen.add(box[0])
        assert box[1] > 0 and box[2] > 0, box
        assert box[4] > 0 and box[3] < 900, box
    assert len(seen) == 60  # each is another element


def test_a_link_to_a_failed_cell_unfolds_its_traceback(report: Chromium) -> None:
    report.look(WIDE)
    report.run("document.querySelector('a.chip.failed').click()")
    opened = report.run(
        "new Promise((done) => setTimeout(() =>"
        " done(document.getElementById('ddpo--style--s1').open), 50))"
    )
    assert opened


def test_it_prints_on_paper(report: Chromium, tmp_path: Path) -> None:
    report.look(WIDE, dark=True, media="print")
    style = "getComputedStyle(document.%s)"
    assert report.run(f"{style % 'body'}.backgroundColor") == "rgb(255, 255, 255)"
    for selector in ("nav", ".controls", ".openers", ".skip"):
        found = style % f"querySelector('{selector}')"
        assert report.run(f"{found}.display") == "none"
    # Symbols of the points are part of the figures; tables end where the paper does.
    marker = "querySelector('[data-kind=\"scatter\"] .scatterlayer path.point')"
    assert report.run(f"document.{marker}.getBoundingClientRect().width") > 0
    report.look(1000, media="print")  # A4 on its side, in CSS pixels
    assert report.run("document.documentElement.scrollWidth") <= 1000
    assert report.pdf(tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    report.look(WIDE)


def test_hostile_text_does_nothing(browser: Chromium, tmp_path: Path) -> None:
    folder = Synthetic(tmp_path / "run", prompts=HOSTILE).write()
    record = store.read_json(folder / "run.json", records.RunRecord)
    evil = "<img src=x onerror=\"document.title='evil'\">${alert(3)}</script>"
    unit = record.rewards["style"].model_copy(update={"unit": evil, "source": evil})
    update = {"suite": evil, "rewards": {**record.rewards, "style": unit}}
    store.write_json(folder / "run.json", record.model_copy(update=update))
    path = tmp_path / "page.html"
    path.write_text(render(store.read_run(folder)), encoding="utf-8")
    browser.open(path, NARROW)
    assert browser.run("document.querySelector('h1').textContent") == evil
    assert browser.run("document.title").startswith("<img")
    assert browser.run("document.querySelectorAll('img[src=x]').length") == 0
    axis = browser.run("document.querySelector('[data-kind=\"scatter\"] .ytitle').textContent")
    assert axis == f"style ({evil})"
    browser.run("document.querySelector('.openers button').click()")
    headings = browser.run(
        "[...document.querySelectorAll('#shown h4')].map((each) => each.textContent)"
    )
    assert [" ".join(text.split()) for text in HOSTILE] == [
        " ".join(text.split()) for text in headings[-4:]
    ]
    assert browser.run("document.querySelectorAll('#shown img[src=x]').length") == 0
    assert browser.run("document.documentElement.scrollWidth") <= NARROW
    assert browser.run(CUT_OFF) == []


def test_parts_of_a_comparison_have_controls_of_their_own(
    browser: Chromium, run: Run, tmp_path: Path
) -> None:
    other = other_protocol(Synthetic(tmp_path / "other").write())
    browser.open(write_comparison(run.folder, other, tmp_path / "page.html"), NARROW)
    assert browser.run("document.documentElement.scrollWidth") <= NARROW
    assert browser.run(CUT_OFF) == []
    browser.run('document.querySelector(\'input[name="b-cost"][value="reward_calls"]\').click()')
    titles = browser.run(
        "[...document.querySelectorAll('[data-kind=\"curve\"] .xtitle')].map(t => t.textContent)"
    )
    assert titles == ["Training images"] * 2 + ["Reward calls"] * 2
    for part in ("A", "B"):
        browser.run(f"document.querySelector('[data-part=\"{part}\"] .openers button').click()")
        sources = browser.run(SHOWN)
        browser.press("Escape")
        gallery = (
            f"document.querySelector('[data-part=\"{part}\"] .panel tbody td:nth-child(2) img').src"
        )
        assert sources[0] == browser.run(gallery)
