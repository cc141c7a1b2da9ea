"""The page in a real browser. `SNAPSYNC_SCREENSHOTS` names a directory that keeps what it saw."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.e2e.installed import COMMAND_SECONDS, Daemon, Host, write_files
from tests.page.conftest import Scene

pytestmark = pytest.mark.browser

SIZES = {"phone": (360, 780), "desk": (1280, 900)}
CONTRAST = """
() => {
  const linear = (value) => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const channel = (value) => linear(value / 255);
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const color = parse(getComputedStyle(each).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const texts = [...element.childNodes].filter((node) => node.nodeType === 3);
    if (!texts.some((node) => node.textContent.trim())) continue;
    if (!element.checkVisibility() || element.closest("svg, noscript")) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(ground(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) poor.push([element.className, element.textContent, contrast]);
  }
  return poor;
}
"""


class Look:
    """One tab, and everything that went wrong in it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    def open(self) -> None:
        self.page.goto(self.url)
        expect(self.page.locator("#state-text")).to_have_text("Ready")


@pytest.fixture(params=[(size, scheme) for size in SIZES for scheme in ("light", "dark")], ids=str)
def any_look(request: pytest.FixtureRequest, browser: Browser, daemon: Daemon) -> Iterator[Look]:
    size, scheme = request.param
    yield from looking(browser, daemon, size, scheme)


@pytest.fixture
def look(browser: Browser, daemon: Daemon) -> Iterator[Look]:
    yield from looking(browser, daemon, "desk", "light")


def looking(browser: Browser, daemon: Daemon, size: str, scheme: Any) -> Iterator[Look]:
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, locale="en"
    )
    look = Look(context.new_page(), f"http://{daemon.status['listen']}/")
    yield look
    if directory := os.environ.get("SNAPSYNC_SCREENSHOTS"):
        look.page.screenshot(path=Path(directory) / f"{size}-{scheme}.png", full_page=True)
    context.close()
    assert look.complaints == [], "the browser has nothing to complain of"


