"""How long a report of many sequences takes to write, and to open in a headless Chromium.

    PYTHONPATH=tests python tests/benchmarks/report.py [--sequences 5000] [--tries 20]

`table`: until it can be read and searched; `pictures`: until the last one is drawn as well, in milliseconds.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from made_up import browser, drawn, write_run
from selenium.webdriver.support.ui import WebDriverWait

from analysis.report import write_report


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sequences", type=int, default=5000)
    parser.add_argument("--tries", type=int, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = write_run(Path(scratch) / "run", sequences=arguments.sequences, tries=arguments.tries, tasks=8)
        start = time.perf_counter()
        page = write_report(run)
        found = {
            "write_s": time.perf_counter() - start,
            "mib": page.stat().st_size / 2**20,
            "opens": [opened(page) for _ in range(3)],
        }
    print(json.dumps(found))


def opened(page: Path) -> dict[str, int]:
    """Milliseconds since the page was asked for, in a browser started for this."""
    with browser() as running:
        running.get(page.as_uri())
        drawn(running)
        marks = "return performance.getEntriesByType('mark').map(mark => [mark.name, Math.round(mark.startTime)])"
        WebDriverWait(running, 60, 0.1).until(lambda seen: len(seen.execute_script(marks)) == 2)
        return dict(running.execute_script(marks))


if __name__ == "__main__":
    main()
