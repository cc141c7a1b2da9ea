"""The text of a run as it is typed or printed: YAML or JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from snapd.model.errors import UsageError
from snapd.model.runs import RUN_MAX_BYTES
from snapd.model.written_runs import TYPED

if TYPE_CHECKING:
    import yaml

_DEPTH_MAX = 64


def read_run_text(data: bytes) -> dict[str, Any]:
    """Read a mapping from JSON or YAML; raises `UsageError` saying what it is instead.

    In YAML a word that looks like a number is a text, but for fields in which it may be one.
    """
    if len(data) > RUN_MAX_BYTES:
        raise UsageError(
            f"the run has more than {RUN_MAX_BYTES} bytes",
            hint="Put long lists into a file of an output, and record that.",
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"the run is no UTF-8 text: {error.reason}") from error
    document = _json(text) if text.lstrip().startswith("{") else None
    if document is None:
        document = _yaml(text)
    if not isinstance(document, dict):
        raise UsageError("the run is no mapping of fields", hint="See docs/runs.md.")
    return {str(key): value for key, value in document.items()}


def render_yaml(document: dict[str, Any]) -> str:
    """Render as YAML, in the order of the document."""
    import yaml

    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)


def _json(text: str) -> Any:
    """Read JSON; None if it is none, for YAML may begin with a brace, too."""
    try:
        return json.loads(text)
    except ValueError:
        return None
    except RecursionError as error:
        raise UsageError("the run is nested too deep") from error


def _yaml(text: str) -> Any:
    import yaml

    try:
        _check_depth(text)
        typed = yaml.load(text, _loader("SafeLoader"))
        plain = yaml.load(text, _loader("BaseLoader"))
    except yaml.YAMLError as error:
        said = " ".join(str(error).split())[:200]
        raise UsageError(f"the run is neither YAML nor JSON: {said}") from error
    except (RecursionError, ValueError) as error:
        raise UsageError(f"the run can't be read: {error}") from error
    if not isinstance(typed, dict) or not isinstance(plain, dict):
        return typed
    return plain | {key: value for key, value in typed.items() if key in TYPED}


def _check_depth(text: str) -> None:
    """Refuse what is nested so deep that making values of it would exhaust the stack."""
    import yaml

    depth = 0
    for event in yaml.parse(text, _loader("SafeLoader")):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEPTH_MAX:
                raise UsageError("the run is nested too deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _loader(name: str) -> type[yaml.SafeLoader]:
    """Choose the loader in C if there is one."""
    import yaml

    found: type[yaml.SafeLoader] = getattr(yaml, f"C{name}", None) or getattr(yaml, name)
    return found
