"""What no file of the project may hold."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

HOSTS = "|".join(["python" + "hosted[.]org", "py" + "pi[.]org/simple", "files[.]py" + "pi"])


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [Path(name) for name in listed.stdout.split("\0") if name]


def lines(pattern: str, *endings: str) -> list[str]:
    found = []
    for path in tracked():
        if path.suffix in endings and path.is_file():
            for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
                if re.search(pattern, line):
                    found.append(f"{path}:{number}: {line.strip()[:100]}")
    return found


def test_no_file_names_a_package_index_host():
    """Pins are names and versions; where packages come from is the user's choice."""
    assert lines(HOSTS, ".txt", ".toml", ".py", ".md", ".yaml", ".cfg", ".lock", "") == []


def test_constraints_are_plain_pins():
    """Each line of constraints.txt is name==version, for all Pythons or for some."""
    for line in Path("constraints.txt").read_text(encoding="utf-8").splitlines():
        assert re.fullmatch(r'[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+(; python_version (<|>=) "3\.\d+")?', line), line


def test_no_code_is_left_unfinished():
    """No stub, and no test set aside without a reason."""
    marks = "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error"])
    assert lines(rf"\b({marks})\b", ".py") == []


RUNS_TEXT = {"eval", "exec", "compile"}
RUNS_SHELL = {"os.system", "os.popen"}
MAKES_OBJECTS = {"yaml.load", "yaml.unsafe_load", "yaml.full_load"}
UNPICKLES = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}


def test_no_code_of_the_package_turns_data_into_code():
    """No pickle is read, no text is evaluated or given to a shell, and YAML makes plain values only."""
    found = []
    for path in Path("ivcap_flows").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: set[str] = set()
            if isinstance(node, ast.Import):
                names = {each.name.partition(".")[0] for each in node.names} & UNPICKLES
            elif isinstance(node, ast.ImportFrom):
                names = {(node.module or "").partition(".")[0]} & UNPICKLES
            elif isinstance(node, ast.Call):
                names = {ast.unparse(node.func)} & (RUNS_TEXT | RUNS_SHELL | MAKES_OBJECTS)
                names |= {"shell=" for each in node.keywords if each.arg == "shell"}
            found += [f"{path}:{node.lineno}: {name}" for name in names]
    assert found == []
