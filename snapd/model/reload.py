"""What of a changed configuration can take effect in a running daemon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

from snapd.model.settings import Settings

RELOADABLE: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "daemon": frozenset({"stores", "pulls_running_max", "pulls_queued_max", "grace_seconds"}),
        "cache": frozenset(
            {
                "max_bytes",
                "min_free_bytes",
                "high_watermark",
                "low_watermark",
                "lease_seconds",
                "orphan_seconds",
            }
        ),
        "access": frozenset({"read", "pull", "administer"}),
        "scrub": frozenset({"bytes_per_second", "interval_seconds"}),
        "log": frozenset({"format", "level"}),
    }
)
"""Section -> keys that a reload changes; every other key needs a restart."""


@dataclass(frozen=True, slots=True)
class Reload:
    """The settings to run with from now on, and the keys that differ, as `section.key`."""

    settings: Settings
    changed: tuple[str, ...]
    need_restart: tuple[str, ...]


def plan_reload(running: Settings, wanted: Settings) -> Reload:
    """Take over from `wanted` what can change while running.

    What needs a restart keeps its running value, so it is reported again by the next reload.
    """
    settings = running
    changed: list[str] = []
    need_restart: list[str] = []
    for section in ("daemon", "access", "cache", "scrub", "transfer", "log", "tracing"):
        old, new = getattr(running, section), getattr(wanted, section)
        differing = _differing(old, new)
        reloadable = [key for key in differing if key in RELOADABLE.get(section, ())]
        taken = replace(old, **{key: getattr(new, key) for key in reloadable})
        settings = replace(settings, **{section: taken})
        changed += [f"{section}.{key}" for key in reloadable]
        need_restart += [f"{section}.{key}" for key in differing if key not in reloadable]
    if running.follows != wanted.follows:
        settings = replace(settings, follows=wanted.follows)
        changed.append("follow")
    if running.stores != wanted.stores:
        need_restart.append("store")
    return Reload(settings, tuple(changed), tuple(need_restart))


def _differing(old: Any, new: Any) -> list[str]:
    names = [field.name for field in fields(old)]
    return [name for name in names if getattr(old, name) != getattr(new, name)]
