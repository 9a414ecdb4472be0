"""The report's page in a browser: Debian's headless Chromium, driven by selenium."""

import json
import os
import time

import browser
import made_up
import numpy as np
import pytest
from pages import HOSTILE, hostile, rewritten, with_circuit

from grokjax.report.page import html
from grokjax.report.results import read
from grokjax.report.write import page_path
from grokjax.store.metrics import read_metrics, read_runs

LACKS = browser.missing()
pytestmark = pytest.mark.skipif(bool(LACKS) and not os.environ.get("CI"), reason=f"{LACKS} is not installed")


@pytest.fixture(scope="module")
def driver():
    assert not LACKS, f"{LACKS} is not installed"
    with browser.chromium() as driver:
        driver.get("about:blank")
        yield driver


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A made-up sweep: ten weight decays, two seeds, 40 evaluations, P = 11."""
    path = made_up.make_sweep(tmp_path_factory.mktemp("page") / "sweep", 20, 40, 11)
    return write(path)


@pytest.fixture(scope="module")
def two_fields(made, tmp_path_factory):
    """The same runs as if of five weight decays by two learning rates."""

    def settings(frame):
        setting = frame["run"] // 2
        decays = [made_up.WEIGHT_DECAYS[2 * (i // 2)] for i in setting]
        return frame.assign(weight_decay=decays, learning_rate=[(1e-3, 1e-2)[i % 2] for i in setting])

    return write(rewritten(made, tmp_path_factory.mktemp("two") / "sweep", settings, settings))


@pytest.fixture
def page(driver, made):
    """The driver with that sweep's page open."""
    browser.resize(driver, 1440, 900)
    return opened(driver, made)


def write(path):
    """The page alone: the picture beside it takes longer."""
    page = page_path(path)
    page.parent.mkdir(exist_ok=True)
    page.write_text(html(read(path)), encoding="utf-8")
    return path


def opened(driver, path):
    for kind in ("browser", "performance"):
        driver.get_log(kind)  # what earlier pages left there
    browser.open_page(driver, page_path(path))
    return driver


def run_js(page, script, *args):
    return page.execute_script(f"return {script}", *args)


def choose(page, value, name="choose"):
    """Chooses from a list as a user does."""
    from selenium.webdriver.support.select import Select

    Select(page.find_element("id", name)).select_by_value(value)
    browser.drawn(page)


def curve(page, name="losses", line=0):
    return run_js(page, f"document.getElementById('{name}').data[{line}].y")


def assert_quiet(page):
    """Nothing in the console, nothing asked of the network."""
    assert page.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in urls if not url.startswith(("file:", "data:", "about:", "blob:"))] == []
    assert [url for url in urls if url.startswith("file:")] == [run_js(page, "location.href")] * (len(urls) > 0)
    assert [
        e for e in run_js(page, "performance.getEntriesByType('resource').map(e => e.name)") if e[:5] != "data:"
    ] == []


def test_it_opens_without_errors_and_without_the_network(page):
    assert run_js(page, "document.querySelectorAll('.plot .main-svg').length") > 8
    assert run_js(page, "[...document.querySelectorAll('.plot')].every(p => p.getAttribute('aria-label').length > 20)")
    assert_quiet(page)


def test_choosing_a_run_changes_the_curves(page, made):
    metrics = read_metrics(made, ["run", "step", "train_loss", "test_loss"])
    for run in (3, 17):
        choose(page, f"run {run}")
        rows = metrics[metrics["run"] == run]
        np.testing.assert_array_equal(np.float32(curve(page)), rows["test_loss"])
        np.testing.assert_array_equal(np.float32(curve(page, line=1)), rows["train_loss"])
        assert f"run {run}:" in page.find_element("css selector", "[data-figure=losses] figcaption").text
        shaded = run_js(page, "document.getElementById('losses').layout.shapes.map(s => [s.x0, s.x1])")
        phases = run_js(page, f"JSON.parse(document.getElementById('data').textContent).runs[{run}].phases")
        assert shaded == [[begin, end] for _, begin, end in phases]
    assert_quiet(page)


