"""Keep secrets out of the record: by type, by name, by known value, and by shape.

A secret that one of these rules finds is hidden wherever else it appears, in the same value and in everything that this
process records later. Ordinary words and numbers are hidden only at the place where a rule finds them.
"""

from __future__ import annotations

from ivcap_flows.secrets.known import hide, hide_within
from ivcap_flows.secrets.logs import logger_of
from ivcap_flows.secrets.mask import HIDDEN
from ivcap_flows.secrets.names import is_secret_name
from ivcap_flows.secrets.scrubbing import holds_secret, scrub, scrub_alone, scrub_arguments, scrub_text
from ivcap_flows.secrets.types import is_secret_type

__all__ = [
    "HIDDEN",
    "hide",
    "hide_within",
    "holds_secret",
    "is_secret_name",
    "is_secret_type",
    "logger_of",
    "scrub",
    "scrub_alone",
    "scrub_arguments",
    "scrub_text",
]
