"""Headless Chromium from the system's packages, driven by selenium: Debian's chromium and chromium-driver.

Nothing is downloaded: the driver's path is given, and the browser is started without its background services.
"""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
    *("--hide-scrollbars", "--force-color-profile=srgb", "--lang=en-US"),
)


def missing() -> str:
    """What is not installed, in words; empty if all is there."""
    needed = {"chromium": "chromium", "chromedriver": "chromium-driver"}
    lacks = [f"Debian's {package}" for program, package in needed.items() if not shutil.which(program)]
    with contextlib.suppress(ImportError):
        import selenium  # noqa: F401

        return " and ".join(lacks)
    return " and ".join([*lacks, "selenium"])


@contextlib.contextmanager
def chromium(width: int = 1440, height: int = 900, mobile: bool = False) -> Iterator:
    """A selenium driver whose console and network are logged.

    Args:
      width, height: of the window, in CSS pixels.
      mobile: behave as a phone does: viewport meta, touch.
    """
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
        try:
            resize(driver, width, height, mobile)
            yield driver
        finally:
            driver.quit()


def resize(driver, width: int, height: int, mobile: bool = False) -> None:
    """Makes the page exactly this large; a window has a least width of its own."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": mobile})


def open_page(driver, page) -> None:
    """Opens a page and waits for its last figure."""
    driver.get("about:blank")
    driver.get(page.resolve().as_uri())
    drawn(driver)


def drawn(driver, seconds: float = 60.0) -> str:
    """Waits until the page has drawn all its figures. Returns what it shows, and milliseconds since navigation."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        text = driver.execute_script("return document.documentElement.dataset.drawn || ''")
        if text:
            return text
        time.sleep(0.02)
    raise TimeoutError(f"the page has not drawn its figures within {seconds:g} s: {driver.get_log('browser')}")
