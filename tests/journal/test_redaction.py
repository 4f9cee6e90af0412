"""The journal stores a keyed digest in the place of each secret of a request. The key is in a file beside it."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
import threading
import time

import pytest

from ivcap_flows.errors import JournalKeyError
from ivcap_flows.journal import Journal, NewIntent
from ivcap_flows.journal.store import BUSY_SECONDS
from ivcap_flows.secrets import HIDDEN, hide

REQUEST = {"service": "s", "parameters": {"password": "pw1!", "dsn": "host=x password=pw2!", "n": "1"}}


def asking(request):
    return NewIntent("k1:a", "k1:a", "order", "p", "a", "account", request, discriminator="token=pw3!", subject="s")


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'journal.sqlite'}"


@pytest.fixture
def key(tmp_path):
    return tmp_path / "journal.sqlite.key"


def test_a_request_is_known_again_without_its_secrets(url, tmp_path):
    """Equal requests are stored equal by every process. Neither a secret nor its plain digest is on disk."""
    with Journal.open(url) as journal:
        kept = journal.intents.claim(asking(REQUEST)).intent
        outcome = {"parameters": REQUEST["parameters"]}
        done = journal.intents.settle(journal.intents.mark_sent(kept), urn="urn:o", outcome=outcome, how="sent")
    with Journal.open(url) as again:
        assert again.redaction.of(REQUEST) == kept.request == again.intents.get("k1:a").request
        assert again.redaction.of(kept.request) == kept.request
        assert done.outcome == {"parameters": kept.request["parameters"]}
        assert again.redaction.of({"password": "pw9!"}) != again.redaction.of({"password": "pw1!"})
    assert kept.request["parameters"]["n"] == "1" and kept.request["parameters"]["password"].startswith(HIDDEN)
    files = [path for path in tmp_path.glob("journal.sqlite*") if path.is_file() and path.suffix != ".key"]
    stored = b"".join(path.read_bytes() for path in files)
    for secret in (b"pw1!", b"pw2!", b"pw3!"):
        assert secret not in stored and hashlib.sha256(secret).hexdigest()[:16].encode() not in stored


def test_what_a_key_is_made_of_is_the_same_whatever_a_process_knows(url):
    """A process that knows more secrets makes the same idempotency key, and hides them in what it stores."""
    request = {"note": "by known-secret", "token": "pw4!"}
    with Journal.open(url) as journal:
        before = journal.redaction.by_rules(request)
        hide("known-secret")
        assert journal.redaction.by_rules(request) == before
        assert "known-secret" not in str(journal.redaction.of(request))


def test_the_key_is_made_when_needed_for_its_owner_alone(url, key, tmp_path, monkeypatch):
    """At the first secret. A full disk leaves no part of it, and an empty file, as an unclean end may leave it, is
    replaced."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with Journal.open(url) as journal:
        journal.intents.claim(NewIntent("k1:b", "k1:b", "order", "p", "a", "account", {"n": 1}))
        assert not key.exists()
        with monkeypatch.context() as disk, pytest.raises(OSError, match="No space"):
            disk.setattr(os, "fsync", full)
            journal.redaction.of(REQUEST)
        assert [path.name for path in tmp_path.iterdir() if "key" in path.name] == []
        key.touch()
        journal.redaction.of(REQUEST)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and len(bytes.fromhex(key.read_text())) == 32


def test_two_calls_that_need_the_first_key_do_not_wait_for_each_other(url):
    """One has the turn to write and meets its first secret, while another thread makes the key and needs the turn."""
    with Journal.open(url) as journal:
        inside = threading.Event()

        def make_the_key():
            inside.wait()
            journal.redaction.of(REQUEST)

        other = threading.Thread(target=make_the_key)

        def write():
            inside.set()
            # The other thread is at the key by now, and waits for the turn that this one has.
            other.join(0.5)
            journal.intents.claim(asking(REQUEST))

        async def together():
            # What is asked while another call runs shares one transaction.
            await asyncio.gather(
                journal.ask(time.sleep, 0.2), journal.ask(write), journal.ask(journal.intents.get, "k1:none")
            )

        other.start()
        began = time.monotonic()
        asyncio.run(together())
        other.join()
        assert time.monotonic() - began < BUSY_SECONDS / 2
        assert journal.intents.get("k1:a").request == journal.redaction.of(REQUEST)


def test_a_key_that_is_gone_is_no_new_one(url, key):
    """A missing key is not replaced silently: requests with secrets would not be recognised and would be sent twice."""
    with Journal.open(url) as journal:
        journal.redaction.of(REQUEST)
    known = key.read_text()
    key.unlink()
    with Journal.open(url) as journal, pytest.raises(JournalKeyError, match="key file .* of the journal"):
        journal.intents.claim(asking(REQUEST))
    key.write_text("00" * 32)
    with Journal.open(url) as journal, pytest.raises(JournalKeyError):
        journal.redaction.of(REQUEST)
    key.write_text(known)
    with Journal.open(url) as journal:
        journal.intents.claim(asking(REQUEST))
