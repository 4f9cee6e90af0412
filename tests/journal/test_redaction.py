"""The journal stores a keyed digest in the place of each secret of a request. The key is in a file beside it."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
import sys
import threading
import time
from pathlib import Path

import pytest

from ivcap_flows.errors import JournalKeyError
from ivcap_flows.journal import Journal, NewIntent
from ivcap_flows.journal.store import BUSY_SECONDS
from ivcap_flows.secrets import HIDDEN, hide

REQUEST = {"service": "s", "parameters": {"password": "pw1!", "dsn": "host=x password=pw2!", "n": "1"}}


def wanted(request: object) -> NewIntent:
    return NewIntent("k1:a", "k1:a", "order", "p", "a", "account", request, discriminator="token=pw3!", subject="s")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'journal.sqlite'}"


def test_a_request_is_known_again_without_its_secrets(url, tmp_path):
    """Equal requests are stored equal by every process. Neither a secret nor its plain digest is on disk."""
    with Journal.open(url) as journal:
        kept = journal.intents.claim(wanted(REQUEST)).intent
        journal.intents.mark_sent(kept)
        done = journal.intents.settle(
            journal.intents.get("k1:a"), urn="urn:o", outcome={"parameters": REQUEST["parameters"]}, how="sent"
        )
    with Journal.open(url) as again:
        assert again.redaction.of(REQUEST) == kept.request == again.intents.get("k1:a").request
        assert again.redaction.of(kept.request) == kept.request
        assert done.outcome == {"parameters": kept.request["parameters"]}
        assert again.redaction.of({"password": "pw9!"}) != again.redaction.of({"password": "pw1!"})
    assert kept.request["parameters"]["n"] == "1" and kept.request["parameters"]["password"].startswith(HIDDEN)
    stored = b"".join(
        path.read_bytes() for path in tmp_path.glob("journal.sqlite*") if path.is_file() and path.suffix != ".key"
    )
    for secret in ("pw1!", "pw2!", "pw3!"):
        plain = hashlib.sha256(secret.encode()).hexdigest()
        assert secret.encode() not in stored and plain[:16].encode() not in stored


def test_what_a_key_is_made_of_is_the_same_whatever_a_process_knows(url):
    """A process that knows more secrets makes the same idempotency key, and hides them in what it stores."""
    request = {"note": "by known-secret", "token": "pw4!"}
    with Journal.open(url) as journal:
        before = journal.redaction.by_rules(request)
        hide("known-secret")
        assert journal.redaction.by_rules(request) == before
        assert "known-secret" not in str(journal.redaction.of(request))


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_the_key_is_made_when_needed_for_its_owner_alone(url, tmp_path):
    """The key file is made at the first secret, and only its owner can read it."""
    key = tmp_path / "journal.sqlite.key"
    with Journal.open(url) as journal:
        journal.intents.claim(NewIntent("k1:b", "k1:b", "order", "p", "a", "account", {"n": 1}))
        assert not key.exists()
        journal.redaction.of(REQUEST)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and len(bytes.fromhex(key.read_text())) == 32


def test_two_calls_that_need_the_first_key_do_not_wait_for_each_other(url):
    """One has the turn to write and meets its first secret, while another thread makes the key and needs the turn."""
    with Journal.open(url) as journal:
        inside, others = threading.Event(), []

        def write() -> None:
            inside.set()
            # The other thread is at the key by now, and waits for the turn that this one has.
            others[0].join(0.5)
            journal.intents.claim(wanted(REQUEST))

        def make_the_key() -> None:
            inside.wait()
            journal.redaction.of(REQUEST)

        async def together() -> None:
            # What is asked while another call runs shares one transaction.
            await asyncio.gather(
                journal.ask(time.sleep, 0.2), journal.ask(write), journal.ask(journal.intents.get, "k1:none")
            )

        others.append(threading.Thread(target=make_the_key))
        others[0].start()
        began = time.monotonic()
        asyncio.run(together())
        others[0].join()
        assert time.monotonic() - began < BUSY_SECONDS / 2
        assert journal.intents.get("k1:a").request == journal.redaction.of(REQUEST)


def test_a_key_that_could_not_be_written_is_written_next_time(url, tmp_path, monkeypatch):
    """A full disk leaves no part of a key file, and one that is empty, as an unclean end may leave it, is replaced."""
    key = tmp_path / "journal.sqlite.key"

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with Journal.open(url) as journal:
        with monkeypatch.context() as disk, pytest.raises(OSError, match="No space"):
            disk.setattr(os, "write", full)
            journal.redaction.of(REQUEST)
        assert [path.name for path in tmp_path.iterdir() if "key" in path.name] == []
        key.touch()
        journal.redaction.of(REQUEST)
    assert len(bytes.fromhex(key.read_text())) == 32


def test_a_key_that_is_gone_is_no_new_one(url, tmp_path):
    """A missing key is not replaced silently: requests with secrets would not be recognised and would be sent twice."""
    key = tmp_path / "journal.sqlite.key"
    with Journal.open(url) as journal:
        journal.redaction.of(REQUEST)
    known = key.read_text()
    key.unlink()
    with Journal.open(url) as journal, pytest.raises(JournalKeyError, match="key file .* of the journal"):
        journal.intents.claim(wanted(REQUEST))
    key.write_text("00" * 32)
    with Journal.open(url) as journal, pytest.raises(JournalKeyError):
        journal.redaction.of(REQUEST)
    key.write_text(known)
    with Journal.open(url) as journal:
        journal.intents.claim(wanted(REQUEST))
