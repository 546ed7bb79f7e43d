"""The report page works in a real browser: offline, by keyboard, and on any screen."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from provenance.digest import sha256_of
from provenance.numbers import Ledger, Number, read_ledgers
from workflow_copy import Copy

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars "
    "--disable-background-networking --disable-component-update --disable-sync"
)
WIDE, PHONE = (1440, 1000), (360, 740)  # pixels

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (BROWSER and DRIVER), reason="needs Debian's chromium and chromium-driver"
    ),
]


@pytest.fixture(scope="module")
def page(finished) -> Path:
    """The page as the workflow made it."""
    return finished.results / "report.html"


@pytest.fixture(scope="module")
def ledgers(finished) -> list[Ledger]:
    """The ledgers of all tables and figures."""
    found, broken = read_ledgers(finished.results.relative_to(finished.root), finished.root)
    assert len(found) == 16 and not broken
    return found


@pytest.fixture(scope="module")
def chromium(tmp_path_factory) -> Iterator[webdriver.Chrome]:
    """A browser without a profile of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for option in (*OPTIONS.split(), f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium, page) -> Iterator[webdriver.Chrome]:
    """The page, opened from disk on a wide screen. Fails if a script on it fails."""
    chromium.get_log("browser")
    show(chromium, page)
    yield chromium
    assert chromium.get_log("browser") == []
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def show(browser: webdriver.Chrome, page: Path, size: tuple[int, int] = WIDE, number="") -> None:
    """Open the page, or a number's address in it, in a fresh tab."""
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get("about:blank")
    browser.get(page.as_uri() + (f"#{number}" if number else ""))


def sheet(browser: webdriver.Chrome) -> dict | None:
    """Return text, file digests and jobs of the open lineage; None if none is open."""
    return browser.execute_script(
        """
        const sheet = document.querySelector("dialog[open]");
        if (!sheet) return null;
        for (const step of sheet.querySelectorAll(".chain details")) step.open = true;
        return new Promise((tell) => setTimeout(() => tell({
          text: sheet.innerText,
          raw: sheet.querySelector(".raw").textContent,
          sources: [...sheet.querySelectorAll(".sources li")].map(
            (line) => [line.dataset.path, line.querySelector(".digest").textContent]),
          files: [...sheet.querySelectorAll(".chain li[data-path]")].map(
            (line) => [line.dataset.path, line.querySelector(".digest").textContent]),
          records: [...sheet.querySelectorAll("[data-record]")].map(
            (line) => [line.dataset.record, line.querySelector(".digest").textContent]),
          jobs: [...sheet.querySelectorAll("[data-job]")].map((step) => step.dataset.job),
          commands: [...sheet.querySelectorAll(".command code")].map((each) => each.textContent),
        }), 50));
        """
    )


def click(browser: webdriver.Chrome, number: str) -> dict:
    """Unfold what hides a number, and click the number as a person does."""
    link = browser.find_element(By.ID, number)
    for folded in link.find_elements(By.XPATH, "ancestor::details[not(@open)]"):
        press(browser, folded.find_element(By.TAG_NAME, "summary"))
    press(browser, link)
    return sheet(browser)


def press(browser: webdriver.Chrome, element: WebElement) -> None:
    """Scroll an element to the middle of the screen, where nothing covers it, and click it."""
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


def report(folder: Path, *options: str | Path) -> subprocess.CompletedProcess:
    """Run `ffmerge report` with the code in the folder."""
    command = [
        sys.executable,
        "-m",
        "experiment.cli",
        "report",
        "--results",
        "results/pico",
        *options,
    ]
    env = os.environ | {"PYTHONPATH": "workflow"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env)


def one_of_each(ledgers: list[Ledger]) -> list[Number]:
    """Return a number of each table and figure: the last with an interval, if any."""
    return [
        ([number for number in ledger.numbers if number.cell["interval"]] or ledger.numbers)[-1]
        for ledger in ledgers
    ]


def test_every_number_is_on_the_page_and_nothing_else_is_asked_for(browser, ledgers):
    links = browser.find_elements(By.CSS_SELECTOR, "a.n")
    assert sorted(link.get_attribute("id") for link in links) == sorted(
        number.id for ledger in ledgers for number in ledger.numbers
    )


