"""Settings from the environment."""

import re
import shlex

import pytest

from ivcap_flows.errors import ConfigurationError
from ivcap_flows.journal import Journal
from ivcap_flows.settings import Settings


def test_sinks_are_a_comma_separated_list(monkeypatch: pytest.MonkeyPatch):
    """Blanks around names and empty parts do not count."""
    monkeypatch.setenv("IVCAP_FLOWS_SINKS", "ivcap, provena,,prov-json:out")
    assert Settings().sinks == ("ivcap", "provena", "prov-json:out")


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch):
    """`IVCAP_URL=` in a deployment's environment must not count as a platform."""
    monkeypatch.setenv("IVCAP_URL", "")
    assert not Settings().ivcap_configured


def test_blanks_around_a_value_do_not_count(monkeypatch: pytest.MonkeyPatch):
    """Files and manifests put a newline behind a token; a value of blanks is none, whatever its type."""
    monkeypatch.setenv("IVCAP_JWT", "token\n")
    monkeypatch.setenv("IVCAP_FLOWS_ARTIFACTS", " off ")
    monkeypatch.setenv("IVCAP_FLOWS_MAX_ORDERS", " 5\t")
    for name in ("IVCAP_URL", "IVCAP_FLOWS_EMBEDDED", "IVCAP_FLOWS_PARK_AFTER", "IVCAP_FLOWS_JOURNAL"):
        monkeypatch.setenv(name, " \n")
    found = Settings()
    assert found.ivcap_jwt is not None and found.ivcap_jwt.get_secret_value() == "token"
    assert (found.artifacts, found.max_orders) == ("off", 5)
    assert (found.ivcap_url, found.embedded, found.park_after) == (None, False, 60.0)
    assert found.journal == Settings(IVCAP_FLOWS_JOURNAL="").journal


def test_a_variable_that_is_no_setting_is_named_with_the_setting_that_is_near(monkeypatch: pytest.MonkeyPatch):
    """Also in small letters. Those of the project's tests, and what others call theirs, are left alone."""
    for name in ("IVCAP_FLOWS_MAXORDERS", "ivcap_flows_fresh", "IVCAP_FLOWS_COLOUR"):
        monkeypatch.setenv(name, "5")
    for name in ("IVCAP_FLOWS_TEST_PICTURES", "IVCAP_FLOWS_STANDARDS", "IVCAP_FLOWS_MAX_ORDERS", "IVCAP_X"):
        monkeypatch.setenv(name, "5")
    no_setting = "is no setting of ivcap-flows, so it has no effect."
    assert Settings.unknown() == [
        f"IVCAP_FLOWS_COLOUR {no_setting} Correct its name, or unset it.",
        f"IVCAP_FLOWS_MAXORDERS {no_setting} Did you mean IVCAP_FLOWS_MAX_ORDERS?",
        f"ivcap_flows_fresh {no_setting} Did you mean IVCAP_FLOWS_FRESH?",
    ]


def test_a_journal_whose_name_ends_with_a_blank_is_not_left_behind(monkeypatch: pytest.MonkeyPatch, tmp_path):
    """The file is named, with the command that moves it to the name that settings give. An empty one would begin all
    runs anew.
    """
    there = f"sqlite:///{tmp_path / 'journal.sqlite'}"
    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", f"{there} ")
    assert Settings().journal == there
    Journal.open(f"{there} ").close()
    with pytest.raises(ConfigurationError, match=re.escape(repr(f"{tmp_path / 'journal.sqlite'} "))) as refused:
        Settings()
    command = re.search("`ivcap-flows (.*)`", str(refused.value))
    assert command is not None
    assert shlex.split(command[1]) == ["journal", "move", f"{there} ", there]
    Journal.open(there).close()
    assert Settings().journal == there


def test_no_secret_is_printed(monkeypatch: pytest.MonkeyPatch):
    """Tokens do not show in a repr or a dump."""
    for name in ("IVCAP_JWT", "PROVENA_OFFLINE_TOKEN", "PROVENA_CLIENT_SECRET"):
        monkeypatch.setenv(name, "hush-hush")
    assert "hush-hush" not in repr(Settings()) + Settings().model_dump_json()


def test_current_settings_follow_the_environment(monkeypatch):
    """The snapshot is read anew as soon as one variable changes, and is the same one until then."""
    monkeypatch.setenv("IVCAP_FLOWS_PARK_AFTER", "5")
    first = Settings.current()
    assert first.park_after == 5 and Settings.current() is first
    monkeypatch.setenv("IVCAP_FLOWS_PARK_AFTER", "6")
    assert Settings.current().park_after == 6
    monkeypatch.delenv("IVCAP_FLOWS_JOURNAL", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", "/elsewhere")
    assert "/elsewhere/" in Settings.current().journal
