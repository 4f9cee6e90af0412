"""How the blocks look in Prefect's web interface: logos, forms, and the pages that "View Docs" leads to."""

from __future__ import annotations

from typing import Any, Final

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

__all__ = ["IVCAP_LOGO", "PROVENA_LOGO", "documentation", "form"]

_PROJECT: Final = "ivcap-works/ivcap-flows"
_IMAGES: Final = f"https://raw.githubusercontent.com/{_PROJECT}/main/docs/images"

IVCAP_LOGO: Final = f"{_IMAGES}/block-ivcap-200x200.png"
PROVENA_LOGO: Final = f"{_IMAGES}/block-provena-200x200.png"


def documentation(page: str) -> str:
    """Return the address of a page of `docs/how-to`."""
    return f"https://github.com/{_PROJECT}/blob/main/docs/how-to/{page}.md"


def form(*required: str) -> Any:
    """Return the method by which a model makes its schema, for a form that requires these fields, whatever code may
    leave out.

    A field that may be None is one that may be left empty: the form would else ask for its type, `string` or `null`.
    """

    def schema_of(cls: Any, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core))
        for name, field in schema["properties"].items():
            if name in required or field.get("default", name) is None:
                field.pop("default", None)
            given = [each for each in field.get("anyOf", ()) if each != {"type": "null"}]
            if len(given) == 1:
                del field["anyOf"]
                field |= given[0]
        schema["required"] = list(required)
        return schema

    return classmethod(schema_of)
