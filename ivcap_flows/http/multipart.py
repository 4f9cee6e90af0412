"""Encode a file for a form (RFC 7578)."""

from __future__ import annotations

import httpx

__all__ = ["file_form"]


def file_form(field: str, name: str, content: bytes, media_type: str) -> tuple[bytes, str]:
    """Return the body of a form with one file, and its Content-Type."""
    form = httpx.Request("POST", "http://form", files={field: (name, content, media_type)})
    return form.read(), form.headers["content-type"]