def test_a_click_shows_the_digest_of_the_file_that_is_on_disk(browser, finished, ledgers):
    for number in one_of_each(ledgers):
        shown = click(browser, number.id)
        raw = number.cell["raw"]
        assert (shown["raw"] if isinstance(raw, str) else json.loads(shown["raw"])) == raw
        assert {path for path, _ in shown["sources"]} == set(number.files)
        for path, digest in [*shown["sources"], *shown["files"]]:
            file = finished.root / path
            assert digest == sha256_of(file), f"{number.id}: {path}"
        for path, digest in shown["records"]:
            assert json.loads((finished.root / path).read_text())["digest"] == digest


def test_a_chain_leads_from_data_and_base_model_to_the_number(browser):
    shown = click(browser, "table5:2:permute")
    rules = [job.split()[0] for job in shown["jobs"]]
    assert rules[0] == "train_base_model" and rules[-1] == "make_tables_2_to_5"
    expected = ["align_feed_forwards", "compress", "fine_tune", "score_test", "make_tables_2_to_5"]
    assert [rule for rule in rules if rule in expected] == expected
    for word in ("resources/demo/data/text", "Seed", "Commit", "Host", "Lock", "max_steps"):
        assert word in shown["text"]
    assert shown["commands"] == [
        f"ffmerge {verb} table5:2:permute --results results/pico" for verb in ("reproduce", "trace")
    ]
    assert "17.27 (Table 5)" in shown["text"] and "95 %" in shown["text"]


def test_the_page_says_what_verification_found(browser, ledgers):
    n = sum(len(ledger.numbers) for ledger in ledgers)
    assert f"All {n} numbers hold." in browser.find_element(By.CLASS_NAME, "state").text
    assert "verified" in click(browser, "table5:2:permute")["text"]


def test_a_broken_number_says_so_where_it_stands_and_at_the_top(browser, finished, tmp_path):
    copied = tmp_path / "copy"
    shutil.copytree(finished.root, copied, symlinks=True)
    metrics = copied / "results/pico/vit/models/base/test.json"
    metrics.write_text(metrics.read_text() + "\n")
    out = tmp_path / "broken.html"
    run = report(copied, "--out", out)
    assert run.returncode == 1, run.stderr
    show(browser, out)
    assert "do not hold" in browser.find_element(By.CLASS_NAME, "state").text
    shown = click(browser, "table5:5:permute")
    assert "does not hold" in shown["text"] and "vit/models/base/test.json" in shown["text"]
    assert "is-broken" in browser.find_element(By.ID, "table5:5:permute").get_attribute("class")
    assert "is-broken" not in browser.find_element(By.ID, "table5:2:permute").get_attribute("class")


def test_a_number_is_found_opened_and_left_by_keyboard_alone(browser):
    body = browser.find_element(By.TAG_NAME, "body")
    for _ in range(60):
        body.send_keys(Keys.TAB)
        focused = browser.switch_to.active_element
        if focused.get_attribute("class") == "n":
            break
    name = focused.get_attribute("id")
    assert name.startswith("table1:")
    assert focused.value_of_css_property("outline-style") == "solid"  # one sees where one is
    focused.send_keys(Keys.ENTER)
    assert name in sheet(browser)["text"]
    inside = "return document.querySelector('dialog').contains(document.activeElement)"
    assert browser.execute_script(inside)
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert sheet(browser) is None
    assert browser.switch_to.active_element.get_attribute("id") == name
    assert "#" not in browser.current_url


@pytest.mark.parametrize("size", [WIDE, PHONE])
@pytest.mark.parametrize(
    "number", ["table5:7:permute", "figure5:4:linear-cka", "comparison:3:ours"]
)
def test_a_number_has_an_address(browser, page, size, number):
    show(browser, page, size, number)
    assert number in sheet(browser)["text"]
    assert browser.find_element(By.ID, number).is_displayed()  # what it was folded into is open


def test_the_way_back_closes_and_opens_numbers(browser):
    click(browser, "table2:1:random-1")
    click(browser, "table2:2:random-1")
    browser.back()
    WebDriverWait(browser, 5).until(lambda b: "table2:1:random-1" in sheet(b)["text"])
    browser.back()
    WebDriverWait(browser, 5).until(lambda b: sheet(b) is None)


