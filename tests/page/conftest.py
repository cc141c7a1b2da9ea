"""A real daemon with something to show, and a real browser that looks at it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.e2e.installed import Daemon, Host, write_files

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Give the browser of this machine."""
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.fail("no browser here: apt-get install chromium, or leave these tests out", False)
    # What is waited for comes sooner or later; a busy machine is no failure.
    expect.set_options(timeout=60_000)
    with sync_playwright() as driver:
        # Without a user namespace of its own, as in a container, Chromium's sandbox can't start.
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


class Scene:
    """A node whose store, snapshots and failures the test knows."""

    def __init__(self, root: Path) -> None:
        self.host = Host(root / "host")
        self.store = f"file://{root / 'store'}"
        self.ids = [self._push(root / f"tree-{number}", number) for number in range(2)]
        self.unknown = "ab" * 32

    def _push(self, tree: Path, number: int) -> str:
        write_files(tree, {f"f{each}": bytes([number, each]) * 1000 for each in range(5)})
        answer = self.host.snapctl("push", tree, "--store", self.store, "--json").document
        return str(answer["id"])

    def pull(self, snapshot_id: str) -> int:
        return self.host.snapctl("pull", "--id", snapshot_id, "--store", self.store).code


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def daemon(scene: Scene) -> Iterator[Daemon]:
    with scene.host.daemon("--store", scene.store) as daemon:
        assert scene.pull(scene.ids[0]) == 0
        assert (
            scene.host.snapctl("cache", "pin", scene.ids[0], "--reason", "--token=hush").code == 0
        )
        assert scene.pull(scene.unknown) == 10
        yield daemon
