"""The report's page in a browser: it works by mouse, by keyboard and by thumb, and runs nothing foreign."""

import json
import re

import pytest

from harness.run_folder import write_report
from report import page as report_page
from report.data import read_run
from report.page import difference
from tests import browser as browsers
from tests.synthetic_run import Runs

pytest.importorskip("selenium", reason="needs selenium")

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Runs(tmp_path_factory)


@pytest.fixture(scope="module")
def browser():
    one = browsers.start()
    yield one
    one.driver.quit()


def page_of(folder):
    """Write a run's page, without the figures, which take the most time."""
    path = folder / "report.html"
    path.write_text(report_page.page(read_run(folder), []), encoding="utf-8")
    return path


def history(folder, *events):
    lines = [{"time": f"2026-01-01T1{hour}:00:00Z", **event} for hour, event in enumerate(events)]
    (folder / "history.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))


@pytest.fixture(scope="module")
def opened(made, browser):
    folder = made(steps=4)
    return folder, write_report(folder, plots=False)[0]


def test_a_click_on_a_node_opens_its_code_and_its_difference(opened, browser):
    folder, page = opened
    run = read_run(folder)
    browser.open(page)
    assert browser.js("return document.querySelectorAll('svg.tree a.node').length") == len(run.nodes)
    node = next(one for one in run.nodes if one.parent and one.state == "evaluated" and one is not run.learned)
    browser.click(f".node[data-name='{node.name}'] .value")
    browser.wait(lambda: browser.js("return document.querySelector('#panel article').dataset.design") == node.name)
    code = browser.js("return document.querySelector('#panel pre.source').textContent")
    assert code.strip() == run.design(node).code.strip()
    new = browser.js("return [...document.querySelectorAll('#panel tr.new td:last-child')].map(one => one.textContent)")
    parent = next(one for one in run.nodes if one.name == node.parent)
    changed = [row for row in difference(run.design(parent).code, run.design(node).code) if row.kind == "new"]
    assert len(new) == len(changed) > 0 and all(line[2:] in run.design(node).code for line in new)
    browser.driver.back()
    assert browser.complaints() == []


def test_the_keyboard_alone_reaches_a_design_and_its_episodes(opened, browser):
    browser.open(opened[1])
    browser.js("document.body.tabIndex = -1; document.body.focus()")
    keys = browser.driver.switch_to.active_element
    seen = []
    for _ in range(80):
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        name = browser.js("const one = document.activeElement; return one.dataset.name || one.id || one.className || one.tagName")
        seen.append(name)
        if name == "3.1":
            break
    assert "theme" in seen and {"1.1", "2.1", "3.1"} <= set(seen), keys
    outline = browser.js("return getComputedStyle(document.activeElement.querySelector('circle.body')).strokeWidth")
    assert outline == "4px"
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    browser.wait(lambda: browser.js("return document.activeElement.textContent").startswith("3.1"))
    for _ in range(40):
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        if browser.js("return document.activeElement.textContent").startswith("Episodes"):
            break
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    browser.wait(lambda: browser.js("return document.activeElement.parentElement.open") is True)
    assert browser.complaints() == []


def test_the_table_of_designs_sorts_by_a_button(opened, browser):
    browser.open(opened[1])
    browser.driver.find_element(By.XPATH, "//section[@id='designs']//button[text()='success %']").click()
    values = browser.js("return [...document.querySelectorAll('#designs tbody tr')].map(row => row.cells[1].dataset.value)")
    numbers = [float(value) for value in values if value]
    assert numbers == sorted(numbers, reverse=True) and values[len(numbers) :] == [""] * (len(values) - len(numbers))


CONTRAST = """
const parse = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
const light = (rgb) => { const [r, g, b] = rgb.map((v) => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b; };
const under = (one) => { for (; one; one = one.parentElement) { const c = getComputedStyle(one).backgroundColor;
  if (!/rgba\\(.*, 0(\\.\\d+)?\\)|transparent|color/.test(c)) return parse(c); } return [255, 255, 255]; };
return ['h1', '.lead', '.kicker', '.tile .small', 'figcaption', '#panel .muted', '#panel pre.source', 'td', 'th', '.legend li']
  .map((name) => { const one = document.querySelector(name); const a = light(parse(getComputedStyle(one).color)), b = light(under(one));
    return [name, (Math.max(a, b) + .05) / (Math.min(a, b) + .05)]; });
"""


@pytest.mark.parametrize("dark", [False, True])
def test_texts_can_be_read_in_light_and_dark(opened, browser, dark):
    browser.open(opened[1], dark=dark)
    assert all(ratio >= 4.5 for _, ratio in browser.js(CONTRAST)), browser.js(CONTRAST)
    paper = browser.js("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper)[:3])) < 200) == dark
    browser.click("#theme")
    assert browser.js("return getComputedStyle(document.body).backgroundColor") != paper


def test_at_phone_width_nothing_runs_over_the_edge(opened, browser):
    folder, page = opened
    browser.open(page, width=360, height=740)
    for node in read_run(folder).nodes:
        browser.js("location.hash = arguments[0]; document.querySelectorAll('details').forEach(one => one.open = true)",
                   f"#design-{node.name}")
        assert browser.js("return document.documentElement.scrollWidth") <= 360
    browser.click(".node[data-name='1.1'] .value")
    assert browser.js("return document.querySelector('#panel article').dataset.design") == "1.1"
    assert browser.complaints() == []


def test_a_hostile_run_runs_nothing_loads_nothing_and_moves_nothing(made, browser):
    folder = made(steps=4, hostile=True)
    browser.open(page_of(folder))
    for node in read_run(folder).nodes:
        browser.js("location.hash = arguments[0]", f"#design-{node.name}")
        browser.js("document.querySelectorAll('details').forEach(one => one.open = true)")
        shown = browser.js("return [document.querySelector('#panel article').dataset.design, "
                           "document.querySelectorAll('#panel img, #panel script').length, "
                           "document.documentElement.scrollWidth]")
        assert shown == [node.name, 0, 1280]
    assert browser.js("return performance.getEntriesByType('resource').length") == 0
    assert browser.complaints() == []


def test_the_policy_of_the_page_stops_a_script_that_is_not_its_own(opened, browser):
    """The second wall: were a text ever not escaped, it would still not run."""
    browser.open(opened[1])
    browser.js("document.getElementById('panel').innerHTML = '<img src=x onerror=\"window.broken = 1\">'")
    browser.js("const one = document.createElement('script'); one.textContent = 'window.broken = 1'; document.body.append(one)")
    assert browser.js("return window.broken === undefined") and browser.complaints()


@pytest.mark.parametrize("events", [["started"], ["started", "stopped"], ["started", "resumed", "finished"], None])
def test_runs_at_any_stage_open_without_a_complaint(made, browser, tmp_path, events):
    folder = made(copy=True, steps=2, planned=3) if events else tmp_path
    if events:
        history(folder, *({"event": event, "why": "the budget is spent"} for event in events))
    else:
        (folder / "config.json").write_text("{}")
    browser.open(page_of(folder))
    assert browser.complaints() == []


def test_forty_designs_with_full_logs_are_under_15_mb_and_open_in_under_2_seconds(made, browser):
    folder = made(steps=13, tasks=6, passes=1, length=80, width=1500, lines_of_code=200)
    page_of(folder)
    assert len(read_run(folder).nodes) >= 43
    assert 2_000_000 < (folder / "report.html").stat().st_size < 15_000_000
    assert min(browser.open(folder / "report.html") for _ in range(3)) < 2000  # milliseconds
    assert browser.complaints() == []


def test_the_whole_code_of_long_designs_is_shown_and_scrolls(made, browser):
    folder = made(steps=3, tasks=6, passes=1, length=80, width=1500, lines_of_code=2200)
    run = read_run(folder)
    browser.open(page_of(folder))
    for node in (run.nodes[0], run.learned):
        browser.js("location.hash = arguments[0]", f"#design-{node.name}")
        browser.wait(lambda name=node.name: browser.js("return document.querySelector('#panel article').dataset.design") == name)
        code = run.design(node).code
        assert code.count("\n") > 2200
        assert browser.js("return document.querySelector('#panel pre.source').textContent").strip() == code.strip()
        box = browser.js("const one = document.querySelector('#panel .code').parentElement; return [one.clientHeight, one.scrollHeight]")
        assert box[0] < 900 < 5000 < box[1]
    assert browser.complaints() == []