def test_an_address_of_nothing_opens_nothing(browser, page):
    for name in ("table99:1:nothing", "%", "figure2", "discrepancies"):
        show(browser, page, WIDE, name)
        assert sheet(browser) is None


def test_a_phone_scrolls_tables_and_not_the_page(browser, page):
    show(browser, page, PHONE)
    browser.execute_script(
        "for (const each of document.querySelectorAll('details')) each.open = true"
    )
    wide = "return document.documentElement.scrollWidth"
    assert browser.execute_script(wide) == PHONE[0]
    boxes = "return [...document.querySelectorAll('.scroll')]"
    assert browser.execute_script(f"{boxes}.some((box) => box.scrollWidth > box.clientWidth)")
    click(browser, "table5:2:permute")
    assert browser.execute_script(wide) == PHONE[0]
    inner = "const d = document.querySelector('dialog'); return d.scrollWidth - d.clientWidth"
    assert browser.execute_script(inner) == 0


def test_verdicts_filter_what_is_compared(browser):
    rows = "return document.querySelectorAll('#comparison-rows tbody tr:not([hidden])').length"
    n_rows = browser.execute_script(rows)
    for button in browser.find_elements(By.CSS_SELECTOR, "[data-filters=comparison-rows] button"):
        press(browser, button)
        count = int(button.find_element(By.TAG_NAME, "b").text)
        assert browser.execute_script(rows) == count
        assert (count == n_rows) == (button.get_attribute("data-verdict") == "")


def test_print_leaves_out_what_paper_cannot_do_and_cuts_no_table(browser):
    click(browser, "table5:2:permute")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    for selector in ("dialog", "nav", ".filter", ".points"):
        assert not browser.find_element(By.CSS_SELECTOR, selector).is_displayed()
    boxes = browser.find_elements(By.CSS_SELECTOR, "article > .scroll")
    assert len(boxes) == 8
    assert {box.value_of_css_property("overflow-x") for box in boxes} == {"visible"}
    link = browser.find_element(By.ID, "table5:2:permute")
    assert link.value_of_css_property("text-decoration-line") == "none"
    after = "return getComputedStyle(arguments[0], '::after').content"
    assert browser.execute_script(after, link) == "none"


def test_the_dark_page_is_dark_and_legible(browser, page):
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    show(browser, page)
    colours = [
        [int(part) for part in re.findall(r"\d+", body.value_of_css_property(name))[:3]]
        for body in browser.find_elements(By.TAG_NAME, "body")
        for name in ("background-color", "color")
    ]
    assert max(colours[0]) < 60 and min(colours[1]) > 180


def test_nothing_is_asked_of_any_network(browser, page, ledgers):
    loaded = "return performance.getEntriesByType('resource').map((each) => each.name)"
    click(browser, one_of_each(ledgers)[0].id)
    assert [name for name in browser.execute_script(loaded) if not name.startswith("data:")] == []
    text = page.read_text()
    assert not re.search(r"""<[^>]+\s(?:src|srcset|action)=(?!"data:)""", text)
    assert not re.search(r"""<link[^>]+href=["'](?!data:)|@import|url\((?!["']?data:)""", text)
    assert "default-src 'none'" in text  # the browser holds it to that, too


def test_the_page_is_of_a_size_that_can_be_mailed(page):
    assert page.stat().st_size < 6e6


def test_captions_discrepancies_and_every_picture_are_there(browser, finished: Copy):
    for n in range(1, 7):
        picture = browser.find_element(By.CSS_SELECTOR, f"article:has(#figure{n}) img")
        assert browser.execute_script("return arguments[0].naturalWidth", picture) > 500
    headings = re.findall(
        r"^### (.+)$", (finished.root / "docs/discrepancies.md").read_text(), re.MULTILINE
    )
    shown = browser.find_element(By.CSS_SELECTOR, ".prose").get_attribute("textContent")
    assert headings and all(heading.replace("`", "") in shown for heading in headings)
    captions = browser.find_elements(By.CSS_SELECTOR, ".caption")
    assert len(captions) >= 16 and all(len(each.text) > 40 for each in captions)


def test_a_page_that_a_job_made_is_not_overwritten_by_hand(finished):
    run = report(finished.root, "--no-check")
    assert run.returncode == 2 and "--out" in run.stderr