def test_it_shows_what_the_node_holds(any_look: Look, scene: Scene) -> None:
    any_look.open()
    page = any_look.page
    row = page.locator("#snapshot-rows tr")
    expect(row).to_have_count(1)
    for text in (scene.ids[0][:12], scene.store, "9.77 KiB", "1 pin"):
        expect(row).to_contain_text(text)
    expect(row).to_contain_text(re.compile(r"given out, (60|5\d) min left"))
    failure = page.locator(".failure")
    expect(failure).to_contain_text("no_such_snapshot")
    expect(failure.locator("code")).to_have_text("snapctl push")
    expect(page.locator("#no-pulls")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "fits the screen"
    assert page.evaluate(CONTRAST) == []


def test_nothing_is_asked_of_anybody_else(look: Look) -> None:
    look.open()
    assert {url for url in look.asked if not url.startswith(look.url)} == set()


def test_no_secret_and_no_command_line_is_shown(look: Look) -> None:
    look.open()
    answer = look.page.request.get(f"{look.url}v1/overview").text()
    assert "hush" not in answer
    assert "hush" not in look.page.content()


def test_a_pull_that_begins_shows_without_a_reload(look: Look, scene: Scene) -> None:
    look.open()
    assert scene.pull(scene.ids[1]) == 0
    expect(look.page.locator("#snapshot-rows tr")).to_have_count(2)
    expect(look.page.locator("#count")).to_have_text("2")


RUNNING: dict[str, Any] = {
    "job_id": "j1",
    "snapshot_id": "cd" * 32,
    "store": "s3://datasets/<img src=x onerror=alert(1)>",
    "state": "fetching",
    "queue_position": 0,
    "bytes_done": 250,
    "bytes_total": 1000,
    "objects_done": 1,
    "objects_total": 4,
    "bytes_per_second": 2048.0,
    "eta_seconds": 75.0,
    "retries": 1,
    "waiters": 2,
    "created_at": 1.0,
}


def show(look: Look, **changes: Any) -> None:
    """Let the daemon's real overview have other words in some places."""

    def answer(route: Route) -> None:
        document = route.fetch().json()
        route.fulfill(json=document | changes)

    look.page.unroute_all()
    look.page.route("**/v1/overview", answer)


def test_a_running_pull_has_a_bar_that_can_be_heard(look: Look) -> None:
    show(look, pulls=[RUNNING], pulls_running=1)
    look.open()
    pull = look.page.locator(".pull")
    for text in ("Fetching", "25 %", "250 B of 1000 B, 1 of 4 objects", "2.00 KiB/s", "1 min 15 s"):
        expect(pull).to_contain_text(text)
    expect(look.page.get_by_role("progressbar", name="Pull of cdcdcdcdcdcd")).to_have_attribute(
        "value", "250"
    )
    expect(look.page).to_have_title(re.compile(r"2\.00 KiB/s . .+ . snapsync"))
    show(look, pulls=[], pulls_running=0)
    expect(look.page.locator("#news")).to_have_text("Pull of cdcdcdcd ended.")


def test_a_pull_is_watched_while_it_runs(browser: Browser, tmp_path: Path) -> None:
    host, store = Host(tmp_path / "host"), f"file://{tmp_path / 'store'}"
    tree = write_files(tmp_path / "tree", {f"f{n}": os.urandom(100_000) for n in range(60)})
    snapshot_id = host.snapctl("push", tree, "--store", store).stdout.strip()
    config = f'[daemon]\nlisten = "127.0.0.1:0"\nstores = ["{store}"]\n'
    config += '[transfer]\nbytes_per_second = "100K"\n'
    with (
        host.daemon(config=config) as daemon,
        contextmanager(looking)(browser, daemon, "desk", "dark") as look,
    ):
        pulling = host.start("snapctl", "pull", "--id", snapshot_id, "--store", store, "--quiet")
        look.open()
        pull = look.page.locator(".pull")
        expect(pull.locator(".percent")).to_have_text(re.compile(r"[1-9]\d? %"))
        expect(pull).to_contain_text("Fetching")
        expect(pull).to_contain_text(re.compile(r"[1-9][\d.]* KiB/s . .*left"))
        bar = pull.get_by_role("progressbar").element_handle()
        seen = bar.evaluate("bar => bar.value")
        look.page.wait_for_function("([bar, seen]) => bar.value > seen", arg=[bar, seen])
        expect(look.page.locator("#chart-text")).to_contain_text(re.compile(r"at most [1-9]"))
        if directory := os.environ.get("SNAPSYNC_SCREENSHOTS"):
            look.page.screenshot(path=Path(directory) / "pull.png", full_page=True)
        pulling.terminate()
        pulling.communicate(timeout=COMMAND_SECONDS)
        expect(look.page.locator("#no-pulls")).to_be_visible(timeout=20_000)


def test_names_are_text_whatever_they_are(look: Look) -> None:
    show(look, pulls=[RUNNING], host="<script>alert(1)</script>")
    look.open()
    expect(look.page.locator("#host")).to_have_text("<script>alert(1)</script>")
    expect(look.page.locator(".pull .where")).to_have_text(RUNNING["store"])
    assert look.page.locator("main img").count() == 0


def test_a_daemon_that_is_away_is_said_to_be(look: Look) -> None:
    look.open()
    look.page.route("**/v1/overview", lambda route: route.fulfill(status=503, body=json.dumps({})))
    expect(look.page.locator("#state-text")).to_have_text("No answer")
    look.page.unroute_all()
    expect(look.page.locator("#state-text")).to_have_text("Ready")
    look.complaints.clear()


def test_everything_can_be_reached_by_keyboard(look: Look, scene: Scene) -> None:
    look.open()
    expect(look.page.locator("#snapshot-rows tr").first).to_be_visible()
    reached = []
    for _ in range(12):
        look.page.keyboard.press("Tab")
        reached.append(
            look.page.evaluate(
                "document.activeElement.getAttribute('aria-label')"
                " || document.activeElement.textContent.trim().slice(0, 30)"
            )
        )
    assert reached[0] == "Skip to the pulls"
    assert f"Copy the snapshot ID that begins with {scene.ids[0][:12]}" in reached
    assert {"Metrics", "Overview as JSON", "API"} <= set(reached)


def test_it_speaks_in_landmarks_and_headings(look: Look) -> None:
    look.open()
    for role in ("banner", "main", "contentinfo", "status"):
        expect(look.page.get_by_role(role)).to_have_count(1)
    headings = look.page.get_by_role("heading", level=2).all_inner_texts()
    assert headings == [
        "Fetched per second",
        "Pulls",
        "Recent failures",
        "Disk",
        "Snapshots on this node",
    ]
    expect(look.page.get_by_role("img", name="Bytes fetched per second over")).to_have_count(1)
