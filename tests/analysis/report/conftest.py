"""Reports, and a real browser to read them in."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from made_up import browser, drawn, programs, save, write_extras, write_run
from selenium import webdriver

from analysis.report import write_report


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 60 sequences of three tasks: more than a page of the table."""
    return write_run(tmp_path_factory.mktemp("runs") / "made-up", sequences=60)


@pytest.fixture(scope="session")
def report(stored: Path) -> Path:
    return write_report(stored)


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a run that was measured, and on which controllers were compared."""
    run = write_run(tmp_path_factory.mktemp("runs") / "measured", sequences=4, tasks=1)
    write_extras(run)
    return write_report(run)


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a run on which twenty settings of controllers were compared."""
    run = write_run(tmp_path_factory.mktemp("runs") / "many", sequences=4, tasks=1)
    write_extras(run)
    comparison = run / "controllers" / "comparison.parquet"
    save(comparison, pd.concat([pd.read_parquet(comparison)] * 10, ignore_index=True))
    return write_report(run)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report in which every text tries to run a script."""
    return write_report(write_run(tmp_path_factory.mktemp("runs") / "hostile", sequences=3, hostile=True))


@pytest.fixture(scope="session")
def chromium() -> Iterator[webdriver.Chrome]:
    """A real browser without a window."""
    if not all(programs()):
        pytest.skip("needs chromium and chromedriver (Debian: apt-get install chromium chromium-driver)")
    with browser() as running:
        yield running


@pytest.fixture
def opened(chromium: webdriver.Chrome) -> Callable[..., webdriver.Chrome]:
    """Opens a page and waits until all is drawn; the logs hold only what happened since."""

    def open_page(page: Path, *, width: int = 1280, dark: bool = False) -> webdriver.Chrome:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        media = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in media.items()]
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        chromium.get("about:blank")
        chromium.get_log("browser")
        chromium.get_log("performance")
        chromium.get(page.resolve().as_uri())
        drawn(chromium)
        return chromium

    return open_page
