"""Look for secrets in the content of files that are to leave: Python, notebooks, configuration and other text.

In code, a secret is a literal that is given to a secret name. What is read or computed, or only stands for a secret,
such as `os.environ["PASSWORD"]` or `"<your password>"`, is none.
"""

from __future__ import annotations

import ast
import codecs
import json
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Final

from ivcap_flows.secrets.forms import replaced
from ivcap_flows.secrets.rules import (
    NAME,
    ORDINARY,
    SHORTEST,
    Assignment,
    Found,
    arguments_in,
    hints_in,
    is_secret_name,
    names_blocks,
    secrets_in,
    signs,
    tokens_in,
)
from ivcap_flows.secrets.scrubbing import hidden, known

__all__ = ["place_of_secret"]

_STORES: Final = frozenset({".netrc", "_netrc", ".pgpass", ".cdsapirc", ".htpasswd", ".boto"})
"""Files that contain logins in forms of their own."""
_LINES: Final = 3
"""The lines over which a name and its value may be spread."""
_PARSED: Final = 2**20
"""Above this many characters, Python is searched as other text is, since its syntax tree would fill the memory."""
_FIELD: Final = Assignment(
    # `password: x` as YAML has it, also in a block of lines
    rf"(?im)(?:^|[{{,])[ \t]*(?:-[ \t]+)?{NAME}[ \t]*:[ \t]+(?:[|>][-+]?[ \t]*\n[ \t]+)?"
    r"(?P<secret>[^\s,#{}\[\]\"'|>][^\s,}]*)[ \t]*(?=$|[,}#])"
)
_PASSWORD: Final = re.compile(r"password|passwd|passphrase|passcode|pwd|pass$", re.IGNORECASE)
"""In a name: people choose its values, so a word or a phrase may be one."""
_CERTAIN: Final = re.compile(r"\w[-_.]?(?:token|key|secret)$", re.IGNORECASE)
"""In a name: its values are secrets, even if they are words. A `token` alone may be one of a text."""
_COMPUTED: Final = re.compile(
    r"[A-Za-z_][\w.:]*[(\[].*|(?:args|config|env|options|os|params|process|self|settings|this|var)\..*", re.DOTALL
)
"""Without quotes: a call, or a part of something else."""
_STANDS_IN: Final = re.compile(
    r"\$[A-Z_][A-Z0-9_]*|\$\d|\$[({].*|\{.*\}|%(?:\(\w+\))?[sdr]|%[A-Z_]+%"  # a variable, or a place in a template
    r"|<.*>|\[.*\]|\W*|[xX*]+|.*(?:\.{3}|…)|(?i:your)\b.*"  # a placeholder
    r"|(?:~|\.{0,2})/[\w./ -]*|[\w./-]+\.(?:pem|key|crt|json|ya?ml|toml|txt|env|ini)",  # a file
    re.DOTALL,
)
_NO_SECRETS: Final = frozenset(
    {
        "any", "await", "bool", "boolean", "bytes", "changeme", "default", "disabled", "dummy", "enabled", "example",
        "false", "hidden", "input", "int", "integer", "new", "none", "null", "number", "oauth2", "object", "optional",
        "pass", "password", "placeholder", "prompt", "redacted", "required", "secret", "secretstr", "str", "string",
        "text", "token", "true",
    }
)  # fmt: skip
_WORDS: Final = re.compile(r"[A-Za-z]+(?:[-_. ][A-Za-z]+)+|[A-Za-z][a-z]+(?:[A-Z][a-z]+)+")
_GIVE: Final = frozenset({"get", "getenv", "pop", "putenv", "set", "setattr", "setdefault", "setenv"})
"""Functions whose last two arguments are a name and its value, or the default of it."""
_PASS_ON: Final = frozenset(
    {"Argument", "Field", "Option", "Parameter", "SecretBytes", "SecretStr", "b64decode", "str"}
)
"""Functions whose first argument is what they return, or the default of it."""


