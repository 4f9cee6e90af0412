"""A hook of mkdocs: which pages the site has, and where their links lead. `make site` builds the site.

The pages are those of `docs/`, in the order of docs/README.md; the project's own (README.md, CHANGELOG.md and others);
and a page of API reference for each public module. Links are written for GitHub, as paths in the repository: this hook
turns them into links to pages of the site, or to the repository for what is no page.
"""

from __future__ import annotations

import ast
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from diagrams import FENCE, drawing

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).parents[1]
REPOSITORY: Final = "https://github.com/ivcap-works/ivcap-flows"

PROJECT: Final = {
    "README.md": "index.md",
    "docs/README.md": "overview.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
}
"""Pages whose place on the site is another than in `docs/`: path in the repository -> page of the site."""

MODULES: Final = (
    "ivcap_flows",
    "ivcap_flows.tasks.ivcap",
    "ivcap_flows.tasks.provena",
    "ivcap_flows.tasks.fetch",
    "ivcap_flows.handles",
    "ivcap_flows.errors",
    "ivcap_flows.blocks",
    "ivcap_flows.settings",
    "ivcap_flows.testing",
    "ivcap_flows.durable.plan",
    "ivcap_flows.provena.models",
    "ivcap_flows.provena.terms",
    "ivcap_flows.provena.collection_format",
    "ivcap_flows.registration",
    "ivcap_flows.sinks",
    "ivcap_flows.local",
    "ivcap_flows.local.services.job",
)
"""The modules with a page of API reference."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    config.nav = navigation((ROOT / "docs" / "README.md").read_text(encoding="utf-8"))
    return config


def navigation(overview: str) -> list[Any]:
    """Return the sections of docs/README.md with their pages, between the project's own and the API reference."""
    nav: list[Any] = [{"Home": "index.md"}]
    for title, text in re.findall(r"\*\*(.+?)\*\*:?(.*?)(?=\*\*|\Z)", overview, re.DOTALL):
        pages = [_entry(" ".join(name.split()), path) for name, path in re.findall(r"\[([^\]]+)\]\(([^)]+)\)", text)]
        nav.append({title: pages})
    nav.append({"API": [api_page(module) for module in MODULES]})
    nav.append({"Project": ["overview.md", *(page for page in PROJECT.values() if page.startswith("project/"))]})
    return nav


def _entry(name: str, path: str) -> dict[str, Any]:
    """Return an entry of the navigation: a page, or the pages of a folder."""
    folder = ROOT / "docs" / path
    return {name: [f"{path}/{page.name}" for page in sorted(folder.glob("*.md"))] if folder.is_dir() else path}


def api_page(module: str) -> str:
    return f"api/{module}.md"


def public_names(module: str) -> list[str]:
    """Return the names that a module promises, as its stub or its `__all__` lists them, `aonce` after `once`."""
    path = ROOT.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    stub = path.with_suffix(".pyi")
    if stub.exists():
        tree = ast.parse(stub.read_text(encoding="utf-8"))
        names = {name.name for node in tree.body if isinstance(node, ast.ImportFrom) for name in node.names}
        return sorted(names, key=lambda name: (name[1:], 1) if name[1:] in names else (name, 0))
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=listed):
                return [str(name) for name in ast.literal_eval(listed)]
    raise ValueError(f"{module} has no list of public names")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    from mkdocs.structure.files import File

    for source, page in PROJECT.items():
        there = files.get_file_from_path(source.removeprefix("docs/"))
        if there is not None and source.startswith("docs/"):
            files.remove(there)
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for module in MODULES:
        members = "".join(f"        - {name}\n" for name in public_names(module))
        text = f"# {module}\n\n::: {module}\n    options:\n      show_root_heading: false\n      members:\n{members}"
        files.append(File.generated(config, api_page(module), content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    here = page.file.src_uri
    source = next((source for source, target in PROJECT.items() if target == here), f"docs/{here}")

    def link(found: re.Match[str]) -> str:
        return f"]({target_of(found[1], source, here, files)})"

    # Every second part is a fenced block at the margin.
    parts = re.split(r"(^```.*?^```$)", FENCE.sub(_drawn, markdown), flags=re.DOTALL | re.MULTILINE)
    parts[::2] = (re.sub(r"\]\(([^)\s]+)\)", link, _wide_items(_bare_pipes(part))) for part in parts[::2])
    return "".join(parts)


def _drawn(diagram: re.Match[str]) -> str:
    """Return the drawing of a Mermaid block if there is one, else the block."""
    path = drawing(diagram[1])
    if not path.exists():
        return diagram[0]
    # A wide drawing is scrolled: made as narrow as the page, its words would be too small.
    svg = path.read_text(encoding="utf-8").strip().replace("<svg ", '<svg style="max-width: none" ', 1)
    return f'<div style="overflow-x: auto; zoom: 0.75">{svg}</div>'


def _bare_pipes(text: str) -> str:
    """Remove the backslash of `\\|` from code in tables: GitHub needs it there, and Python-Markdown would show it."""

    def row(found: re.Match[str]) -> str:
        return re.sub(r"`[^`]+`", lambda code: code[0].replace(r"\|", "|"), found[0])

    return re.sub(r"^\|.*", row, text, flags=re.MULTILINE)


def _wide_items(text: str) -> str:
    """Indent what belongs to an item of a list by four, since GitHub needs less than Python-Markdown.

    Python-Markdown also needs an empty line after an item with several paragraphs.
    """
    lines: list[str] = []
    width, paragraphs = 0, False
    for line in text.split("\n"):
        marker = re.match(r"(?:[-*]|\d+\.) ", line)
        if marker:
            if paragraphs:
                lines.append("")
            width, paragraphs = len(marker[0]), False
        elif width and line[:width].isspace():
            paragraphs = paragraphs or lines[-1] == ""
            line = " " * 4 + line[width:]
        elif line and lines and not lines[-1]:
            width, paragraphs = 0, False
        lines.append(line)
    return "\n".join(lines)


def target_of(target: str, source: str, here: str, files: Files) -> str:
    """Return where a link of the repository's file `source` leads from the page `here` of the site."""
    path, mark, anchor = target.partition("#")
    if not path or re.match(r"\w+:", path):
        return target
    wanted = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    page = PROJECT.get(wanted, wanted.removeprefix("docs/"))
    if wanted in PROJECT or (wanted.startswith("docs/") and files.get_file_from_path(page) is not None):
        return posixpath.relpath(page, posixpath.dirname(here) or ".") + mark + anchor
    if not (ROOT / wanted).exists():
        return target
    kind = "tree" if (ROOT / wanted).is_dir() else "blob"
    return f"{REPOSITORY}/{kind}/main/{wanted}{mark}{anchor}"
