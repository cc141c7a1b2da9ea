"""The units: what they promise, that they fit each other, and what systemd itself says of them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from snapd.__main__ import read_words
from snapd.model.places import SYSTEM_PLACES
from tests.e2e.installed import BIN

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
EXPOSURE_MAX = 2.0


def read(name: str) -> dict[str, dict[str, list[str]]]:
    """Read a unit: every value of every key of every section."""
    found: dict[str, dict[str, list[str]]] = {}
    section: dict[str, list[str]] = {}
    for line in (UNITS / name).read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            section = found.setdefault(heading[1], {})
            continue
        key, separator, value = line.partition("=")
        assert separator, line
        assert key == key.strip(), line
        section.setdefault(key, []).append(value)
    return found


def words(name: str) -> list[list[str]]:
    lines = (UNITS / name).read_text().splitlines()
    return [shlex.split(line) for line in lines if line and not line.startswith("#")]


def test_the_service_starts_what_the_command_line_understands() -> None:
    service = read("snapsync.service")["Service"]
    program, *arguments = shlex.split(service["ExecStart"][0])
    environment = dict(word.split("=", 1) for word in service["Environment"][0].split())
    said = read_words(arguments, environment)
    assert Path(program).name == "snapd"
    assert said.config == str(SYSTEM_PLACES.config_file)
    assert said.socket == str(SYSTEM_PLACES.socket)
    assert said.cache_dir == str(SYSTEM_PLACES.cache_dir)


def test_the_parts_fit_each_other() -> None:
    service, listener = read("snapsync.service"), read("snapsync.socket")["Socket"]
    assert listener["ListenStream"] == [str(SYSTEM_PLACES.socket)]
    assert f"/var/lib/{service['Service']['StateDirectory'][0]}" == str(SYSTEM_PLACES.cache_dir)
    assert f"/run/{service['Service']['RuntimeDirectory'][0]}" == str(SYSTEM_PLACES.socket.parent)
    assert service["Install"]["Also"] == ["snapsync.socket"]
    ((kind, user, *_),) = words("snapsync.sysusers")
    assert kind == "u"
    assert [user] == service["Service"]["User"] == listener["SocketGroup"]
    made = {line[1]: line[3] for line in words("snapsync.tmpfiles")}
    assert made[str(SYSTEM_PLACES.socket.parent)] == user
    assert made["/run/snapsync-jobs"] == "root"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Type", "notify"),
        ("WatchdogSec", "30"),
        ("KillMode", "mixed"),
        ("Restart", "on-failure"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("ProtectSystem", "strict"),
        ("RuntimeDirectoryPreserve", "yes"),
        ("StateDirectoryMode", "0755"),
    ],
)
def test_the_service_promises(key: str, value: str) -> None:
    assert read("snapsync.service")["Service"][key] == [value]


def test_what_would_break_leases_is_not_used() -> None:
    service = read("snapsync.service")["Service"]
    for key in ("PrivateUsers", "PrivateTmp", "ProcSubset", "DynamicUser", "PrivatePIDs"):
        assert key not in service
    assert service["ProtectProc"] == ["default"]


@pytest.fixture
def analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("NOT CHECKED BY SYSTEMD: systemd-analyze is not installed here")
    return found


def test_systemd_finds_nothing_to_complain_about(analyze: str, tmp_path: Path) -> None:
    for unit in UNITS.glob("snapsync.s[eo]*"):
        text = unit.read_text().replace("/usr/bin/snapd", str(BIN / "snapd"))
        (tmp_path / unit.name).write_text(text)
    names = [str(tmp_path / "snapsync.service"), str(tmp_path / "snapsync.socket")]
    ran = subprocess.run(
        [analyze, "verify", "--man=no", *names], capture_output=True, text=True, check=False
    )
    # It says so of unknown keys, and exits well.
    ours = [line for line in ran.stderr.splitlines() if "snapsync" in line]
    assert (ran.returncode, ours) == (0, [])


def test_systemd_rates_the_hardening_well(analyze: str) -> None:
    ran = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", str(UNITS / "snapsync.service")],
        capture_output=True,
        text=True,
        check=False,
    )
    rated = re.search(r"exposure level for snapsync.service: ([0-9.]+)", ran.stdout)
    assert rated is not None, ran
    assert float(rated[1]) <= EXPOSURE_MAX, ran.stdout
