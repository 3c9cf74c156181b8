"""The report in a real browser, where one is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from reports.html import write_report
from results.store import Run

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)

PROBE = """<script>window.addEventListener("load", () => setTimeout(() => {
  document.querySelector('input[name="cost"][value="reward_calls"]').click();
  document.querySelector('input[name="gallery-seed"][value="1"]').click();
  const shown = [...document.querySelectorAll(".panel")].filter((panel) => !panel.hidden);
  document.body.dataset.panels = shown.map((p) => p.dataset.task + p.dataset.seed).join();
  document.querySelector('input[name="encoder"][value="efficientnet-lite0"]').click();
  document.body.dataset.encoders = ["scatter", "attainment"].map((kind) =>
    document.querySelector(`[data-kind="${kind}"] .xtitle`).textContent).join();
  document.body.dataset.axes = [...document.querySelectorAll('[data-kind="curve"] .xtitle')]
    .map((title) => title.textContent).join();
}, 2000));</script></body>"""


@pytest.mark.skipif(not BROWSER, reason="no browser is installed")
def test_it_draws_its_figures_offline_and_without_errors(run: Run, tmp_path: Path) -> None:
    page = write_report(run.folder, tmp_path / "page.html")
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", PROBE), encoding="utf-8")
    done = subprocess.run(
        [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu"),
            *("--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}"),
            *("--enable-logging=stderr", "--virtual-time-budget=6000", "--dump-dom"),
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in done.stderr
    (body,) = re.findall(r"<body[^>]*>", done.stdout)
    assert 'data-panels="style1"' in body
    assert 'data-axes="Reward calls,Reward calls"' in body
    both = "Diversity (efficientnet-lite0),Diversity (efficientnet-lite0)"
    assert f'data-encoders="{both}"' in body
    # Plotly draws three layers a figure.
    assert done.stdout.count('class="main-svg"') >= 4