DRAWN = "document.getElementById('losses').data.map(t => [t.name, t.meta[0], t.line.color, t.line.dash, t.y.length])"


def test_it_opens_on_all_runs_coloured_by_the_first_field(page, made):
    assert page.find_element("id", "choose").get_attribute("value") == "group 0"
    traces = run_js(page, DRAWN)
    assert [name for name, _, _, _, _ in traces[::-2]] == [f"weight_decay = {v:g}" for v in made_up.WEIGHT_DECAYS]
    assert [of for _, of, _, _, _ in traces[-2:]] == ["train", "test"]  # test lies on top
    assert {n for *_, n in traces} == {2 * 40 + 1}  # two seeds, a gap between them
    assert len({color for _, _, color, _, _ in traces}) == 10
    assert {of: dash for _, of, _, dash, _ in traces} == {"test": "solid", "train": "dot"}
    choose(page, "seed", "color_by")
    assert {name for name, _, _, _, _ in run_js(page, DRAWN)} == {"seed = 0", "seed = 1"}
    legend = "[...document.querySelectorAll('#losses .legendtext')].map(t => t.textContent)"
    assert run_js(page, legend) == ["seed = 0", "seed = 1"]
    choose(page, "run 3")
    assert {color for _, _, color, _, _ in run_js(page, DRAWN)} >= {"#D55E00", "#0072B2"}
    assert_quiet(page)


def test_a_run_is_chosen_from_the_table(page):
    page.find_element("css selector", "#runs button[data-run='5']").click()
    browser.drawn(page)
    assert page.find_element("id", "choose").get_attribute("value") == "run 5"
    assert run_js(page, "document.querySelector('tr[aria-current] button').dataset.run") == "5"


def test_lines_are_ticked_on_and_off(page):
    choose(page, "run 5")
    names = "document.getElementById('losses').data.map(t => t.name)"
    before = run_js(page, names)
    page.find_element("css selector", "[data-figure=losses] input[value=excluded_loss_max]").click()
    browser.drawn(page)
    assert run_js(page, names) == [*before, "excluded, largest of one frequency"]


def test_the_spectrum_shows_the_norms_of_the_run(page, made):
    choose(page, "run 4")
    shown = np.array(run_js(page, "document.getElementById('spectrum_W_E').data[0].z"), float)
    norms = read_metrics(made, ["run", "step", "freq_norm_W_E"]).query("run == 4")["freq_norm_W_E"]
    np.testing.assert_allclose(10**shown.T, np.stack(norms.to_list()), rtol=0.03)


@pytest.mark.parametrize("column", ["weight_decay", "run", "grokked", "test loss"])
def test_tables_sort_by_mouse_and_keyboard(page, column):
    from selenium.webdriver.common.keys import Keys

    heads = page.find_elements("css selector", "#runs thead th")
    i = [run_js(page, "arguments[0].firstElementChild.textContent", head) for head in heads].index(column)
    values = f"[...document.querySelectorAll('#runs tbody tr')].map(r => r.cells[{i}].dataset.value)"
    heads[i].find_element("tag name", "button").click()
    assert heads[i].get_attribute("aria-sort") == "ascending"
    up = run_js(page, values)
    assert [float(v) for v in up if v] == sorted(float(v) for v in up if v)
    assert "" not in up[: len([v for v in up if v])]
    heads[i].find_element("tag name", "button").send_keys(Keys.ENTER)
    assert heads[i].get_attribute("aria-sort") == "descending"
    down = run_js(page, values)
    assert [float(v) for v in down if v] == sorted((float(v) for v in down if v), reverse=True)
    assert len([head for head in heads if head.get_attribute("aria-sort")]) == 1


