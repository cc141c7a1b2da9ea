"""What a daemon says where there is no fs-verity; where there is: `make guest-test`."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.installed import Host


@pytest.fixture
def unsealable() -> Iterator[Path]:
    """A directory on tmpfs, which has no fs-verity whatever the kernel."""
    directory = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="seal-"))
    yield directory
    shutil.rmtree(directory)


def config_of(cache: Path, seal: str) -> str:
    return (
        f'[daemon]\nstores = ["*"]\nlisten = ""\n[cache]\ndirectory = "{cache}"\nseal = "{seal}"\n'
    )


@pytest.mark.parametrize(
    ("seal", "words"), [("auto", "no fs-verity"), ("off", "switched off by `[cache] seal`")]
)
def test_status_and_log_say_that_objects_are_not_sealed(
    host: Host, unsealable: Path, seal: str, words: str
) -> None:
    host.variables["SNAPSYNC_CACHE_DIR"] = str(unsealable)
    with host.daemon(config=config_of(unsealable, seal)) as daemon:
        told = daemon.status["seal"]
        assert (told["mode"], told["active"]) == (seal, False)
        assert words in told["reason"]
        assert f"no: {told['reason']}" in host.snapctl("status").stdout
        lines = [json.loads(line) for line in daemon.log_text().splitlines()]
        (said,) = [line for line in lines if "not sealed" in json.dumps(line)]
        assert told["reason"] in json.dumps(said)


def test_a_daemon_that_must_seal_does_not_start_where_it_can_not(
    host: Host, unsealable: Path
) -> None:
    host.variables["SNAPSYNC_CACHE_DIR"] = str(unsealable)
    config = host.root / "require.toml"
    host.environment()
    config.write_text(config_of(unsealable, "require"))
    ran = host.run("snapd", "--config", config)
    assert ran.code == 1
    assert "requires fs-verity" in ran.stderr
    assert "cache_unusable" in ran.stderr
