"""What is a secret, and what only looks like one."""

from __future__ import annotations

import pytest

from ivcap_flows.secrets import HIDDEN, scrub_arguments, scrub_text


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["--password", "hunter2secret", "--count", "3"], ["--password", HIDDEN, "--count", "3"]),
        (["--api-key=abcdefgh", "in.csv"], [f"--api-key={HIDDEN}", "in.csv"]),
        (["--token", "--verbose", "x"], ["--token", "--verbose", "x"]),
        (["-v", "password", "x"], ["-v", "password", "x"]),
        (["--url=https://me:hunter2@host/x"], [f"--url=https://{HIDDEN}@host/x"]),
    ],
)
def test_a_command_line_shows_no_secret(given, shown):
    """What follows an option of a secret name is one, whatever it looks like."""
    assert scrub_arguments(given) == shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h/x?sv=1&sig=abc%2Fdef&se=2", f"https://h/x?sv=1&sig={HIDDEN}&se=2"),
        ("https://h/x?X-Amz-Date=1&X-Amz-Signature=0123abc", f"https://h/x?X-Amz-Date=1&X-Amz-Signature={HIDDEN}"),
        ("see https://h/x?token=abc, or not", f"see https://h/x?token={HIDDEN} or not"),
        ("https://h/x?page=3&limit=10", "https://h/x?page=3&limit=10"),
        ("a ? b=token : c", "a ? b=token : c"),
    ],
)
def test_a_signed_url_is_shown_without_its_signature(url, shown):
    """It lets whoever has it in."""
    assert scrub_text(url) == shown
