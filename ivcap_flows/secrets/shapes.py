"""The shapes of secrets in a text: tokens by their prefixes, keys, and what is assigned to a secret name.

The prefixes are those that GitHub, GitLab, AWS, Azure, Google, Slack, PyPI, npm, Stripe, SendGrid, OpenAI, Anthropic,
Hugging Face and Prefect document for their tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ivcap_flows.secrets.mask import HIDDEN
from ivcap_flows.secrets.names import NAME_HINTS, is_secret_name, signs

__all__ = ["HINTS", "SHAPES", "Found", "Hints", "Shape", "hints_in", "holds_token", "without_shapes"]

Found = Callable[[str], str]
"""Takes each secret that is found. Returns its replacement."""


@dataclass(frozen=True)
class Shape:
    """Tokens that are recognised by themselves. A text without any of `hints` has none."""

    name: str
    hints: tuple[str, ...]
    pattern: re.Pattern[str]


def _shape(name: str, hints: str, pattern: str, flags: int = 0) -> Shape:
    return Shape(name, tuple(hints.split()), re.compile(pattern, flags))


SHAPES: Final = [
    _shape("JWT", "eyJ", r"\beyJ[\w-]{5,}(?:\.[\w-]+){1,4}"),
    _shape(
        "GitHub", "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_", r"\b(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_\w{22,255})"
    ),
    _shape("GitLab", "glpat- gldt- glft- glsoat- glrt- glptt-", r"\bgl(?:pat|dt|ft|soat|rt|ptt)-[\w-]{20,}"),
    _shape("AWS", "A3T AKIA ASIA ABIA ACCA", r"\b(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b"),
    # The key of a storage account is 64 bytes in Base64. So is a SHA-512 digest, which has a prefix that says so.
    _shape("Azure", "== Q~", r"(?<![\w/+-])[A-Za-z0-9+/]{86}==|\b[\w~.]{3}\dQ~[\w~.-]{31,34}"),
    _shape(
        "GCP",
        "AIza ya29. 1// GOCSPX-",
        r"\bAIza[\w-]{35}(?![\w-])|\bya29\.[\w-]{20,}|(?<!\d)1//[\w-]{30,}|\bGOCSPX-[\w-]{20,}",
    ),
    _shape(
        "Slack",
        "xoxa- xoxb- xoxe- xoxo- xoxp- xoxr- xoxs- xapp- hooks.slack.com",
        r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}|\bxapp-\d-[A-Za-z0-9-]{10,}"
        r"|(?<=hooks\.slack\.com/)(?:services|workflows|triggers)/[\w/+-]{20,}",
    ),
    # If a text was cut, the key may lack its end. Line breaks may be written as `\n`.
    _shape(
        "private key",
        "PRIVATE PuTTY-User-Key-File",
        r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\Z)"
        r"|PuTTY-User-Key-File-\d:.*?(?:Private-MAC: \w+|\Z)",
        re.DOTALL,
    ),
    _shape("PyPI", "pypi-", r"\bpypi-A[\w-]{70,}"),
    _shape("npm", "npm_", r"\bnpm_[A-Za-z0-9]{36}\b"),
    _shape("Stripe", "_live_ _test_", r"\b[rsp]k_(?:live|test)_[A-Za-z0-9]{20,}"),
    _shape("SendGrid", "SG.", r"\bSG\.[\w-]{20,24}\.[\w-]{39,50}"),
    _shape(
        "OpenAI, Anthropic",
        "T3BlbkFJ sk-proj- sk-svcacct- sk-admin- sk-ant-",
        r"\bsk-[\w-]*T3BlbkFJ[\w-]+|\bsk-(?:proj|svcacct|admin|ant)-[\w-]{20,}",
    ),
    _shape("Hugging Face", "hf_", r"\bhf_[A-Za-z]{34}\b"),
    _shape("Prefect", "pnu_ pnb_", r"\bpn[ub]_[A-Za-z0-9]{36}\b"),
]


@dataclass(frozen=True)
class Hints:
    """Signs of a secret in a text: `exact` as they are written, `lower` in any case."""

    exact: tuple[str, ...]
    lower: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.exact or self.lower)


HINTS: Final = Hints((*(hint for shape in SHAPES for hint in shape.hints), "@"), (*NAME_HINTS, "sig", "basic"))
_GIVEN: Final = re.compile(r"[=:\s]|(?:\A|\0)-")
"""Separators between a name and its secret, and the start of an option, after which a secret may follow."""

_END: Final = r"(?=[).,:;!?\]}]*(?:[\s;\"'<>]|\Z)|,[\w.-]+=)"
"""What ends a bare secret: punctuation of the text around it, or a comma and the next name. Both are left standing."""
_NAME: Final = rf"[\w.-]{{0,60}}(?:{'|'.join(NAME_HINTS)})[\w.-]{{0,60}}"
_QUOTED: Final = r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'"
# The last `@` before the path counts, since many passwords contain an unescaped one.
_USERINFO: Final = re.compile(r"(?<=://)[^/\s:@]*:(?P<secret>[^\s/?#'\"]*)(?=@)")
_QUERY: Final = re.compile(r"(?<=[?&])(?P<name>[^=&#\s]+)=(?P<secret>[^&#\s'\"<>]+)")
_BEARER: Final = re.compile(
    r"(?i:\bbearer)\s+(?P<secret>(?=\S*[\d=+/_])[A-Za-z0-9._~+/=-]{12,})"
    r"|(?i:\bbasic)\s+(?P<basic>(?=\S*(?:\d|=|[a-z][A-Z]))[A-Za-z0-9+/]{12,}={0,2})(?![\w-])"
)
_ASSIGNED: Final = re.compile(
    # `password=x`, `password = "x"`, and `"password": "x"`; a colon between bare words is prose, or a URN.
    rf"(?<![?&\w.-])(?P<name>{_NAME})[\"'`]?(?:\s*(?::=|=>|=)\s*(?=\S)|\s*:\s*(?=[\"']))"
    rf"(?P<secret>{_QUOTED}|[^\s;\"'<>]+?{_END})",
    re.IGNORECASE,
)
_HEADER: Final = re.compile(
    r"(?i:\b(?:(?:proxy-)?authorization|x-api-key|api-key|x-auth-token|(?:set-)?cookie))[\"']?:[ \t]*"
    rf"(?:(?i:bearer|basic|token)[ \t]+(?P<credentials>[^\s\"',]+?{_END})|(?P<secret>[^\s\"',]*\d[^\s\"',]*?{_END}))"
)
_OPTION: Final = re.compile(
    # In a command line, and in the `repr` of a list of arguments.
    rf"(?<![\w-])(?P<name>--?{_NAME})(?:[\"'],?\s+[\"'](?P<secret>[^\"']+)|\s+(?P<bare>[^\s\"'-][^\s\"']*?{_END}))",
    re.IGNORECASE,
)
_FLAGS: Final = frozenset({"none", "null", "true", "false", "nil", "undefined", ""})
_PROSE: Final = re.compile(r"[A-Za-z]?[a-z]*[.,:;!?)]*")


def hints_in(text: str, among: Hints = HINTS) -> Hints:
    """Return the hints that are in a text. If there are none, `without_shapes` returns the text unchanged."""
    lower: tuple[str, ...] = ()
    if _GIVEN.search(text):
        same_case = text.lower()
        lower = tuple(hint for hint in among.lower if hint in same_case)
    return Hints(tuple(hint for hint in among.exact if hint in text), lower)


def holds_token(text: str) -> bool:
    """Whether a text contains a token or key that is recognised by itself."""
    return any(any(hint in text for hint in shape.hints) and shape.pattern.search(text) for shape in SHAPES)


def without_shapes(text: str, found: Found) -> str:
    """Return a text without what looks like a secret."""
    for shape in SHAPES:
        if any(hint in text for hint in shape.hints):
            text = shape.pattern.sub(lambda match: found(match[0]), text)
    if "@" in text and "://" in text:
        text = _USERINFO.sub(lambda match: _user_too(match, found), text)
    lower = text.lower()
    if "bearer" in lower or "basic" in lower:
        text = _BEARER.sub(lambda match: _put(match, found, "secret" if match["secret"] else "basic"), text)
    named = any(hint in lower for hint in NAME_HINTS)
    if "=" in text and (named or "sig" in lower):
        text = _QUERY.sub(lambda match: _put(match, found) if _hides(match["name"]) else match[0], text)
    if named:
        if "=" in text or ":" in text:
            text = _ASSIGNED.sub(lambda match: _assigned(match, found), text)
            text = _HEADER.sub(lambda match: _put(match, found, "secret" if match["secret"] else "credentials"), text)
        if "-" in text:
            text = _OPTION.sub(lambda match: _option(match, found), text)
    return text


def _hides(name: str) -> bool:
    return signs(name) or is_secret_name(name)


def _put(match: re.Match[str], found: Found, group: str = "secret") -> str:
    """Return the match with its secret replaced."""
    secret = match[group]
    if HIDDEN in secret:
        return match[0]
    begin, end = (place - match.start() for place in match.span(group))
    return match[0][:begin] + found(secret) + match[0][end:]


def _user_too(match: re.Match[str], found: Found) -> str:
    return match[0] if HIDDEN in match[0] else found(match["secret"])


def _assigned(match: re.Match[str], found: Found) -> str:
    secret = match["secret"]
    if not is_secret_name(match["name"]) or secret.strip("\"'").rstrip(",)]}").lower() in _FLAGS:
        return match[0]
    if secret[0] in "\"'" and HIDDEN not in secret:
        begin = match.start("secret") - match.start()
        return match[0][: begin + 1] + found(secret[1:-1]) + secret[0]
    return _put(match, found)


def _option(match: re.Match[str], found: Found) -> str:
    bare = match["bare"]
    if not is_secret_name(match["name"]) or (bare is not None and _PROSE.fullmatch(bare)):
        return match[0]
    return _put(match, found, "bare" if bare is not None else "secret")
