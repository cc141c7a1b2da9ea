"""What the image is made from; `make image-test` builds and runs it."""

from __future__ import annotations

import re
import tomllib

from packaging.requirements import Requirement

from tests.deploy.rendering import ROOT

DEPLOY = ROOT / "deploy"


def pinned(name: str) -> dict[str, str]:
    """Read a lock: each package with its one version, and refuse a line without a hash."""
    entries = (DEPLOY / name).read_text().replace("\\\n", " ").splitlines()
    versions = {}
    for entry in entries:
        if found := re.match(r"([a-z0-9-]+)==([^ ;]+)", entry):
            assert "--hash=sha256:" in entry, entry
            versions[found[1]] = found[2]
        else:
            assert entry.startswith("#") or not entry.strip(), entry
    return versions


def test_the_lock_has_everything_that_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = pinned("requirements.lock")
    for text in [*project["dependencies"], *project["optional-dependencies"]["otel"]]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(versions[wanted.name]), (text, "run `make lock`")


def test_the_lock_of_the_build_has_what_builds() -> None:
    versions = pinned("build.lock")
    wanted = (DEPLOY / "build.in").read_text().splitlines()
    for text in wanted:
        if text and not text.startswith("#"):
            requirement = Requirement(text)
            assert requirement.specifier.contains(versions[requirement.name])
    backend = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert all(Requirement(text).name in versions for text in backend)


def test_nothing_but_what_is_named_goes_into_the_build() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (DEPLOY / "Dockerfile").read_text(), re.M)
    for name in " ".join(copied).split():
        allowed = f"!{name}" in ignored or (name.endswith(".lock") and "!deploy/*.lock" in ignored)
        assert allowed, name
        assert list(ROOT.glob(name)), name


def test_the_image_s_user_is_the_chart_s() -> None:
    values = (DEPLOY / "helm" / "snapsync" / "values.yaml").read_text()
    assert "\nuser: 10001\ngroup: 10001\n" in values
    assert "\nUSER 10001:10001\n" in (DEPLOY / "Dockerfile").read_text()


def test_every_version_is_the_project_s() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = (DEPLOY / "helm" / "snapsync" / "Chart.yaml").read_text()
    assert f'version: {version}\nappVersion: "{version}"\n' in chart
    for path in (DEPLOY / "kubernetes").rglob("*.yaml"):
        for tag in re.findall(r"image: snapsync:(\S+)", path.read_text()):
            assert tag == version, path
