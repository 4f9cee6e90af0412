"""Settings from the environment."""

import pytest

from ivcap_flows.settings import Settings


def test_sinks_are_a_comma_separated_list(monkeypatch: pytest.MonkeyPatch):
    """Blanks around names and empty parts do not count."""
    monkeypatch.setenv("IVCAP_FLOWS_SINKS", "ivcap, provena,,prov-json:out")
    assert Settings().sinks == ("ivcap", "provena", "prov-json:out")


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch):
    """`IVCAP_URL=` in a deployment's environment must not count as a platform."""
    monkeypatch.setenv("IVCAP_URL", "")
    assert not Settings().ivcap_configured


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