@pytest.mark.long
def test_the_keyboard_reaches_and_works_the_list_of_runs(page):
    from selenium.webdriver.common.keys import Keys

    page.switch_to.active_element.send_keys(Keys.TAB)
    assert run_js(page, "document.activeElement.className") == "skip"
    reached = set()
    for _ in range(25):
        page.switch_to.active_element.send_keys(Keys.TAB)
        reached.add(run_js(page, "document.activeElement.tagName + '.' + document.activeElement.className"))
    assert {"A.", "SUMMARY.", "DIV.scroll", "BUTTON."} <= reached
    choose(page, "run 1")
    page.find_element("id", "choose").send_keys(Keys.ARROW_DOWN)
    assert browser.drawn(page).startswith("run 2")


def test_every_run_is_a_point_and_censored_ones_are_open(page, made):
    runs = read_runs(made)
    held = "document.getElementById('times').data.filter(t => t.customdata)"
    points = run_js(page, f"{held}.map(t => [t.name, t.marker.symbol, t.y])")
    by_name = {name: (symbol, ys) for name, symbol, ys in points}
    grokked = runs["grokked_step"].notna().sum()
    assert len(by_name["grokked"][1]) == grokked
    symbol, ys = by_name["not by the last step"]
    assert symbol == "triangle-up-open"
    assert ys == [3900] * (20 - grokked)
    choose(page, "seed", "times_by")
    legend = "[...document.querySelectorAll('#times .legendtext')].map(t => t.textContent)"
    assert run_js(page, legend) == ["seed = 0", "seed = 1", "not by the last step"]


@pytest.mark.long
def test_medians_have_the_colour_of_their_runs(driver, two_fields):
    opened(driver, two_fields)
    held = run_js(driver, "document.getElementById('times').data.map(t => [t.text?.[0], t.name, t.marker.color])")
    runs = {name: color for text, name, color in held if text and text.startswith("run")}
    medians = {name: color for text, name, color in held if text and "median" in text}
    assert medians
    assert medians == {name: runs[name] for name in medians}
    assert len(set(medians.values())) == len(medians)


def test_one_field_is_compared_over_time_alone(page):
    assert run_js(page, "document.getElementById('heat')") is None


@pytest.mark.long
def test_dark_and_on_paper(driver, made):
    browser.resize(driver, 1440, 900)
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    opened(driver, made)
    colors = "[getComputedStyle(document.body).backgroundColor, document.getElementById('losses').layout.paper_bgcolor]"
    assert run_js(driver, colors) == ["rgb(20, 25, 31)", "#14191f"]
    run_js(driver, "dispatchEvent(new Event('beforeprint'))")
    assert run_js(driver, colors) == ["rgb(255, 255, 255)", "#fff"]
    assert run_js(driver, "document.getElementById('losses').clientWidth") <= 720
    run_js(driver, "dispatchEvent(new Event('afterprint'))")
    browser.drawn(driver)
    assert run_js(driver, colors) == ["rgb(20, 25, 31)", "#14191f"]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert_quiet(driver)


@pytest.mark.long
def test_the_heat_map_takes_its_axes_and_value(driver, two_fields):
    page = opened(driver, two_fields)
    size = "[document.getElementById('heat').data[1].x.length, document.getElementById('heat').data[1].y.length]"
    choose(page, "weight_decay", "heat_x")
    choose(page, "seed", "heat_y")
    assert run_js(page, size) == [5, 2]
    choose(page, "", "heat_y")
    choose(page, "grokked", "heat_value")
    assert run_js(page, size) == [5, 1]
    share = run_js(page, "document.getElementById('heat').data[1].z[0]")
    assert min(share) == 0.25
    assert max(share) == 1


@pytest.mark.parametrize(("kind", "magic"), [("svg", b"<svg"), ("png", b"\x89PNG")])
def test_figures_are_exported(page, tmp_path, kind, magic):
    page.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    page.find_element("css selector", f"[data-figure=losses] [data-export={kind}]").click()
    until = time.monotonic() + 20
    while not (files := list(tmp_path.glob(f"*.{kind}"))) and time.monotonic() < until:
        time.sleep(0.05)
    assert [file.name for file in files] == [f"sweep_losses.{kind}"]
    assert files[0].read_bytes().startswith(magic)
    assert_quiet(page)