def place_of_secret(content: bytes, name: str) -> str | None:
    """Return where a file with this name holds a secret, such as `line 12`; None if it holds none."""
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16" if wide else "utf-8-sig", errors="replace")
    path = PurePath(name)
    if path.name in _STORES:
        return "all of it"
    if "\0" in text[:8192]:
        return next(("a text in it" for _ in _anywhere(text)), None)
    try:
        if path.suffix == ".ipynb":
            return next(_in_notebook(text), None)
        lines = _in_python(text) if path.suffix in (".py", ".pyi", ".pyw") else _in_text(text)
        return next((f"line {line}" for line in lines), None)
    except RecursionError:
        return "a part that is nested too deeply"


def _anywhere(text: str) -> Iterator[int]:
    """Yield the lines with tokens and with known secrets."""
    places = [token.begin for token in tokens_in(text)]
    found = known().found_in(text).items()
    places += [text.index(form) for form, secret in found if replaced(text, {form: secret}, hidden) != text]
    yield from (text.count("\n", 0, place) + 1 for place in places)


def _in_text(text: str) -> Iterator[int]:
    """Yield the lines with secrets. Between bare words, a colon gives a value to a name, as in YAML."""
    yield from _anywhere(text)
    lines = text.splitlines() if hints_in(text) else []
    for number, line in enumerate(lines, 1):
        if hints_in(line):
            around = "\n".join(lines[number - 1 : number - 1 + _LINES])
            yield from (number + around.count("\n", 0, each.begin) for each in _assigned_in(around, fields=True))


def _assigned_in(text: str, *, fields: bool = False) -> Iterator[Found]:
    """Yield the secrets that a text gives to names."""
    if hints_in(text):
        for found in (*secrets_in(text), *(_FIELD.secrets_in(text) if fields else ())):
            computed = not found.quoted and _COMPUTED.fullmatch(found.secret)
            if signs(found.name) or (_is_secret(found.name, found.secret) and not computed):
                yield found


def _given_to_command(items: Sequence[ast.expr]) -> Iterator[Found]:
    """Yield the secrets in a list that may be the arguments of a command."""
    found = arguments_in(["".join(_literals(item)) for item in items])
    return (each for each in found if _is_secret(each.name, each.secret))


def _is_secret(name: str, value: str) -> bool:
    """Whether a literal that a name is given is a secret, and does not only stand for one."""
    value = value.strip(" \t\r\n`")
    if not name:
        return True  # a token
    if not is_secret_name(name) or len(value) < SHORTEST or _STANDS_IN.fullmatch(value) or _names_one(value):
        return False
    words = len(value.split())
    if words > 1:
        # A phrase, but no sentence about secrets
        return bool(_PASSWORD.search(name)) and words <= 5 and not hints_in(f"{value}:").lower
    if _PASSWORD.search(name) or _CERTAIN.search(name):
        return not re.match(r"urn:|\w+://", value)
    of_block = names_blocks(name) and re.fullmatch(r"[a-z0-9-]+", value)
    return not (ORDINARY.fullmatch(value) or _WORDS.fullmatch(value) or of_block)


def _names_one(value: str) -> bool:
    """Whether a value is no secret but the name of one, such as `DB_PASSWORD` or `my-token`, or of a type."""
    if value.lower() in _NO_SECRETS:
        return True
    return is_secret_name(value) and bool(_WORDS.fullmatch(value) or re.fullmatch(r"[A-Z][A-Z0-9_]*", value))


def _in_python(text: str) -> Iterator[int]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text) if len(text) <= _PARSED else None
    except (SyntaxError, ValueError, MemoryError):
        tree = None
    yield from _anywhere(text) if tree is not None else _in_text(text)
    if tree is None or not hints_in(text):
        return
    for number, line in enumerate(text.splitlines(), 1):
        yield from (number for _ in _assigned_in(line.partition("#")[2]))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from (node.lineno for _ in _assigned_in(node.value))
        if isinstance(node, ast.List | ast.Tuple):
            yield from (node.lineno for _ in _given_to_command(node.elts))
        for name, value in _named(node):
            if is_secret_name(name):
                yield from (value.lineno for literal in _literals(value) if _is_secret(name, literal))


