"""The code of a run: its commit, what differs from that, its file, and the installed packages."""

from importlib.metadata import version

import pytest
from checkouts import git

from ivcap_flows.capture.code import checkout, code_record
from ivcap_flows.identity import digest


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repository"
    (folder / "flows").mkdir(parents=True)
    (folder / "flows" / "a.py").write_text("x = 1\n")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "remote", "add", "origin", "https://ada:t0ken-t0ken@example.org/flows.git")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def test_the_code_is_its_commit_its_file_and_the_packages(repository):
    """A clean tree gives commit, branch and bare remote, the file within the repository, and versions."""
    facts = code_record(str(repository / "flows" / "a.py"), "main").attributes
    assert facts["commit"] == git(repository, "rev-parse", "HEAD")
    assert (facts["branch"], facts["remote"]) == ("main", "https://example.org/flows.git")
    assert (facts["dirty"], facts["file"], facts["name"]) == (False, "flows/a.py", "main")
    assert "diff_sha256" not in facts
    installed = {name: version(name) for name in ("prefect", "pydantic-settings", "sqlalchemy")}
    assert facts["packages"].items() >= installed.items()


@pytest.mark.parametrize(
    ("remote", "bare"),
    [
        ("https://ada:p@ss4word@example.org/x", "https://example.org/x"),
        ("https://ada@example.org:p@ss4word@example.org/x", "https://example.org/x"),
        ("https://git@example.org:ss4word@example.org/x", "https://example.org/x"),
        ("https://git:ss4word@example.org/x", "https://example.org/x"),
        ("https://example.org/x@1/y", "https://example.org/x@1/y"),
        ("ssh://git@example.org/o/r", "ssh://git@example.org/o/r"),
        ("git@example.org:o/r", "git@example.org:o/r"),
    ],
)
def test_a_remote_has_no_credentials(repository, remote, bare):
    """Whatever signs a name or a password has; `git`, which all share, stays."""
    git(repository, "remote", "set-url", "origin", remote)
    assert checkout(str(repository)).remote == bare


def test_each_reading_is_of_its_own_moment(repository, monkeypatch, tmp_path):
    """A process that lives on, as one that serves flows, meets another commit and other packages."""
    first = code_record(str(repository / "flows" / "a.py"), "main")
    (repository / "flows" / "a.py").write_text("x = 2\n")
    git(repository, "commit", "-q", "-a", "-m", "second")
    (tmp_path / "site" / "something_new-1.2.dist-info").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path / "site")
    second = code_record(str(repository / "flows" / "a.py"), "main").attributes
    assert (second["commit"], second["dirty"]) == (git(repository, "rev-parse", "HEAD"), False)
    assert second["commit"] != first.attributes["commit"]
    assert second["packages"]["something-new"] == "1.2" and "something-new" not in first.attributes["packages"]


def test_a_dirty_tree_is_told_by_the_digest_of_what_differs(repository, tmp_path):
    """A changed file and a new source each make the tree dirty, with another digest; data and ignored files do not. A
    repository's own settings start no program when its state is read.
    """
    spy = tmp_path / "spy.sh"
    spy.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    spy.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(spy))
    git(repository, "config", "diff.external", str(spy))
    (tmp_path / "ran").unlink(missing_ok=True)
    (repository / "data.csv").write_text("1")
    assert not checkout(str(repository)).dirty
    digests = set()
    for name, text in (("flows/a.py", "x = 2\n"), ("flows/a.py", "x = 3\n"), ("flows/new.py", "y = 1\n")):
        (repository / name).write_text(text)
        tree = checkout(str(repository / "flows"))
        assert tree.dirty and tree.diff_sha256 is not None
        digests.add(tree.diff_sha256)
    assert len(digests) == 3
    assert not (tmp_path / "ran").exists()


def test_code_without_a_repository_is_known_by_its_file(tmp_path, monkeypatch):
    """Outside of git, or without the program, the digest of the file and the packages remain."""
    (tmp_path / "b.py").write_text("y = 1\n")
    record = code_record(str(tmp_path / "b.py"), "b")
    assert record.attributes["source_sha256"] == digest(b"y = 1\n")
    assert record.attributes["file"] == "b.py"
    assert "commit" not in record.attributes
    monkeypatch.setenv("PATH", "")
    assert code_record(str(tmp_path / "b.py"), "b").id == record.id
    assert code_record(None, "b").id != record.id
