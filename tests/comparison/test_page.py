"""The report as a person opens it: from disk, in chromium, with names that want to be markup."""

import json
import re
from pathlib import Path

import plotly.graph_objects as go
import pytest
from making import WIDTH, make_set, write_run
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from segment.chart_style import finished, named_axis
from segment.comparison import compare, load_runs
from segment.comparison.words import MIOU, finding
from segment.report import main

RUNS = ('"><script>window.hacked=1</script>', "紙と'瓶' & <b>glass</b>", "شبكة")
CLASSES = ("<img src=x onerror=window.hacked=2>", 'ورق & "paper"', "瓶</script>")
PHOTO = "<b onmouseover=window.hacked=3>写真'.png"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("hostile")
    coco = make_set(root / "set", photos=12, names=CLASSES, files=(PHOTO,))
    shares = ((0.1, 0.05), (0.3, 0.35), (0.2, None))
    return [
        write_run(root / f"run{n}", coco, *shares[n], experiment=name)
        for n, name in enumerate(RUNS)
    ]


@pytest.fixture(scope="module")
def report(runs: list[Path]) -> Path:
    half = runs[0].parent / "half <i>written"
    (half / "checkpoints").mkdir(parents=True)
    out = runs[0].parent / "report"
    main([*map(str, runs), str(half), "--out", str(out), "--draws", "200"])
    return out


@pytest.fixture
def page(browser: webdriver.Chrome, report: Path) -> webdriver.Chrome:
    browser.get((report / "index.html").as_uri())
    return browser


def rows(page: webdriver.Chrome) -> list[str]:
    cells = page.find_elements(By.CSS_SELECTOR, "#scores-table tbody th")
    return [cell.text for cell in cells]


def wait(page: webdriver.Chrome, script: str) -> None:
    WebDriverWait(page, 20).until(lambda chrome: chrome.execute_script(f"return {script}"))


def drawn(page: webdriver.Chrome, figure: go.Figure, sign: str) -> None:
    page.execute_script(
        "Plotly.newPlot('pair-chart', ...arguments[0])",
        [json.loads(figure.to_json())[key] for key in ("data", "layout")],
    )
    wait(page, f"document.querySelector('#pair-chart {sign}')")


def test_loads_draws_every_chart_and_says_nothing_in_the_console(page: webdriver.Chrome) -> None:
    page.get_log("browser")
    page.refresh()
    places = page.find_elements(By.CSS_SELECTOR, ".chart")
    # Nine of scores and confusions, two chosen, two maps, three of refining.
    assert len(places) == 15
    for place in places:
        page.execute_script("arguments[0].scrollIntoView()", place)
        WebDriverWait(page, 20).until(
            lambda _, place=place: place.find_elements(By.CSS_SELECTOR, "svg.main-svg")
        )
    assert page.get_log("browser") == []
    assert page.execute_script("return window.hacked") is None
    loaded = page.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert all(name.startswith(("file:", "data:")) for name in loaded), loaded
    assert page.execute_script("return document.documentElement.scrollWidth") <= 1280


def test_names_are_shown_and_not_executed(page: webdriver.Chrome) -> None:
    assert rows(page) == [RUNS[0], RUNS[2], RUNS[1]]  # best first
    shown = page.find_element(By.TAG_NAME, "body").text
    assert "half <i>written: no evaluation.json" in shown
    for name in (*RUNS, *CLASSES, PHOTO):
        assert name in shown or name in page.find_element(By.ID, "cards").text
    bars = page.find_element(By.ID, "chart-class-bars")
    page.execute_script("arguments[0].scrollIntoView()", bars)
    wait(page, "document.querySelectorAll('#chart-class-bars .xtick text').length === 4")
    ticks = [tick.text for tick in bars.find_elements(By.CSS_SELECTOR, ".xtick text")]
    assert ticks[1] == "<img src=x one\N{HORIZONTAL ELLIPSIS}ndow.hacked=2>"
    assert ticks[2:] == [*CLASSES[1:]]
    for choice in ("bars-run", "confusion-run"):
        options = Select(page.find_element(By.ID, choice)).options
        assert [option.text for option in options] == [RUNS[0], RUNS[2], RUNS[1]]
        Select(page.find_element(By.ID, choice)).select_by_index(2)
    page.find_element(By.CSS_SELECTOR, ".card").click()
    assert page.execute_script("return window.hacked") is None
    assert not page.find_elements(By.CSS_SELECTOR, "img[src='x']")


def test_a_heading_sorts_by_click_and_by_key(page: webdriver.Chrome) -> None:
    heads = page.find_elements(By.CSS_SELECTOR, "#scores-table tr:nth-child(2) button")
    heads[0].click()  # mIoU raw
    assert rows(page) == [RUNS[0], RUNS[2], RUNS[1]]
    heads[0].send_keys(Keys.ENTER)
    assert rows(page) == [RUNS[1], RUNS[2], RUNS[0]]
    heads[1].click()  # refined, which the third run lacks: it stays last
    assert rows(page) == [RUNS[0], RUNS[1], RUNS[2]]
    heads[1].click()
    assert rows(page) == [RUNS[1], RUNS[0], RUNS[2]]
    sorts = page.find_elements(By.CSS_SELECTOR, "#scores-table th[aria-sort=ascending]")
    assert [head.text.rstrip("\u25b2") for head in sorts] == ["refined"]


def test_words_are_sorted_from_a_on_at_the_first_click(page: webdriver.Chrome) -> None:
    page.find_element(By.CSS_SELECTOR, "#scores-table thead button").click()  # run
    assert rows(page)[0] == RUNS[0]  # a quotation mark, before any letter
    head = page.find_element(By.CSS_SELECTOR, "#scores-table thead th")
    assert head.get_attribute("aria-sort") == "ascending"


