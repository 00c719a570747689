"""Opens a page in Debian's Chromium for the tests, where there is one.

Try it: `python -m tests.browser RUN/report.html picture.png` takes a picture of a report's archive.
"""

import shutil
import sys
from pathlib import Path

import pytest

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--disable-dev-shm-usage",
)


class Browser:
    """Chromium with one page, driven by selenium."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, path, width=1280, height=900, dark=False, fragment=""):
        """Open a file; returns milliseconds until it was loaded."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        calm = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme, calm]})
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get(path.resolve().as_uri() + fragment)
        return self.js("return performance.getEntriesByType('navigation')[0].loadEventEnd")

    def js(self, code, *arguments):
        return self.driver.execute_script(code, *arguments)

    def wait(self, condition, seconds=10):
        """Until `condition()` is true; fails where it does not become so."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, seconds, poll_frequency=0.05).until(lambda _: condition())

    def click(self, selector):
        """Click the middle of an element, scrolled to the middle of the window."""
        one = self.driver.find_element("css selector", selector)
        self.js("arguments[0].scrollIntoView({block: 'center', inline: 'center'})", one)
        one.click()

    def complaints(self):
        """What the console holds since the page was opened."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


def start():
    """A Browser; skips the test with a reason where that cannot be."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and chromedriver):
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in FLAGS:
        options.add_argument(flag)
    service = webdriver.ChromeService(executable_path=chromedriver)
    return Browser(webdriver.Chrome(options=options, service=service))


def main() -> None:
    page, picture = map(Path, sys.argv[1:])
    browser = start()
    browser.open(page, width=1200, height=1000, fragment="#archive")
    browser.driver.save_screenshot(str(picture))
    browser.driver.quit()


if __name__ == "__main__":
    main()
