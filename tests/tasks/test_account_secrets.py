"""Secrets as tasks: their values reach the flow and are written nowhere."""

from __future__ import annotations

import base64
import json
import logging
import traceback
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from prefect.settings import PREFECT_RESULTS_PERSIST_BY_DEFAULT, temporary_settings
from pydantic import SecretStr

from ivcap_flows.capture import recorder
from ivcap_flows.durable import plan
from ivcap_flows.errors import InputError, InvalidParameterError, NotFoundError
from ivcap_flows.tasks import aget_secret, get_secret, list_secrets, set_secret


def test_secrets_are_set_listed_and_read(in_script, effects, unique):
    """Setting a secret again replaces it.

    A list has names and expiry times but no values. An unknown secret is an error.
    """

    def body():
        set_secret(unique, SecretStr("old"))
        set_secret(unique, SecretStr(f"value of {unique}"), expires=timedelta(hours=1))
        set_secret(f"{unique}-for-ever", SecretStr("x"))
        with pytest.raises(NotFoundError):
            get_secret("nobody")
        return list_secrets(), get_secret(unique)

    known, found = in_script(body)
    assert found.get_secret_value() == f"value of {unique}"
    assert known[unique] is not None and known[f"{unique}-for-ever"] is None


def forms_of(value):
    """Return the value as it is, and as base64 shows it at any offset, since Prefect stores results in base64."""
    whole = [base64.b64encode(b"." * before + value.encode()) for before in range(3)]
    return [value.encode(), *(text[4:-4] for text in whole)]


def test_a_value_is_written_down_nowhere(in_flow, effects, unique, tmp_path, caplog, prefect_server):
    """The value is in no log, journal, error, Prefect database or persisted result."""
    assert get_secret.persist_result is aget_secret.persist_result is set_secret.persist_result is False
    secret, careless = f"s3cret-{unique}", f"careless-{unique}"
    errors: list[BaseException] = []
    seen = []

    def body():
        set_secret(f"name-{unique}", SecretStr(secret))
        found = get_secret(f"name-{unique}")
        seen.append(found.get_secret_value())
        for value, error in ((careless, InputError), (SecretStr(secret * 4000), InvalidParameterError)):
            with pytest.raises(error) as caught:
                set_secret(f"name-{unique}", value)
            errors.append(caught.value)

    with ExitStack() as everything:
        everything.enter_context(temporary_settings({PREFECT_RESULTS_PERSIST_BY_DEFAULT: True}))
        for name in ("", "ivcap_flows", "prefect", "httpx", "httpcore"):
            everything.enter_context(caplog.at_level(logging.DEBUG, name))
        in_flow(body)
    assert seen == [secret] and recorder().flush()

    texts = {"the log": caplog.text.encode()}
    texts |= {f"error {n}": "".join(traceback.format_exception(error)).encode() for n, error in enumerate(errors)}
    texts |= {f"data {n}": json.dumps(error.data, default=str).encode() for n, error in enumerate(errors)}
    files = [*tmp_path.rglob("*"), *Path(prefect_server["PREFECT_HOME"]).rglob("*")]
    texts |= {str(path): path.read_bytes() for path in files if path.is_file()}
    assert any(path.name.startswith("prefect.db") for path in files)
    assert f"name-{unique}".encode() in b"".join(texts.values())
    forms = [*forms_of(secret), *forms_of(careless)]
    # Prefect breaks base64 into lines, within JSON.
    joined = {name: text.replace(b"\\n", b"") for name, text in texts.items()}
    assert [name for name, text in joined.items() if any(form in text for form in forms)] == []
    assert "Wrap it: SecretStr(…)" in str(errors[0])


def test_a_plan_sets_no_secret(in_script, effects, unique):
    """A plan names the secret without its value, and sets nothing."""
    with plan() as planned:
        in_script(lambda: set_secret(unique, SecretStr(f"s3cret-{unique}")))
    [effect] = planned.effects
    assert (effect.noun, effect.subject, effect.source) == ("secret", unique, "new")
    assert "s3cret" not in repr(effect)
    assert unique not in in_script(list_secrets)
