"""Who let a name lead where it does, when and why."""

from __future__ import annotations

from snapd.model.datasets import Dataset
from snapd.model.models import Model
from snapd.model.receipts import parse_moment
from snapd.model.releases import Change


def change_behind(document: Model | Dataset, version: str) -> Change:
    """Tell who let a name lead to a version: the latest event about it."""
    if isinstance(document, Model):
        for event in reversed(document.history):
            if event.version == version:
                return Change(parse_moment(event.at), event.by, event.action, event.note)
        return Change(0.0)
    for each in document.versions:
        if each.version == version:
            return Change(parse_moment(each.at), each.by, "add", each.note)
    return Change(0.0)
