"""`ivcap-flows journal upgrade`: what it says before it does something, and the way back."""

import shutil

import psycopg
import pytest
from dump_journal import FOLDER, loaded_into_file, loaded_into_server

from ivcap_flows.journal import Journal, RunIdentity


@pytest.fixture
def old_journal(tmp_path, monkeypatch):
    """A journal that code before the first revision made, as settings name it."""
    file = tmp_path / "journal.sqlite"
    loaded_into_file(FOLDER.joinpath("0.sqlite.sql").read_text(), file)
    shutil.copy(FOLDER / "0.key", f"{file}.key")
    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", f"sqlite:///{file}")
    return file


UPGRADED = """
$ journal upgrade
The journal … gets tables of revision 1; it has 0. What it was is kept in {file}.revision-0; `ivcap-flows journal up…
$ journal upgrade
The journal sqlite:///{file} has the newest tables that this version knows (revision 1).
$ journal upgrade --undo
sqlite:///{file} is again what {file}.revision-0 has. Go on with that version.
"""

REFUSED = """
$ journal upgrade --undo
InputError: The journal … would lose what was recorded since its upgrade: 1 run. …Add `--lose` to do it; a copy is kept.
[2]
$ journal upgrade --lose
InputError: `--lose` belongs to `--undo`.
[2]
$ journal upgrade --undo --lose
… is again what {file}.revision-0 has. Go on with that version.
$ journal upgrade --undo
InputError: There is no copy of …
[2]
"""


def test_a_journal_is_upgraded_and_back(ivcap_flows, transcript, old_journal):
    """Each time with the way back. What was recorded since is lost only if that is asked for."""
    transcript(ivcap_flows, UPGRADED, file=old_journal)
    with Journal.open(f"sqlite:///{old_journal}") as journal:
        opened = journal.runs.open_attempt(RunIdentity("new", "f.py:new", {}, "1", "1"))
        journal.runs.close_attempt(opened.attempt.id, "completed")
    transcript(ivcap_flows, REFUSED, file=old_journal)


def test_a_journal_that_is_not_there_is_named(ivcap_flows, transcript, tmp_path, monkeypatch):
    """Nothing is made."""
    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", f"sqlite:///{tmp_path / 'none.sqlite'}")
    transcript(ivcap_flows, "$ journal upgrade\nInputError: There is no journal …\n[2]")
    assert not (tmp_path / "none.sqlite").exists()


def test_a_journal_on_a_server_has_no_way_back(ivcap_flows, transcript, postgresql_server, monkeypatch):
    """The command says so before, and cannot be told to go back."""
    with psycopg.connect(postgresql_server.format("postgres"), autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS to_be_upgraded")
        connection.execute("CREATE DATABASE to_be_upgraded")
    url = postgresql_server.format("to_be_upgraded")
    loaded_into_server(FOLDER.joinpath("0.postgresql.sql").read_text(), url)
    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", url)
    transcript(
        ivcap_flows,
        """
$ journal upgrade
The journal … gets tables of revision 1; it has 0. On PostgreSQL there is no way back but a backup.
$ journal upgrade --undo
ConfigurationError: An upgrade of a journal on PostgreSQL cannot be undone. …
[1]
""",
    )
