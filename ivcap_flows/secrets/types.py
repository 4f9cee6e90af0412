"""Types that hold secrets, and the texts that they hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, Secret, SecretBytes, SecretStr

__all__ = ["is_secret_type", "secrets_of"]


@lru_cache(maxsize=4096)
def is_secret_type(kind: type) -> bool:
    """Whether a type is a secret of pydantic or of Prefect. Prefect's are known by name, without an import."""
    names = {(base.__module__.partition(".")[0], base.__name__) for base in kind.__mro__}
    return issubclass(kind, Secret | SecretStr | SecretBytes) or bool(
        names & {("prefect", "Secret"), ("prefect", "SecretDict")}
    )


def secrets_of(value: Any, depth: int = 4) -> Iterator[str]:
    """Yield the texts in a value of a secret type, or in the fields of a model; none for other values."""
    kind: type = type(value)
    if is_secret_type(kind):
        get = getattr(value, "get_secret_value", None) or getattr(value, "get", None)
        yield from _texts(get() if get is not None else None, depth)
    elif isinstance(value, BaseModel) and depth:
        for name in type(value).model_fields:
            yield from secrets_of(getattr(value, name, None), depth - 1)


def _texts(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes):
        yield value.decode(errors="replace")
    elif isinstance(value, Mapping | list | tuple) and depth:
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(inner, depth - 1)
    else:
        yield from secrets_of(value, depth)
