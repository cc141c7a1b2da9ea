"""JSON schemas of what goes over the wire, made from the records that are rendered there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, NewType, Union, get_args, get_origin, get_type_hints

Schema = dict[str, Any]

_PLAIN: Mapping[Any, Schema] = MappingProxyType(
    {
        str: {"type": "string"},
        int: {"type": "integer"},
        float: {"type": "number"},
        bool: {"type": "boolean"},
        NoneType: {"type": "null"},
        Any: {},
    }
)


class Schemas:
    """The named schemas of one document; a record is described once and referred to."""

    def __init__(self) -> None:
        self.named: dict[str, Schema] = {}

    def of(self, hint: Any) -> Schema:
        """Describe a type as JSON carries it: tuples are arrays, records are objects."""
        if isinstance(hint, NewType):
            return self.of(hint.__supertype__)
        if isinstance(hint, type) and (is_dataclass(hint) or hasattr(hint, "_fields")):
            return self._named(hint)
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is Literal:
            return {"type": "string", "enum": list(arguments)}
        if origin in (Union, UnionType):
            return {"anyOf": [self.of(each) for each in arguments]}
        if origin in (tuple, list):
            return {"type": "array", "items": self.of(arguments[0])}
        if origin is dict:
            return {"type": "object"}
        return dict(_PLAIN[hint])

    def _named(self, kind: type) -> Schema:
        name = kind.__name__
        if name not in self.named:
            self.named[name] = {}
            hints = get_type_hints(kind)
            names = _names(kind)
            self.named[name] = {
                "type": "object",
                "description": (kind.__doc__ or "").split("\n\n")[0].replace("\n", " ").strip(),
                "properties": {each: self.of(hints[each]) for each in names},
                "required": names,
            }
        return {"$ref": f"#/components/schemas/{name}"}


def _names(kind: Any) -> list[str]:
    return [field.name for field in fields(kind)] if is_dataclass(kind) else list(kind._fields)