def test_the_legend_covers_no_title_of_an_axis(page: webdriver.Chrome) -> None:
    names = [f"deeplab_v3plus_resnet{n}_{'stride16_' * 2}seed" for n in range(12)]
    figure = go.Figure([go.Scatter(x=[0, 11], y=[n, n], name=name) for n, name in enumerate(names)])
    figure.update_xaxes(**named_axis(names, tickangle=-60), title="the title")
    drawn(page, finished(figure, 500), ".legend")
    top, bottom, ticks = page.execute_script(
        "const box = (name) => document.querySelector('#pair-chart ' + name)"
        ".getBoundingClientRect();"
        "return [box('.legend').top, box('.xtitle').bottom, box('.xaxislayer-above').bottom]"
    )
    assert top >= bottom
    assert top >= ticks


def test_a_class_of_two_chosen_runs_tells_its_interval(page: webdriver.Chrome) -> None:
    page.execute_script("document.getElementById('pair-chart').scrollIntoView()")
    wait(page, "document.querySelector('#pair-chart svg.main-svg')")
    hovers = page.execute_script(
        "return document.getElementById('pair-chart').data.flatMap(trace => trace.hovertext)"
    )
    assert len(hovers) == 4
    assert all("95 % interval" in hover for hover in hovers)


def test_two_chosen_runs_are_compared_in_words(page: webdriver.Chrome, runs: list[Path]) -> None:
    Select(page.find_element(By.ID, "first")).select_by_visible_text(RUNS[1])
    Select(page.find_element(By.ID, "second")).select_by_visible_text(RUNS[0])
    Select(page.find_element(By.ID, "pair-kind")).select_by_visible_text("refined")
    pairs = [one for one in compare(load_runs(runs)[0], draws=200) if one.kind == "refined"]
    assert len(pairs) == 1  # the third run has no refined labels
    said = page.find_element(By.ID, "pair-said").text
    assert said.startswith(finding(pairs[0], MIOU))
    assert f"{RUNS[0]} beats {RUNS[1]} on mean IoU" in said
    Select(page.find_element(By.ID, "first")).select_by_visible_text(RUNS[2])
    assert "These two are not compared" in page.find_element(By.ID, "pair-said").text


def test_photos_are_filtered_and_one_opens_at_full_size(
    page: webdriver.Chrome, report: Path
) -> None:
    text = (report / "index.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert found
    data = json.loads(found[1])
    Select(page.find_element(By.ID, "photo-run")).select_by_visible_text(RUNS[1])
    Select(page.find_element(By.ID, "photo-class")).select_by_visible_text(CLASSES[2])
    Select(page.find_element(By.ID, "photo-why")).select_by_visible_text("worst")
    cards = page.find_elements(By.CSS_SELECTOR, ".card")
    wanted = [
        data["photos"][card["photo"]]["file"]
        for card in data["cards"]
        if card["run"] == RUNS[1]
        and "worst" in card["why"]
        and CLASSES[2] in data["photos"][card["photo"]]["classes"]
    ]
    assert 0 < len(wanted) <= 3
    assert [card.text.splitlines()[2] for card in cards] == wanted
    assert page.find_element(By.ID, "photo-count").text == f"{len(wanted)} of {len(data['cards'])}"
    assert all(
        image.get_attribute("loading") == "lazy"
        for image in page.find_elements(By.CSS_SELECTOR, ".card img")
    )
    wait(page, "document.querySelector('.card img').naturalWidth > 0")
    shown, own = page.execute_script(
        "const i = document.querySelector('.card img');"
        "return [i.clientWidth / i.clientHeight, i.naturalWidth / i.naturalHeight]"
    )
    assert shown == pytest.approx(own, rel=0.02)  # nothing is cut away
    cards[0].click()
    viewer = page.find_element(By.ID, "viewer")
    assert viewer.get_attribute("open") is not None
    assert page.find_element(By.ID, "viewer-name").text == wanted[0]
    captions = [each.text for each in viewer.find_elements(By.TAG_NAME, "figcaption")]
    assert captions == ["truth", "raw", "refined"]
    wait(page, "[...document.querySelectorAll('#panes img')].every(i => i.naturalWidth > 0)")
    sizes = page.execute_script(
        "return [...document.querySelectorAll('#panes img')].map(image => image.naturalWidth)"
    )
    assert sizes == [WIDTH] * 6
    page.find_element(By.ID, "full").click()
    drawn = "[...document.querySelectorAll('#panes img')].map(image => image.clientWidth)"
    assert page.execute_script(f"return {drawn}") == [WIDTH] * 6  # a pixel is a pixel
    page.find_element(By.ID, "full").click()
    assert min(page.execute_script(f"return {drawn}")) > 2 * WIDTH
    if len(wanted) > 1:
        page.find_element(By.ID, "later").click()
        assert page.find_element(By.ID, "viewer-name").text == wanted[1]
    page.find_element(By.ID, "close").click()
    assert viewer.get_attribute("open") is None


def test_the_page_is_small_and_its_markdown_shows_names_as_they_are(report: Path) -> None:
    assert (report / "index.html").stat().st_size < 30e6
    text = (report / "report.md").read_text(encoding="utf-8")
    assert '| "\\>\\<script\\>window.hacked=1\\</script\\> |' in text
    assert "<script" not in text.replace("\\<script", "")
    assert "half \\<i\\>written: no evaluation.json" in text
