"""The pages agree with the code and with each other."""

from __future__ import annotations

import re
import sys
from importlib.metadata import requires, version

import cyclopts
import generate
import pytest
from docs_pages import PAGES, ROOT, anchors, inline, name, our_commands, prose, shell
from packaging.requirements import Requirement
from packaging.version import Version

from ivcap_flows.cli.app import app
from ivcap_flows.journal.states import ARROWS
from ivcap_flows.settings import Settings


@pytest.mark.skipif(Version(version("cyclopts")) < Version("5"), reason="cyclopts 5 describes the options with types")
def test_generated_pages_are_what_the_code_says(monkeypatch):
    """`make docs` changes nothing."""
    # The usage lines name the program as it was started, and `python -m pytest` is not it.
    monkeypatch.setattr(sys, "argv", ["docs/generate.py"])
    made = generate.pages()
    written = {page: (generate.FOLDER / page).read_text(encoding="utf-8") for page in made}
    assert [page for page in made if made[page] != written[page]] == [], "run `make docs`"


def test_every_page_is_listed():
    """docs/README.md leads to each page below docs/; to the decisions by their folder."""
    page = ROOT / "docs" / "README.md"
    linked = {(page.parent / path).resolve() for path in re.findall(r"\]\(([^)\s#]+)", prose(page))}
    pages = {path for path in PAGES if path.is_relative_to(page.parent) and path.parent.name != "decisions"}
    assert sorted(map(name, pages - linked - {page})) == [], "list it in docs/README.md"


def test_links_resolve():
    """Each link within the project leads to a file, and to a heading in it."""
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
            path, _, anchor = target.partition("#")
            place = (page.parent / path).resolve() if path else page
            found = re.match(r"https?:", target) or (place.exists() and (not anchor or anchor in anchors(place)))
            broken += [] if found else [(name(page), target)]
    assert broken == []


def test_named_files_exist():
    """What reads like a path of the project is one."""
    path = re.compile(r"(?<![\w/.-])(?:docs|tests|ivcap_flows|flows|deployments|benchmarks)/[\w./-]*")
    named = {(name(page), each) for page in PAGES for code in inline(page) for each in path.findall(code)}
    assert named and sorted(each for each in named if not (ROOT / each[1]).exists()) == []


def test_the_recipes_name_what_is_there():
    """Code in a paragraph of CONTRIBUTING's recipes is a file, a command, or stands in a file of that paragraph."""
    recipes = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Recipes")[2]
    wrong = []
    for part in re.split(r"\n(?:\n|(?= *(?:-|\d\.) ))", recipes):
        words = {" ".join(word.split()) for word in re.findall(r"`([^`]+)`", part)}
        paths = {word: ROOT / word for word in words if "/" in word and (ROOT / word).exists()}
        files = {file for path in paths.values() for file in ([path] if path.is_file() else path.glob("*.py"))}
        files |= {file for path in files for word in words if (file := path.parent / word).is_file()}
        code = "".join(file.read_text(encoding="utf-8") for file in files)
        for word in words - paths.keys() - {file.name for file in files}:
            text = re.escape(word.partition("(")[0])
            if not re.match(r"make |-|\.venv/|ivcap-flows ", word) and not re.search(rf"(?<![\w.]){text}(?!\w)", code):
                wrong.append((part.strip()[:40], word))
    assert wrong == [], "name the file that has it in the same paragraph"


def test_commands_parse():
    """Each `ivcap-flows …` that a page shows is a command with these options."""
    faults, typed = [], [(page, words) for page in PAGES if page.name != "cli.md" for words in our_commands(page)]
    for page, words in typed:
        shown = [re.sub(r"\$\(.*\)|\$\w+|…", "x", word) for word in words if word != "&"]
        if shown[0] == "…":
            continue
        try:
            app.parse_args(shown, exit_on_error=False, print_error=False)
        except cyclopts.MissingArgumentError:
            # A command that is only named, such as `ivcap-flows show`.
            command, _, rest = app.parse_commands(shown)
            faults += [] if command and not rest else [(name(page), words)]
        except cyclopts.CycloptsError as error:
            faults.append((name(page), words, str(error)))
    assert faults == []


def test_make_targets_exist():
    """Each `make …` names a target."""
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    made = {(name(page), line) for page in PAGES for line in shell(page) if line.startswith("make ")}
    assert made and sorted(each for each in made if each[1].split()[1] not in targets) == []


def test_variables_are_settings():
    """A variable of the package that a page names is a setting, or one that the embedded platforms give."""
    known = {*Settings.settings_names(), "IVCAP_JWT_2", "IVCAP_JWT_EXPIRED", "PROVENA_SEARCH_API", "PROVENA_HANDLE_API"}
    known |= {f"PROVENA_OFFLINE_TOKEN_{kind}" for kind in ("2", "UNLINKED", "READER")}
    variable = re.compile(r"\b(?:IVCAP|PROVENA)_[A-Z_0-9]+\b")
    named = {(name(page), each) for page in PAGES for each in variable.findall(page.read_text(encoding="utf-8"))}
    assert named and sorted(each for each in named if each[1] not in known) == []


def test_every_direct_dependency_has_a_row():
    """The page of dependencies names what pyproject.toml asks for, and nothing that it does not."""
    wanted = {Requirement(text).name.lower() for text in requires("ivcap-flows") or ()}
    page = (ROOT / "docs" / "reference" / "dependencies.md").read_text(encoding="utf-8")
    first = [line.split("|")[1] for line in page.splitlines() if line.startswith("|")][2:]
    named = {word for cell in first for word in re.sub(r"\(.*?\)", "", cell).replace(",", " ").split()}
    assert {word.lower() for word in named} == wanted


def test_the_architecture_has_the_states():
    """The table of states is the one that the journal holds."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?:`(\w+)`|\(none\)) \| `(\w+)` \| (.+?) \|$", page, re.MULTILINE)
    assert {(before or None, after): cause for before, after, cause in rows} == ARROWS


def test_the_walk_of_an_order_names_what_is_there():
    """Each file of the walk is one of the package, and has the functions and classes that its row names."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \d+ \| `([\w/]+\.py)` \| (.+) \|$", page, re.MULTILINE)
    assert len(rows) >= 20
    for file, told in rows:
        words = re.findall(r"`([^`]+)`", told)
        files = [file, *(word for word in words if word.endswith(".py"))]
        code = "".join((ROOT / "ivcap_flows" / each).read_text(encoding="utf-8") for each in files)
        for word in words:
            if re.fullmatch(r"[A-Za-z_][\w.]*", word) and not word.endswith(".py"):
                assert re.search(rf"\b{word.split('.')[-1]}\b", code), f"{file}: {word}"
