"""Keep secrets out of what is recorded: by type, by name, by known value, and by shape.

What one of these rules finds is hidden wherever else it stands, in the same value and in all that this process records
later. Ordinary words and numbers are hidden at their place only.
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
