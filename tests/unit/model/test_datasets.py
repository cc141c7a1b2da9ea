from __future__ import annotations

import pytest

from snapd.model.datasets import Dataset, nearest
from snapd.model.errors import RegistryFull, RegistryRefused, VersionExists, VersionNotFound
from snapd.model.references import Reference, parse_reference
from snapd.model.registry import VERSIONS_MAX
from snapd.model.versions import parse_version
from tests.unit.model.registering import author, snapshot, v


def dataset(*texts: str) -> Dataset:
    made = Dataset("imagenet")
    for text in texts:
        made = made.add(parse_version(text), snapshot(text), author(text))
    return made


def test_a_version_never_leads_elsewhere() -> None:
    made = dataset("v1.0.0")
    with pytest.raises(VersionExists, match="it is ") as other:
        made.add(v(1), snapshot("another"), author())
    assert other.value.details["id"] == snapshot("v1.0.0")
    with pytest.raises(VersionExists, match="is this snapshot") as same:
        made.add(v(1), snapshot("v1.0.0"), author())
    assert "Nothing" in same.value.hint


def test_a_reference_leads_to_the_snapshot() -> None:
    found = dataset("v1.0.0", "v1.1.0").resolve(parse_reference("imagenet@1.1.0"))
    assert (found.version, found.snapshot_id) == ("v1.1.0", snapshot("v1.1.0"))
    assert (found.kind, found.stage, found.deprecated) == ("dataset", "", None)


def test_a_version_that_is_not_there_is_told_with_the_nearest() -> None:
    with pytest.raises(VersionNotFound) as near:
        dataset("v1.0.0", "v1.1.0").find(parse_version("v1.1.1"))
    assert near.value.details["nearest"][0] == "v1.1.0"
    with pytest.raises(VersionNotFound, match="production") as stage:
        dataset("v1.0.0").resolve(Reference("imagenet", "production"))
    assert "versions only" in stage.value.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prod", ("production",)),
        ("stagin", ("staging",)),
        ("zzz", ()),
        ("", ()),
    ],
)
def test_what_was_meant_is_close_or_longer(text: str, expected: tuple[str, ...]) -> None:
    known = ["dev", "staging", "production", "v1.0"]
    assert nearest(text, known) == expected


def test_a_deprecated_version_is_still_found_and_says_why() -> None:
    made = dataset("v1.0.0", "v1.1.0").deprecate(parse_version("v1.1.0"), author("mislabelled"))
    assert made.resolve(parse_reference("imagenet@v1.1.0")).deprecated == "mislabelled"
    assert made.find(parse_version("v1.1.0")).snapshot_id == snapshot("v1.1.0")
    with pytest.raises(RegistryRefused, match="deprecated already, by ann@host"):
        made.deprecate(parse_version("v1.1.0"), author())
    with pytest.raises(VersionNotFound):
        made.deprecate(v(9), author())


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ((), None),
        (("v1.0.0", "v1.10.0", "v1.9.0"), "v1.10.0"),
        (("v1.0.0", "v2.0.0-rc.1"), "v1.0.0"),
        (("v2.0.0-rc.1", "v2.0.0-rc.2"), "v2.0.0-rc.2"),
    ],
)
def test_the_latest_is_the_highest_release(texts: tuple[str, ...], expected: str | None) -> None:
    latest = dataset(*texts).latest()
    assert (latest.version if latest else None) == expected


def test_the_latest_is_not_deprecated() -> None:
    made = dataset("v1.0.0", "v2.0.0").deprecate(v(2), author())
    assert made.latest() == made.versions[0]


def test_a_change_is_known_by_its_token() -> None:
    added, deprecated = author(), author()
    made = Dataset("a").add(v(1), snapshot("1"), added)
    assert made.has_change(added.token)
    assert not made.has_change(deprecated.token)
    assert made.deprecate(v(1), deprecated).has_change(deprecated.token)


def test_there_are_only_so_many_versions() -> None:
    made = dataset("v1.0.0")
    many = tuple(made.versions[0] for _ in range(VERSIONS_MAX))
    full = Dataset("imagenet", many)
    full = Dataset.parse(
        Dataset(
            "imagenet",
            tuple(
                type(one)(f"v1.{number}.0", one.snapshot_id, one.at, one.by, "", "c")
                for number, one in enumerate(many)
            ),
        ).render()
    )
    with pytest.raises(RegistryFull, match="as many as there may be"):
        full.add(v(2), snapshot("2"), author())