@pytest.mark.parametrize("width", [390, 820, 1440])
def test_nothing_is_wider_than_the_screen(driver, made, width):
    browser.resize(driver, width, 900, mobile=width < 600)
    opened(driver, made)
    assert run_js(driver, "document.documentElement.scrollWidth") == width
    wide = (
        "[...document.querySelectorAll('.plot svg.main-svg')].filter(s => s.getBoundingClientRect().right > innerWidth)"
    )
    assert run_js(driver, f"{wide}.length") == 0
    assert_quiet(driver)


@pytest.mark.parametrize("width", [1200, 1440])
def test_nothing_covers_a_legend_and_no_column_of_runs_is_cut(driver, made, width):
    browser.resize(driver, width, 900)
    opened(driver, made)
    bars = "p.querySelector('.modebar').getBoundingClientRect().bottom"
    legend = "p.querySelector('.legend').getBoundingClientRect().top"
    plots = "[...document.querySelectorAll('.curves .plot')].filter(p => p.querySelector('.legend'))"
    assert run_js(driver, f"{plots}.length") >= 4
    assert run_js(driver, f"{plots}.map(p => {bars} <= {legend} + 1)") == [True] * run_js(driver, f"{plots}.length")
    table = "document.getElementById('runs').parentElement"
    assert run_js(driver, f"{table}.scrollWidth - {table}.clientWidth") == 0


def test_markup_in_a_config_does_nothing(driver, made, tmp_path):
    browser.resize(driver, 1440, 900)
    path = hostile(made, tmp_path / "hostile")
    opened(driver, write(path))
    choose(driver, "model.act", "times_x")
    choose(driver, "model.act", "heat_x")
    choose(driver, "model.act", "times_by")
    assert run_js(driver, "window.hurt") is None
    assert run_js(driver, "document.querySelectorAll('img, b').length") == 0
    assert HOSTILE in driver.find_element("tag name", "h1").text
    ticks = driver.find_elements("css selector", "#heat .xtick")
    assert HOSTILE in [tick.text for tick in ticks]
    assert_quiet(driver)


@pytest.mark.long
def test_the_circuit_table_is_that_of_the_run(driver, made, tmp_path):
    browser.resize(driver, 1440, 900)
    opened(driver, write(with_circuit(made, tmp_path / "circuit")))
    rows = "[...document.querySelectorAll('#claims tbody tr')].map(row => [...row.cells].map(cell => cell.textContent))"
    choose(driver, "run 3")
    assert ["key frequencies in use", "1, 4"] in [[row[0], row[2]] for row in run_js(driver, rows)]
    assert driver.find_element("id", "circuit_of").text == "run 3: weight_decay = 0.03, seed = 1, at step 3,900."
    choose(driver, "run 4")
    assert run_js(driver, rows) == []
    assert "is not in circuit.parquet" in driver.find_element("id", "circuit_of").text
    assert_quiet(driver)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["in training", "one evaluation", "one run", "losses alone"])
def test_odd_sweeps_open_without_errors(driver, made, tmp_path, kind):
    def metrics(frame):
        if kind == "in training":
            return frame[(frame["run"] < 5) | (frame["run"] < 12) & (frame["step"] < 700)]
        if kind == "one evaluation":
            return frame[frame["step"] == 0]
        return frame[frame["run"] == 0] if kind == "one run" else frame[["run", "step", "train_loss", "test_loss"]]

    def runs(frame):
        if kind == "in training":
            frame["status"] = ["finished"] * 5 + ["training"] * 7 + ["waiting"] * 8
            frame.loc[5:, ["key_freqs", "grokked_step"]] = None
            frame.loc[12:, "last_step"] = None
        return frame[frame["run"] == 0] if kind == "one run" else frame

    path = rewritten(made, tmp_path / "odd", metrics, runs)
    opened(driver, write(path))
    if kind != "one run":
        choose(driver, "group 0")
        choose(driver, "run 19")
    assert_quiet(driver)