def _named(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Yield the names in a piece of code, each with what is given to it."""
    match node:
        case ast.Assign(targets=targets, value=value):
            for target in targets:
                match target, value:
                    case ast.Tuple(elts=names), ast.Tuple(elts=values):
                        yield from zip(map(_name, names), values, strict=False)
                    case _:
                        yield _name(target), value
        case (
            ast.AnnAssign(target=target, value=ast.expr() as value)
            | ast.AugAssign(target=target, value=value)
            | ast.NamedExpr(target=target, value=value)
        ):
            yield _name(target), value
        case ast.keyword(arg=str(name), value=value):
            yield name, value
        case ast.arguments():
            named = [*node.posonlyargs, *node.args]
            named = [*named[len(named) - len(node.defaults) :], *node.kwonlyargs]
            given = zip(named, [*node.defaults, *node.kw_defaults], strict=True)
            yield from ((argument.arg, value) for argument, value in given if value is not None)
        case ast.Dict(keys=keys, values=values):
            yield from zip(map(_name, keys), values, strict=True)
        case ast.Compare(left=left, ops=[ast.Eq() | ast.NotEq()], comparators=[right]):
            yield from ((_name(left), right), (_name(right), left))
        case ast.Call(func=func, args=[*_, name, value]) if _name(func) in _GIVE:
            yield _name(name), value
        case ast.Call(func=func, args=[value]) if _name(func) in ("SecretStr", "SecretBytes"):
            yield "secret", value
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if is_secret_name(name):
            yield from ((name, each.value) for each in ast.walk(node) if isinstance(each, ast.Return) and each.value)


def _name(node: ast.AST | None) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.Constant(value=str(name)):
            return name
        case ast.Subscript(slice=inner):
            return _name(inner)
    return ""


def _literals(node: ast.expr) -> Iterator[str]:
    """Yield the texts in an expression, but not those by which something else is read or computed."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.Constant(value=bytes(data)):
            yield data.decode(errors="replace")
        case ast.JoinedStr(values=parts):
            # In the fixed part of a text, a digit tells a secret from words.
            yield from (text for part in parts for text in _literals(part) if any(map(str.isdigit, text)))
        case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.BoolOp(values=parts) | ast.Dict(values=parts):
            yield from (text for part in parts for text in _literals(part))
        case ast.BinOp(left=one, right=other) | ast.IfExp(body=one, orelse=other):
            yield from (*_literals(one), *_literals(other))
        case ast.Call(func=func, args=arguments, keywords=keywords):
            if isinstance(func, ast.Attribute):
                yield from _literals(func.value)  # "…".encode()
            if _name(func) in _PASS_ON:
                yield from (text for argument in arguments[:1] for text in _literals(argument))
            for each in keywords:
                yield from _literals(each.value) if each.arg in ("default", "fallback") else ()


def _in_notebook(text: str) -> Iterator[str]:
    """Yield the cells with secrets, in their source or in what they put out."""
    try:
        notebook = json.loads(text)
        cells = [*notebook.pop("cells"), notebook]
        sources = ["".join(cell.pop("source", "")) if cell.get("cell_type") == "code" else "" for cell in cells]
    except (ValueError, LookupError, TypeError, AttributeError):
        yield from (f"line {line}" for line in _in_text(text))
        return
    for number, (cell, source) in enumerate(zip(cells, sources, strict=True), 1):
        # IPython's own commands are no Python.
        lines = _in_python(re.sub(r"^\s*[%!?]", "#", source, flags=re.MULTILINE))
        rest = json.dumps(cell, indent=0, ensure_ascii=False).replace(r"\n", "\n")
        yield from (f"cell {number}" for _ in (*lines, *_in_text(rest)))
