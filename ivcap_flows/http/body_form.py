"""What the beginning of a body shows it to be, since a service may answer 200 with an error instead of a file. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

from ivcap_flows.media_types import UNKNOWN, essence

__all__ = ["LOOK", "Form", "form_of", "forms_of", "is_page", "media_type_of_form"]

Form = Literal["a web page", "XML", "JSON"]

LOOK: Final = 64 * 1024
"""The bytes that are looked at. An error is shorter."""

_LEAD: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*)*", re.DOTALL)
# The patterns of WHATWG's "MIME Sniffing", without the header of a table such as <A>,<B>.
_PAGE: Final = re.compile(rb"<(?:!doctype html|html|head|body)(?:\s|>(?![,;\t]))", re.IGNORECASE)
_PART_OF_A_PAGE: Final = re.compile(
    rb"<(?:script|iframe|h1|div|font|table|a|style|title|b|br|p)(?:\s+[\w-]+\s*=|\s*/?>(?![,;\t]))", re.IGNORECASE
)
_XML: Final = re.compile(
    rb"<\?xml\s|<([a-z_][\w.:-]*)(?:\s[^<>]*)?(?:/>\s*\Z|>(?![,;\t]).*</\1\s*>\s*\Z)", re.DOTALL | re.IGNORECASE
)
_JSON: Final = re.compile(rb'\[\s*\]\s*\Z|\{\s*\}\s*\Z|(?:\[\s*)?\{\s*"(?:[^"\\]|\\.)*"\s*:', re.DOTALL)

_FORMS: Final[Mapping[str, frozenset[Form]]] = {
    "text/html": frozenset({"a web page", "XML"}),
    "application/xhtml+xml": frozenset({"a web page", "XML"}),
    "application/vnd.ms-excel": frozenset({"a web page", "XML"}),  # which Excel opens, and many services write
    "application/yaml": frozenset({"JSON"}),
}
_OF_FORM: Final[Mapping[Form, str]] = {
    "a web page": "text/html",
    "XML": "application/xml",
    "JSON": "application/json",
}


def is_page(media_type: str) -> bool:
    """Return whether a server states that it sends a web page."""
    return essence(media_type) in ("text/html", "application/xhtml+xml")


def form_of(head: bytes, media_type: str = "") -> Form | None:
    """Return the form of a body by its first `LOOK` bytes; None is any other. The server states the media type."""
    lead = _LEAD.match(head)
    assert lead is not None
    body = head[lead.end() :]
    if _PAGE.match(body):
        return "a web page"
    if b"\t" in lead[0]:
        return None  # which may be the empty cell of a table
    if is_page(media_type) and _PART_OF_A_PAGE.match(body):
        return "a web page"
    if _XML.match(body):
        return "XML"
    return "JSON" if _JSON.match(body) else None


def forms_of(media_type: str) -> frozenset[Form] | None:
    """Return the forms that a body of a media type may have; None if any is right, as for plain text."""
    kind = essence(media_type)
    if kind in _FORMS:
        return _FORMS[kind]
    if kind.endswith("xml"):
        return frozenset({"XML"})
    if "json" in kind:
        return frozenset({"JSON"})
    table = kind in ("text/csv", "text/tab-separated-values")
    return None if kind == UNKNOWN or (kind.startswith("text/") and not table) else frozenset()


def media_type_of_form(form: Form) -> str:
    """Return the media type by which a caller says that this form is right."""
    return _OF_FORM[form]
