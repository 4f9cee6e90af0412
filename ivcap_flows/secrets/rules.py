"""What looks like a secret: by its name, by its shape, and by being given to such a name in a text.

The words in names are those of detect-secrets' keyword detector (Yelp), and of HTTP's headers. The prefixes of tokens
are those that GitHub, GitLab, AWS, Azure, Google, Slack, PyPI, npm, Stripe, SendGrid, OpenAI, Anthropic, Hugging Face
and Prefect document.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Final, NamedTuple
from urllib.parse import quote

__all__ = [
    "ASSIGNMENTS",
    "COMMANDS",
    "HIDDEN",
    "HINTS",
    "NAME",
    "ORDINARY",
    "SHAPES",
    "SHORTEST",
    "Assignment",
    "Found",
    "Hints",
    "Shape",
    "arguments_in",
    "hints_in",
    "is_secret_name",
    "is_token",
    "line_of",
    "names_blocks",
    "secrets_in",
    "signs",
    "tokens_in",
    "without_arguments",
    "without_shapes",
]

HIDDEN: Final = "**********"
"""The text in a record instead of a secret; the same that pydantic prints. Every mask begins with it."""
SHORTEST: Final = 4
ORDINARY: Final = re.compile(
    r"[A-Z]?[a-z]+|[A-Z]+"  # a word
    r"|[\d.,:+eE-]+"  # a number, date or time
    r"|urn:.*"
    r"|[A-Za-z][\w+.-]*://[^@]*",  # a URL without credentials
    re.DOTALL,
)
"""Text that is hidden at its place only, even under a secret name, since other text would be hidden with it."""


class Found(NamedTuple):
    """A secret in a text, where it begins and ends, and the name that it is given to; "" for a token."""

    begin: int
    end: int
    name: str
    secret: str
    quoted: bool = False


# Names of parameters, keys of mappings, options, headers, and fields of connection strings

_WORDS: Final = frozenset(
    {
        "apikey", "auth", "authorization", "bearer", "contrasena", "contraseña", "cookie", "credential", "credentials",
        "jwt", "passcode", "pwd", "secret", "secrets", "sessionid", "token",
    }
)  # fmt: skip
_PAIRS: Final = frozenset(
    {
        *((of, "key") for of in ("access", "account", "anthropic", "api", "auth", "client", "database", "db")),
        *((of, "key") for of in ("encryption", "master", "openai", "priv", "private", "sas", "secret", "service")),
        *((of, "key") for of in ("shared", "signing", "ssh", "storage", "subscription")),
        *((of, "pass") for of in ("admin", "database", "db", "ftp", "key", "mail", "mysql", "postgres", "redis")),
        *((of, "pass") for of in ("root", "smtp", "ssh", "user")),
    }
)
_JOINED: Final = frozenset("".join(pair) for pair in _PAIRS)
_WITHIN: Final = ("password", "passwd", "passphrase")
_ENDINGS: Final = ("secret", "token")
_OF_BLOCKS: Final = frozenset({"credential", "credentials"})
_HARMLESS_LAST: Final = frozenset(
    {
        "algorithm", "count", "counts", "digest", "dir", "endpoint", "expires", "expiry", "file", "folder", "format",
        "hash", "length", "limit", "method", "name", "names", "path", "policy", "provider", "scheme", "sha256", "size",
        "ttl", "type", "uri", "url", "version",
    }
)  # fmt: skip
_OF_PREFECT: Final = ["result", "storage", "key"]
"""The option of a task that names the place of its result."""
_SPLIT: Final = re.compile(r"[\W_]+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_SIGNATURES: Final = frozenset({"sig", "signature"})
_NAME_HINTS: Final = ("pass", "pwd", "secret", "token", "key", "auth", "cookie", "cred", "jwt", "bearer", "contrase")
"""Every secret name contains one of these, in lower case."""


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Whether to hide the value of this name: `api_key`, `userPassword`, but not `token_count`, `secret_name`."""
    words = [word.lower() for word in _SPLIT.split(name) if word]
    if not words or words[-1] in _HARMLESS_LAST or words == _OF_PREFECT:
        return False
    return any(_is_secret_word(word) for word in words) or any(pair in _PAIRS for pair in pairwise(words))


