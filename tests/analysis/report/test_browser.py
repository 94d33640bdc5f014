"""The report in a real browser: what a reader does with it, and what a hostile output cannot do."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from axe_core_python.selenium import Axe
from made_up import HOSTILE, drawn, requests, write_extras, write_run
from PIL import Image
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

import analysis
from analysis import queries
from analysis.report import write_report

pytestmark = pytest.mark.slow

Open = Callable[..., Chrome]


def all_of(browser: Chrome, selector: str) -> list[WebElement]:
    return browser.find_elements(By.CSS_SELECTOR, selector)


def one(browser: Chrome, selector: str) -> WebElement:
    [found] = all_of(browser, selector)
    return found


def ids(browser: Chrome) -> list[str]:
    return browser.execute_script("return [...document.querySelectorAll('.opener')].map(each => each.textContent)")


def series(browser: Chrome, plot: str) -> dict[str, list[float]]:
    """Name and y values of what a plot draws."""
    script = "return document.querySelector(arguments[0]).data.map(trace => [trace.name, Array.from(trace.y)])"
    return dict(browser.execute_script(script, f"#plot-{plot} .canvas"))


def focused(browser: Chrome) -> str:
    return browser.switch_to.active_element.text


def press(browser: Chrome, key: str) -> None:
    browser.switch_to.active_element.send_keys(key)


def opened_text(browser: Chrome) -> str:
    """What the only open row shows, once it is there."""
    WebDriverWait(browser, 10, 0.05).until(lambda seen: all_of(seen, ".opened .step"))
    return one(browser, ".opened").text


def test_nothing_is_loaded_and_nothing_complains(opened: Open, report: Path) -> None:
    browser = opened(report)
    assert requests(browser) == [report.resolve().as_uri()]
    assert browser.get_log("browser") == []
    assert len(all_of(browser, ".plot .main-svg")) >= 5
    assert not one(browser, "#trouble").is_displayed()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("page", ["report", "measured"])
def test_axe_finds_no_fault(opened: Open, request: pytest.FixtureRequest, page: str, width: int, theme: str) -> None:
    report: Path = request.getfixturevalue(page)
    browser = opened(report)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    try:
        browser.get(report.resolve().as_uri())
        drawn(browser)
        browser.execute_script("arguments[0].click()", all_of(browser, ".opener")[0])
        opened_text(browser)
        for details in all_of(browser, "details"):
            browser.execute_script("arguments[0].open = true", details)
        found = Axe().run(browser)
        assert found["passes"], "it looked"
        faults = [(one["impact"], one["id"], one["nodes"][0]["html"]) for one in found["violations"]]
        assert faults == []
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_the_headline_follows_the_filter(opened: Open, report: Path) -> None:
    browser = opened(report)
    visible = ".of-part:not([hidden])"
    whole = one(browser, f"{visible} h1").text, one(browser, f"{visible} .origin").text
    shades = "return [...document.querySelectorAll('#depth rect')].map(each => each.style.opacity).join()"
    before = browser.execute_script(shades)
    menu = Select(one(browser, "#task"))
    name = menu.options[1].text
    menu.select_by_index(1)
    drawn(browser, name.rsplit(" (", 1)[0])
    task = one(browser, f"{visible} h1").text, one(browser, f"{visible} .origin").text
    assert f"task {name.rsplit(' (', 1)[0]}" in task[1]
    assert task[1] != whole[1]
    assert browser.execute_script(shades) != before
    assert len(all_of(browser, f"figcaption{visible}")) == 1


def test_the_policy_stops_what_would_be_loaded(opened: Open, report: Path) -> None:
    browser = opened(report)
    script = """const done = arguments[0], picture = new Image();
        picture.onerror = () => fetch("https://example.org/").then(() => done("loaded"), () => done("refused"));
        picture.src = "https://example.org/pixel.png";"""
    assert browser.execute_async_script(script) == "refused"
    browser.execute_script(
        "const late = document.createElement('script'); late.textContent = 'hacked = 1'; document.head.append(late)"
    )
    assert browser.execute_script("return window.hacked") is None
    refused = [entry["message"] for entry in browser.get_log("browser")]
    assert all("Content Security Policy" in message for message in refused)
    assert all(any(kind in message for message in refused) for kind in ("the image", "Connecting to", "inline script"))


def test_a_task_filters_numbers_plots_and_table(opened: Open, report: Path, stored: Path) -> None:
    browser = opened(report)
    minimal = analysis.budgets(analysis.load(stored))
    mine = minimal.iloc[1::3]
    before = series(browser, "oracle")
    Select(one(browser, "#task")).select_by_index(2)
    drawn(browser, "task b")
    shown = all_of(browser, ".facts:not([hidden]) .value")[0].text
    assert shown == f"{100 * mine.loc[mine['informative'], 'upper'].mean() / 12:.1f} %"
    assert ids(browser) == mine["sequence"].tolist()
    assert one(browser, "#count").text == "20 of 60 sequences"
    assert sum(map(sum, series(browser, "budgets").values())) == 20
    assert len(series(browser, "tasks")["mean"]) == 1
    after = series(browser, "oracle")
    assert after["oracle"] != before["oracle"]
    assert after["full model"] == pytest.approx([mine.loc[mine["informative"], "full_quality"].mean()] * 2)
    one(browser, ".choose[aria-pressed=true]").click()
    drawn(browser)
    assert series(browser, "oracle") == before
    assert len(ids(browser)) == 50


@pytest.mark.parametrize("page", ["report", "measured"])
def test_every_heading_is_above_its_cells(opened: Open, request: pytest.FixtureRequest, page: str) -> None:
    browser = opened(request.getfixturevalue(page))
    places = """return [...document.querySelectorAll('table')].map(table => {
        const cells = row => [...row.cells].filter(cell => cell.getClientRects().length)
            .map(cell => cell.getBoundingClientRect()).map(({ left, right }) => [Math.round(left), Math.round(right)]);
        const rows = [...table.tBodies[0].rows].filter(row => row.getClientRects().length && !row.matches('.opened'));
        return [cells(table.tHead.rows[0]), rows.map(cells)];
    })"""
    for task in range(2 if page == "report" else 1):
        if task:
            Select(one(browser, "#task")).select_by_index(task)
            drawn(browser, "task a")
        tables = browser.execute_script(places)
        assert len(tables) > 1 and all(rows for _, rows in tables)
        for heads, rows in tables:
            assert all(row == heads for row in rows)
        wide = """return [...document.querySelectorAll('table :is(th, td)')]
            .filter(cell => cell.scrollWidth > cell.clientWidth + 1).map(cell => cell.textContent)"""
        assert browser.execute_script(wide) == []
    if page == "report":
        assert "Task" in [head.text for head in all_of(browser, "#heads th")]


def test_means_of_plots_are_those_of_the_table(opened: Open, report: Path) -> None:
    browser = opened(report)
    script = """const { data, layout } = document.querySelector('#plot-tasks .canvas');
        const { x, y } = data.find(trace => trace.name === "mean"), ticks = layout.yaxis.ticktext;
        return Object.fromEntries(Array.from(x, (mean, i) => [ticks[y[i]], `${(100 * mean).toFixed(1)}\u00a0%`]))"""
    heads, values = (all_of(browser, f".tasks tbody {kind}") for kind in ("th", ".measured"))
    rows = {head.text: value.text for head, value in zip(heads, values, strict=True)}
    assert len(rows) == 3
    assert browser.execute_script(script) == {task: text.replace(" ", "\u00a0") for task, text in rows.items()}


def test_the_buttons_of_a_plot_lie_on_nothing(opened: Open, report: Path) -> None:
    browser = opened(report)
    script = """const box = node => node.getBoundingClientRect();
        const bar = box(document.querySelector('#plot-use .modebar-container .modebar'));
        return [...document.querySelectorAll('#plot-use :is(.colorbar text, .heatmaplayer)')].map(box)
            .map(each => each.top - bar.bottom)"""
    distances = browser.execute_script(script)
    assert len(distances) > 3 and min(distances) >= 0


def test_a_task_leaves_no_controller_above_the_oracle(opened: Open, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", sequences=12, tasks=3)
    write_extras(run)
    browser = opened(write_report(run))
    before = series(browser, "controllers")
    assert before["router"] == [0.4] and before["oracle at that budget"] == [0.6, 0.6]
    Select(one(browser, "#task")).select_by_index(1)
    drawn(browser, "task a")
    assert series(browser, "controllers") == before, "curve and points are over the sequences that were compared"


def test_points_of_a_task_lie_on_its_line_and_are_stacked_where_they_meet(opened: Open, report: Path) -> None:
    browser = opened(report)
    script = """return document.querySelector('#plot-tasks .canvas').data.filter(trace => trace.customdata)
        .flatMap(trace => Array.from(trace.x, (x, i) => [x, trace.y[i]]))"""
    points = np.array(browser.execute_script(script))
    rows = np.rint(points[:, 1])
    assert len(points) == 60 and set(rows) == {0, 1, 2}
    assert np.abs(points[:, 1] - rows).max() <= 0.33, "no point between two rows"
    for row in range(3):
        mine = points[rows == row]
        for place in np.unique(mine[:, 0]):
            there = np.sort(mine[mine[:, 0] == place, 1]) - row
            assert 0.0 in there and len(set(there)) == len(there)


def test_ticks_of_tries_are_the_numbers_themselves(opened: Open, report: Path) -> None:
    browser = opened(report)
    script = "return [...document.querySelectorAll('#plot-luck .xtick')].map(tick => tick.textContent)"
    assert browser.execute_script(script)[:5] == ["1", "2", "5", "10", "20"]


def test_search_finds_ids_prompts_and_references(opened: Open, report: Path, stored: Path) -> None:
    browser = opened(report)
    field = one(browser, "#search")
    field.send_keys("PROMPT S0017")
    assert ids(browser) == ["s0017"]
    reference = analysis.load(stored).sequences["references"][30][0]
    field.clear()
    field.send_keys(reference)
    assert ids(browser) == ["s0030"]
    field.clear()
    field.send_keys("no such thing")
    assert ids(browser) == []
    assert "No sequence matches" in one(browser, "#rows").text
    assert one(browser, "#count").text == "0 of 60 sequences"


def test_sorting_by_click_and_by_keyboard(opened: Open, report: Path, stored: Path) -> None:
    browser = opened(report)
    minimal = analysis.budgets(analysis.load(stored))
    head = one(browser, "#heads .of-fraction button")
    head.click()
    rising = minimal.sort_values("upper", kind="stable")["sequence"].tolist()
    assert ids(browser) == rising[:50]
    assert one(browser, "#heads .of-fraction").get_attribute("aria-sort") == "ascending"
    assert focused(browser) == "Fraction"
    press(browser, Keys.ENTER)
    assert one(browser, "#heads .of-fraction").get_attribute("aria-sort") == "descending"
    falling = minimal.sort_values("upper", ascending=False, kind="stable")["sequence"].tolist()
    assert ids(browser) == falling[:50]
    one(browser, "#pages button:not(:disabled)").click()
    assert ids(browser) == falling[50:]
    assert focused(browser) == falling[50]


def test_a_row_opens_moves_and_closes_by_keyboard(opened: Open, report: Path, stored: Path) -> None:
    browser = opened(report)
    experiment = analysis.load(stored)
    browser.execute_script("document.querySelector('.opener').focus()")
    for key in (Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_UP):
        press(browser, key)
    assert focused(browser) == "s0001"
    press(browser, Keys.ENTER)
    text = opened_text(browser)
    mine = experiment.evaluations[experiment.evaluations["sequence"] == "s0001"]
    assert "prompt 1" in text
    assert experiment.sequences["references"][1][0] in text
    assert mine["text"].iloc[0] in text
    assert one(browser, ".row.open .opener").get_attribute("aria-expanded") == "true"
    assert len(all_of(browser, ".opened .layers")) == len(all_of(browser, ".opened .step")) > 1
    assert all_of(browser, ".opened ins")
    press(browser, Keys.ESCAPE)
    assert all_of(browser, ".opened") == []
    assert focused(browser) == "s0001"


def test_a_row_states_what_random_masks_say(opened: Open, report: Path, stored: Path) -> None:
    browser = opened(report)
    stated = [row for row in queries.budgets(stored) if row["statistical"]]
    if stated[0]["sequence"] not in ids(browser):
        one(browser, "#pages button:not(:disabled)").click()
    [place] = [n for n, name in enumerate(ids(browser)) if name == stated[0]["sequence"]]
    browser.execute_script("document.querySelectorAll('.opener')[arguments[0]].click()", place)
    assert f"Statistical: {stated[0]['statistical']}." in opened_text(browser)
    assert one(browser, ".opened .statistical").text.endswith("not a proof.")


def test_marked_words_are_those_that_differ(opened: Open, report: Path) -> None:
    browser = opened(report)
    script = "return difference(...arguments).map(({ kind, words }) => [kind, words.join('').trim()])"
    assert browser.execute_script(script, "the red cat sat down", "the blue cat sat") == [
        ["same", "the"], ["gone", "red"], ["new", "blue"], ["same", "cat sat"], ["gone", "down"]
    ]  # fmt: skip
    assert browser.execute_script(script, "", "new words") == [["new", "new words"]]
    assert browser.execute_script(script, "gone", "") == [["gone", "gone"]]
    assert browser.execute_script(script, "a  b\n", "a b") == [["same", "a b"]]
    rng = np.random.default_rng(0)
    for _ in range(20):
        before, after = (" ".join(rng.choice(list("abc"), rng.integers(0, 9))) for _ in range(2))
        parts = browser.execute_script(script, before, after)
        kept = {kind: " ".join(words for known, words in parts if known in ("same", kind)) for kind in ("gone", "new")}
        assert kept == {"gone": before, "new": after}
        common = sum(len(words.split()) for kind, words in parts if kind == "same")
        assert common == longest_common(before.split(), after.split())


def longest_common(a: list[str], b: list[str]) -> int:
    table = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1, j + 1] = table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
    return int(table[-1, -1])


def test_strips_and_costs_are_drawn_from_what_is_stored(opened: Open, report: Path) -> None:
    browser = opened(report)
    runs = "return Array.from(runsOf(...arguments))"
    assert browser.execute_script(runs, "0-1,1-2,5", 6) == [1, 2, 1, 0, 0, 1]
    assert browser.execute_script(runs, "", 3) == [0, 0, 0]
    cost = "return costText(...arguments)"
    values = [(7, "layers"), (1.23456, "ms/token"), (8.41e7, "FLOPs/token")]
    shown = [browser.execute_script(cost, *value) for value in values]
    assert shown == ["7", "1.235", "84.1\u00a0M"]


def test_a_click_on_a_point_opens_its_row(opened: Open, report: Path) -> None:
    browser = opened(report)
    browser.execute_script(
        "document.querySelector('#plot-tasks .canvas').emit('plotly_click', { points: [{ customdata: 55 }] })"
    )
    assert "prompt 55" in opened_text(browser)
    assert focused(browser) == "s0055"


def test_measurements_and_controllers_are_drawn(opened: Open, measured: Path) -> None:
    browser = opened(measured)
    assert series(browser, "similarity")["early exit"] == pytest.approx([0.25])
    assert set(series(browser, "controllers")) == {"oracle at that budget", "best static allocation", "router"}
    speed, controllers, static, drafts, claims = (panel.text for panel in all_of(browser, ".panel"))
    assert "unified 2x 50.0" in speed
    assert "0-8" in static and "1.33x" in static and "1.40x, 21.0 tokens/s" in static
    assert len(all_of(browser, ".panel svg.layers")) == 2
    assert "33.3" in controllers
    assert "swift 70.0 %" in drafts and "(0.50x) 2 of 2" in drafts and "proven: at most 1 layers" in drafts
    assert "skipping is better (a paper) better 0.123 (0.1 to 0.2) cosine; zero-shot 9 agrees" in claims
    assert all_of(browser, "#task") == []
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("width", [1280, 800, 390])
def test_tables_are_read_without_a_box_that_scrolls(opened: Open, measured: Path, width: int) -> None:
    browser = opened(measured, width=width)
    inner = """return [...document.querySelectorAll('.panel, .panel *')].filter(each =>
        each.scrollWidth > each.clientWidth + 1 && each.clientWidth && getComputedStyle(each).display !== "inline"
        || ["auto", "scroll"].includes(getComputedStyle(each).overflowY)).map(each => each.outerHTML)"""
    assert browser.execute_script(inner) == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    hidden = """return [...document.querySelectorAll('.panel tbody :is(th, td):not(:empty)')]
        .filter(each => !each.getClientRects().length).length"""
    assert browser.execute_script(hidden) == 0
    name = """const cell = document.querySelector('[aria-label="Practical controllers"] td');
        return getComputedStyle(cell, "::before").content"""
    assert browser.execute_script(name) == ("none" if width > 1024 else '"executed"')


@pytest.mark.parametrize("width", [1280, 390])
def test_a_long_table_opens_on_demand(opened: Open, many: Path, width: int) -> None:
    browser = opened(many, width=width)

    def shown() -> list[WebElement]:
        rows = all_of(browser, '[aria-label="Practical controllers"] tbody tr')
        return [row for row in rows if row.is_displayed()]

    assert len(shown()) == 15
    one(browser, ".all").click()
    assert len(shown()) == 20
    assert focused(browser) == shown()[15].text
    assert all_of(browser, ".all") == []


def test_hostile_texts_are_shown_and_never_run(opened: Open, hostile: Path) -> None:
    browser = opened(hostile)
    for opener in all_of(browser, ".opener"):
        browser.execute_script("arguments[0].click()", opener)
    WebDriverWait(browser, 10, 0.05).until(lambda seen: len(all_of(seen, ".opened .steps")) == 3)
    for details in all_of(browser, "details"):
        browser.execute_script("arguments[0].open = true", details)
    Select(one(browser, "#task")).select_by_index(1)
    drawn(browser, "<b>bold</b>")
    assert browser.execute_script("return window.hacked") is None
    assert browser.get_log("browser") == []
    assert requests(browser) == [hostile.resolve().as_uri()]
    assert all_of(browser, "img, .opened a, #plots a[*|href]") == []
    quotes = [quote.get_property("textContent") for quote in all_of(browser, ".opened .quote")]
    assert HOSTILE in quotes
    assert "<b>bold</b>" in browser.execute_script("return document.querySelector('#plot-tasks .ytick').textContent")
    assert "<img src=x" in one(browser, ".of-part:not([hidden]) .origin").text


@pytest.mark.parametrize(("width", "dark"), [(360, True), (1280, False)])
def test_it_fits_its_screen_in_light_and_dark(opened: Open, report: Path, width: int, dark: bool) -> None:
    browser = opened(report, width=width, dark=dark)
    browser.execute_script("document.querySelector('.opener').click()")
    opened_text(browser)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    picture = np.asarray(Image.open(BytesIO(browser.get_screenshot_as_png())).convert("L"))
    assert (np.median(picture) < 60) == dark
    assert len(np.unique(picture)) > 20
    one(browser, "#theme").click()
    toggled = np.asarray(Image.open(BytesIO(browser.get_screenshot_as_png())).convert("L"))
    assert (np.median(toggled) < 60) != dark


def test_every_control_has_a_name(opened: Open, report: Path) -> None:
    browser = opened(report)
    kinds = ["button:not(.opener)", "select", "input", ".bar", ".canvas", ".row:first-child :is(.opener, svg)"]
    controls = [control for kind in kinds for control in all_of(browser, kind) if control.is_displayed()]
    assert len(controls) > 20
    assert [control.get_attribute("outerHTML") for control in controls if not control.accessible_name] == []
