"""Keep secrets out of the record: by type, by name, by known value, and by shape.

A secret that one of these rules finds is hidden wherever else it appears, in the same value and in everything that this
process records later. Ordinary words and numbers are hidden only at the place where a rule finds them. A file that is
to leave is not changed: if it holds a secret, it stays.
"""

from __future__ import annotations

from ivcap_flows.secrets.contents import place_of_secret
from ivcap_flows.secrets.rules import HIDDEN, is_secret_name
from ivcap_flows.secrets.scrubbing import (
    hide,
    hide_within,
    holds_secret,
    is_secret_type,
    logger_of,
    scrub,
    scrub_alone,
    scrub_arguments,
    scrub_text,
)

__all__ = [
    "HIDDEN",
    "hide",
    "hide_within",
    "holds_secret",
    "is_secret_name",
    "is_secret_type",
    "logger_of",
    "place_of_secret",
    "scrub",
    "scrub_alone",
    "scrub_arguments",
    "scrub_text",
]