def _is_secret_word(word: str) -> bool:
    return word in _WORDS or word in _JOINED or word.endswith(_ENDINGS) or any(each in word for each in _WITHIN)


def names_blocks(name: str) -> bool:
    """Whether the value of this secret name may be a block, or a block's name. That is hidden there, and only there."""
    return _SPLIT.split(name)[-1].lower() in _OF_BLOCKS


def signs(name: str) -> bool:
    """Whether a field of a URL's query is a signature. A signed URL is as good as a token, as long as it is valid.

    Each URL has another, so a signature is hidden where it stands and not remembered.
    """
    return _SPLIT.split(name)[-1].lower() in _SIGNATURES


class _Rule:
    """An expression for `re`."""

    expression: str

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Compiled when a text has a hint: each flow imports this module, and few need one of its patterns."""
        return re.compile(self.expression)


# Tokens


@dataclass(frozen=True)
class Shape(_Rule):
    """Tokens that are recognised by themselves. A text without any of `hints` has none."""

    name: str
    hints: tuple[str, ...]
    expression: str


_START: Final = r"(?:(?<!\w)|(?<=\\[nrt])|(?<=%[\dA-Fa-f]{2}))"
"""The start of a word. The text may be written as a `repr` or JSON writes it, or as a URL does."""


def _shape(name: str, hints: str, expression: str) -> Shape:
    return Shape(name, tuple(hints.split()), expression)


SHAPES: Final = [
    _shape("JWT", "eyJ", rf"{_START}eyJ[\w-]{{5,}}(?:\.[\w-]+){{1,4}}"),
    _shape(
        "GitHub",
        "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_",
        rf"{_START}(?:gh[pousr]_[A-Za-z0-9]{{36,255}}|github_pat_\w{{22,255}})",
    ),
    _shape("GitLab", "glpat- gldt- glft- glsoat- glrt- glptt-", rf"{_START}gl(?:pat|dt|ft|soat|rt|ptt)-[\w-]{{20,}}"),
    _shape("AWS", "A3T AKIA ASIA ABIA ACCA", rf"{_START}(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{{16}}\b"),
    # The key of a storage account is 64 bytes in Base64. So is a SHA-512 digest, which has a prefix that says so.
    _shape("Azure", "== Q~", rf"(?<![\w/+-])[A-Za-z0-9+/]{{86}}==|{_START}[\w~.]{{3}}\dQ~[\w~.-]{{31,34}}"),
    _shape(
        "GCP",
        "AIza ya29. 1// GOCSPX-",
        rf"{_START}AIza[\w-]{{35}}(?![\w-])|{_START}ya29\.[\w-]{{20,}}|(?<![\w/+])1//0[\w-]{{30,}}"
        rf"|{_START}GOCSPX-[\w-]{{20,}}",
    ),
    _shape(
        "Slack",
        "xoxa- xoxb- xoxe- xoxo- xoxp- xoxr- xoxs- xapp- hooks.slack.com",
        rf"{_START}xox[abeoprs]-[A-Za-z0-9-]{{10,}}|{_START}xapp-\d-[A-Za-z0-9-]{{10,}}"
        r"|(?<=hooks\.slack\.com/)(?:services|workflows|triggers)/[\w/+-]{20,}",
    ),
    # If a text was cut, the key may lack its end. Line breaks may be written as `\n`.
    _shape(
        "private key",
        "PRIVATE PuTTY-User-Key-File",
        r"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\Z)"
        r"|PuTTY-User-Key-File-\d:.*?(?:Private-MAC: \w+|\Z)",
    ),
    _shape("PyPI", "pypi-", rf"{_START}pypi-A[\w-]{{70,}}"),
    _shape("npm", "npm_", rf"{_START}npm_[A-Za-z0-9]{{36}}\b"),
    _shape("Stripe", "_live_ _test_", rf"{_START}[rsp]k_(?:live|test)_[A-Za-z0-9]{{20,}}"),
    _shape("SendGrid", "SG.", rf"{_START}SG\.[\w-]{{20,24}}\.[\w-]{{39,50}}"),
    _shape(
        "OpenAI, Anthropic",
        "T3BlbkFJ sk-proj- sk-svcacct- sk-admin- sk-ant-",
        rf"{_START}sk-[\w-]*T3BlbkFJ[\w-]+|{_START}sk-(?:proj|svcacct|admin|ant)-[\w-]{{20,}}",
    ),
    _shape("Hugging Face", "hf_", rf"{_START}hf_[A-Za-z]{{34}}\b"),
    _shape("Prefect", "pnu_ pnb_", rf"{_START}pn[ub]_[A-Za-z0-9]{{36}}\b"),
]


def is_token(secret: str) -> bool:
    """Whether this is a token that its shape gives away wherever it stands, also in a URL, in JSON or in a `repr`."""
    return quote(secret, safe="") == secret and any(
        any(hint in secret for hint in shape.hints) and shape.pattern.fullmatch(secret) for shape in SHAPES
    )


# What a text gives to a secret name


@dataclass(frozen=True)
class Hints:
    """Signs of a secret in a text: `exact` as they are written, `lower` in any case."""

    exact: tuple[str, ...]
    lower: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.exact or self.lower)


_SEPARATED: Final = re.compile(r"[=:\s<(]|(?:\A|\0)-|[\"'],")
"""Separators between a name and its secret, and the start of an option, after which a secret may follow."""

_BEGIN: Final = r"(?:(?<=\\)[nrt]|(?<![?&\w.-]))"
"""The start of a name. A line break or tab before it may be an escape."""
_END: Final = r"(?=[).,:;!?\]}]{0,8}(?:[\s;\"'<>\0]|\\+[\"']|\Z)|,[\w.-]+=)"
"""What ends a bare secret: punctuation of the text around it, or a comma and the next name. Both are left standing."""
NAME: Final = r"(?=(?P<name>[\w.-]{1,120}))(?P=name)"
"""A whole name, which is not tried again in part: that would take long."""
_LITERAL: Final = (
    # The quotes may be escaped, since JSON may be a text in JSON. If the text was cut, the last one is missing.
    r"[bfru]{0,2}(?P<open>\\*(?:(?P<long>\"{3}|'{3})|[\"']))"
    r"(?P<quoted>(?:(?!(?P=open))(?:\\.|[^\n\\]|(?(long)\\?\n|(?!))))*)(?:(?P=open)|\Z)"
)
_USERINFO: Final = re.compile(
    # The last `@` before the path counts, since many passwords contain an unescaped one. If there is none, the password
    # may contain a slash; but a port is no password.
    r"(?<=://)[^/\s:@\[]*:(?:([^\s/?#'\"]*)(?=@)|(?!\d+[/?#;,])((?:(?!://)[^\s'\"])*?)(?=@))"
    # A token may be the user.
    r"|(?<=://)((?=[^/\s:@]*\d)(?=[^/\s:@]*[A-Za-z])[^/\s:@]{20,})(?=@)"
)
_AROUND: Final = frozenset({"name", "given", "open", "long", "closed", "list"})
"""Groups of the patterns below that do not hold the secret."""
_FLAGS: Final = frozenset({"none", "null", "true", "false", "nil", "undefined", ""})
_PROSE: Final = re.compile(r"[A-Za-z]?[a-z]*[.,:;!?)]*")


def _not_ordinary(match: re.Match[str], secret: str) -> bool:
    return not ORDINARY.fullmatch(secret) and not names_blocks(match["name"])


def _not_prose(match: re.Match[str], secret: str) -> bool:
    return match["bare"] is None or not _PROSE.fullmatch(secret)


def _stated(match: re.Match[str], secret: str) -> bool:
    # `password = getpass("…")` and `token = os.environ["…"]` state nothing.
    computed = secret.endswith(("(", "[")) and match.string[match.end() : match.end() + 1] in ("'", '"')
    return not computed and secret.rstrip(",)]}").lower() not in _FLAGS


@dataclass(frozen=True)
class Assignment(_Rule):
    """A way in which a text gives a secret to a name. The name is in the group `name` of the pattern, or is `name`."""

    expression: str
    name: str = ""
    hints: tuple[str, ...] = _NAME_HINTS
    """Lower-case signs, one of which is in the text."""
    is_name: Callable[[str], bool] = is_secret_name
    accepts: Callable[[re.Match[str], str], bool] = lambda match, secret: True

    def secrets_in(self, text: str) -> Iterator[Found]:
        """Yield each secret in a text. What is given to another name is looked through."""
        begin = 0
        while match := self.pattern.search(text, begin):
            group = next(each for each, part in match.groupdict().items() if part is not None and each not in _AROUND)
            secret, name = match[group], self.name or match["name"]
            if secret and HIDDEN not in secret and (self.name or self.is_name(name)) and self.accepts(match, secret):
                yield Found(*match.span(group), name, secret, group in ("quoted", "argument"))
                begin = match.end(group)
            else:
                begin = match.end() if self.name else match.end("name")


ASSIGNMENTS: Final = [
    Assignment(
        r"(?i:\bbearer)(?:\s|%20)+(?P<secret>(?=\S*[\d=+/_])[A-Za-z0-9._~+/=-]{12,})"
        r"|(?i:\bbasic)(?:\s|%20)+(?P<basic>(?=\S*(?:\d|=|[a-z][A-Z]))[A-Za-z0-9+/]{12,}={0,2})(?![\w-])",
        "authorization",
        ("bearer", "basic"),
    ),
    Assignment(
        r"(?<=[?&])(?P<name>[^=&#\s]+)=(?P<secret>[^&#\s'\"<>]+)",
        hints=("sig", *_NAME_HINTS),
        is_name=lambda name: signs(name) or is_secret_name(name),
    ),
    Assignment(
        r"(?i:\b(?:set-)?cookie[\"']?\s*[:=,]\s*[\"']?)(?P<secret>[\w.-]+=[^\r\n\"']+)",
        "cookie",
        ("cookie",),
    ),
    # A field that pydantic refuses
    Assignment(
        rf"(?im)^{NAME}\n[ \t]+[^\n]*\binput_value=(?:{_LITERAL}|(?P<secret>[^\s,]+))",
        hints=("input_value=",),
    ),
    # `password=x`, `password = "x"`, `os.environ["PASSWORD"] = "x"`, `password: str = "x"`, `"password": "x"`. A colon
    # between bare words is prose, or a URN.
    Assignment(
        rf"(?i){_BEGIN}{NAME}[\\\"'`\])]*"
        r"(?:(?P<given>(?:\s*:\s*[a-z_][\w.\[\]]*(?:\s*\|\s*[\w.\[\]]+)*)?\s*(?:===?|!=|:=|=>|<-|=))|\s*:)"
        rf"(?:\s*(?:(?:[\w.]*Secret\w*)?\(\s*)?{_LITERAL}"
        rf"|(?(given)[ \t]*\(?(?P<secret>[^\s;\"'<>(]+?{_END})|(?!)))",
        accepts=_stated,
    ),
    # An entry of a list, or an element: `name: PASSWORD, value: x`, `<add key="Password" value="x"/>`
    Assignment(
        rf"(?i)\b(?:name|key)[\"']?\s*[:=]\s*[\"']?{NAME}[\"']?,?\s+[\"']?value[\"']?\s*[:=]\s*"
        rf"(?:{_LITERAL}|(?P<secret>[^\s,}}]+))",
    ),
    Assignment(
        r"(?i:\b(?:(?:proxy-)?authorization|x-api-key|api-key|x-auth-token))[\"']?:[ \t]*"
        rf"(?:(?i:bearer|basic|token)[ \t]+(?P<secret>[^\s\"',]+?{_END})|(?P<bare>[^\s\"',]*\d[^\s\"',]*?{_END}))",
        "authorization",
    ),
    # `password: x1` or `password 'x1'`, if `x1` is no word
    Assignment(
        rf"(?i){_BEGIN}(?<![/:]){NAME}(?::[ \t]+|[ \t]+[\"'])"
        rf"(?P<secret>(?=\S*\d)(?=\S*[a-z])[^\s;,\"'<>(]{{6,}}?{_END})",
        accepts=_not_ordinary,
    ),
    # An argument and its value, or a header: `setenv("PASSWORD", "x")`, `(b"X-Api-Key", b"x")`
    Assignment(
        rf"(?i)\(\s*[bru]?(?P<closed>[\"']){NAME}(?P=closed)\s*,\s*{_LITERAL}\s*\)",
        accepts=_not_ordinary,
    ),
    Assignment(rf"(?i)<{NAME}(?:\s[^<>]*)?>(?P<secret>[^<>\s][^<>]*)</"),
]

# What a command gets

_OPTION: Final = r"(?:(?P<list>(?<=\0))|(?<![\w\0-]))"
"""The start of an option: an item of a list, or a word of a text."""
_APART: Final = r"(?:\\*[\"'],\s*|(?:\\*[\"'])?\s+)"
_QUOTE: Final = r"(?P<open>\\*[\"'])(?![\s,\])}])"
_NEXT: Final = rf"(?(list)\0|(?:{_APART}{_QUOTE}|\s+))"
"""What stands between two arguments. In a text, the second may be quoted, as a shell, `repr` and JSON do."""
_ATTACHED: Final = rf"(?(list)|(?:{_QUOTE})?)"
_NEXT_OR_ATTACHED: Final = rf"(?(list)\0?|(?:{_APART}?{_QUOTE}|\s*))"
_VALUE: Final = (
    r"(?(list)(?P<argument>[^\0]+)|(?(open)(?P<quoted>(?:(?!(?P=open))(?:\\.|[^\n\\\0]))+)"
    rf"|(?P<bare>[^\s\"'\\\0]+?){_END}))"
)
"""In a list, the whole rest of the item, whatever it holds."""


def _no_port(match: re.Match[str], secret: str) -> bool:
    return not re.fullmatch(r"[\d.:]*:\d+(?:/\w+)?", secret)


def _of_command(names: str, option: str, between: str, hints: str) -> Assignment:
    """Return the rule that an option of these commands takes a password."""
    command = rf"(?:\A|(?<=[\s\"'\0/`(]))(?:{names})(?=[\s\"'\\\0])[^\n|;&]{{0,400}}?"
    expression = rf"{command}{_OPTION}{option}{between}{_VALUE}"
    return Assignment(expression, "password", tuple(hints.split()), accepts=_no_port)


COMMANDS: Final = [
    # `--password x`
    Assignment(
        rf"(?i){_OPTION}(?=(?P<name>--?[\w.-]{{1,120}}))(?P=name){_NEXT}(?!-){_VALUE}",
        accepts=_not_prose,
    ),
    # `--password=x`, and in a list also `PGPASSWORD=x`: the secret ends where the argument does.
    Assignment(
        rf"(?i)(?:(?P<list>(?<=\0))|(?<![\w\0\\-]){_QUOTE}(?=-))(?=(?P<name>[\w.-]{{1,120}}))(?P=name)={_VALUE}",
        accepts=_stated,
    ),
    # A user and a password
    Assignment(
        rf"{_OPTION}(?:-[uU]|--user|--proxy-user)(?:=|{_NEXT_OR_ATTACHED})[^\s:\"'\0-][^\s:\"'\0]*:{_VALUE}",
        "password",
        ("curl",),
    ),
    _of_command(r"mysql\w*|mariadb[\w-]*|7z[ar]?", "-p", _ATTACHED, "mysql mariadb 7z"),
    _of_command(r"sshpass|mongo\w*|login", "-p", _NEXT_OR_ATTACHED, "sshpass mongo login"),
    _of_command("zip|unzip|sqlcmd", "-P", _NEXT_OR_ATTACHED, "zip sqlcmd"),
    _of_command("redis-cli", "-a", _NEXT, "redis-cli"),
    _of_command(r"ldap\w+", "-w", _NEXT, "ldap"),
]
"""Rules for the line of a command, be it a text or a list of arguments, in which NUL precedes each."""
HINTS: Final = Hints(
    (*(hint for shape in SHAPES for hint in shape.hints), "@"),
    tuple(dict.fromkeys(hint for rule in (*ASSIGNMENTS, *COMMANDS) for hint in rule.hints)),
)


def hints_in(text: str, among: Hints = HINTS) -> Hints:
    """Return the hints that are in a text. If there are none, `without_shapes` returns the text unchanged."""
    lower: tuple[str, ...] = ()
    if _SEPARATED.search(text):
        same_case = text.lower()
        lower = tuple(hint for hint in among.lower if hint in same_case)
    return Hints(tuple(hint for hint in among.exact if hint in text), lower)


def line_of(words: Sequence[str]) -> str:
    """Return a list of arguments, none of which has a NUL, as a line in which NUL precedes each."""
    return "".join("\0" + word for word in words)


def without_shapes(text: str, replace: Callable[[str, str], str]) -> str:
    """Return a text without what looks like a secret. `replace` takes each secret, and the name that it is given to."""
    return _without(text, secrets_in(text), replace)


def without_arguments(words: Sequence[str], replace: Callable[[str, str], str]) -> list[str]:
    """Return a list of arguments without what looks like a secret in the line that they make, or in one alone."""
    return _without(line_of(words), arguments_in(words), replace).split("\0")[1:]


def _without(text: str, secrets: Iterable[Found], replace: Callable[[str, str], str]) -> str:
    parts: list[str] = []
    kept = 0
    for found in sorted(secrets, key=lambda found: (found.begin, -found.end)):
        shown = replace(found.secret, found.name)
        if found.end > kept:
            parts += [text[kept : max(found.begin, kept)], shown]
            kept = found.end
    return "".join([*parts, text[kept:]])


def secrets_in(text: str) -> Iterator[Found]:
    """Yield what looks like a secret in a text. One may be a part of another."""
    yield from tokens_in(text)
    if "@" in text and "://" in text:
        for match in _USERINFO.finditer(text):
            if HIDDEN not in match[0]:
                # The user is hidden with the password.
                yield Found(*match.span(), "password", next(filter(None, match.groups()), ""))
    yield from _given_in(text, (*ASSIGNMENTS, *COMMANDS))


def arguments_in(words: Sequence[str]) -> Iterator[Found]:
    """Yield what looks like a secret in a list of arguments, with its place in their line."""
    yield from _given_in(line_of(words), COMMANDS)
    begin = 1
    for word in words:
        for found in secrets_in(word):
            yield found._replace(begin=begin + found.begin, end=begin + found.end)
        begin += len(word) + 1


def _given_in(text: str, assignments: Iterable[Assignment]) -> Iterator[Found]:
    lower = text.lower()
    named = any(hint in lower for hint in _NAME_HINTS)
    for assignment in assignments:
        if named if assignment.hints is _NAME_HINTS else any(hint in lower for hint in assignment.hints):
            yield from assignment.secrets_in(text)


def tokens_in(text: str) -> Iterator[Found]:
    """Yield the tokens and keys in a text that are recognised by themselves."""
    for shape in SHAPES:
        if any(hint in text for hint in shape.hints):
            yield from (Found(*match.span(), "", match[0]) for match in shape.pattern.finditer(text))
