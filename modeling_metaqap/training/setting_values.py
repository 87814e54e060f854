"""Settings as YAML reads them: each has the type that its dataclass says."""

import math
from collections.abc import Mapping
from dataclasses import fields
from types import UnionType
from typing import Any

from ..data.rating_options import checked_range
from ..errors import MetaQAPError


def checked_settings(values: Mapping[str, Any], dataclass: type, *, owner: str, where: str) -> dict[str, Any]:
    """Settings for a dataclass, numbers as numbers of their type.

    Args:
        values: by name.
        dataclass: that knows the names and types.
        owner: whose settings they are, for messages, such as "The recipe recipe.yaml".
        where: they stand, for messages, such as "in recipe.yaml".

    Raises:
        MetaQAPError: for a name that is not known or a value of another type.
    """
    known = {field.name: field.type for field in fields(dataclass)}
    if unknown := sorted(set(values) - set(known)):
        raise MetaQAPError(f"{owner} has an unknown setting {unknown[0]!r}; known are {sorted(known)}.")
    return {name: _checked(name, value, known[name], where) for name, value in values.items()}


def _checked(name: str, value: Any, kind: Any, where: str) -> Any:
    if value is None and isinstance(kind, UnionType):
        return value
    # YAML reads 1e-4 (without a dot) as text.
    if kind in (float, float | None):
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise MetaQAPError(f"`{name}` {where} must be a number, got {value!r}.")
        return number
    if kind is int and (isinstance(value, bool) or not isinstance(value, int)):
        raise MetaQAPError(f"`{name}` {where} must be a whole number, got {value!r}.")
    if kind in (str, str | None) and not isinstance(value, str):
        raise MetaQAPError(f"`{name}` {where} must be a text, got {value!r}.")
    if name == "mos_range":
        return list(checked_range(value, where=f" {where}"))
    if kind is bool and not isinstance(value, bool):
        raise MetaQAPError(f"`{name}` {where} must be true or false, got {value!r}.")
    return value


__all__ = ["checked_settings"]
