"""No token is in any text that outlives a call: errors, logs, journal, results, handles, Prefect's own database."""

from __future__ import annotations

import json
import logging
import os
import pickle
import traceback
from contextlib import ExitStack
from pathlib import Path

import cloudpickle
import pytest
from pydantic import SecretStr

from ivcap_flows import loop
from ivcap_flows.blocks import IvcapCredentials, ProvenaCredentials
from ivcap_flows.blocks.resolve import provena_client
from ivcap_flows.capture import recorder
from ivcap_flows.handles import Handle
from ivcap_flows.tasks import (
    attach_aspect,
    get_artifact,
    mint_dataset,
    place_order,
    register_model_run,
    request_job,
    upload_artifact,
    wait_for_orders,
)
from ivcap_flows.tasks.provena import linked_person

TOKENS = ("IVCAP_JWT", "IVCAP_JWT_2", "IVCAP_JWT_EXPIRED", "PROVENA_OFFLINE_TOKEN", "PROVENA_OFFLINE_TOKEN_UNLINKED")


def secrets_of_the_test() -> dict[str, bytes]:
    """Every token in use, and the signature of each, which nothing else would show."""

    async def access_token() -> str:
        client = await provena_client(None, deployed=False)
        return str(await client._auth.header()).removeprefix("Bearer ")

    tokens = {name: os.environ[name] for name in TOKENS} | {"access token of Provena": loop.run(access_token())}
    found = {name: token.encode() for name, token in tokens.items()}
    return found | {
        f"signature of {name}": token.rpartition(".")[2].encode() for name, token in tokens.items() if "." in token
    }


def shown(secrets: dict[str, bytes], texts: dict[str, bytes]) -> list[str]:
    """Return which secret is in which text, and the text around it."""
    return [
        f"{name} in {where}, after {text.partition(secret)[0][-300:]!r}"
        for where, text in texts.items()
        for name, secret in secrets.items()
        if secret in text
    ]


def everything_of(error: BaseException) -> bytes:
    """Return everything that may be printed, logged, pickled or stored of an error."""
    parts = ["".join(traceback.format_exception(error)), repr(error), str(vars(error)), repr(error.__cause__)]
    return "\n".join(parts).encode() + pickle.dumps(error)


@pytest.mark.long
def test_no_token_anywhere(
    in_flow,
    effects,
    source,
    tmp_path,
    registry,
    artifact,
    ended_order,
    second_account,
    unique,
    caplog,
    prefect_server,
):
    """Work that succeeds, is refused, breaks off or is denied leaves no token anywhere."""
    secrets = secrets_of_the_test()
    stranger = ProvenaCredentials.from_environment().model_copy(
        update={"offline_token": SecretStr(os.environ["PROVENA_OFFLINE_TOKEN_UNLINKED"])}
    )
    expired = IvcapCredentials(url=os.environ["IVCAP_URL"], token=os.environ["IVCAP_JWT_EXPIRED"])
    errors: list[BaseException] = []
    results: list[object] = []

    def well():
        series = upload_artifact(source)
        other = upload_artifact(source, credentials=second_account)
        [done] = wait_for_orders([place_order("echo", {"message": series.urn})], timeout=60)
        note = attach_aspect(done, {"$schema": "urn:example:schema:secret.1"})
        data = {registry.template: mint_dataset(artifact, terms=registry.terms)}
        run = register_model_run(ended_order, workflow_template=registry.workflow, inputs=data, outputs=data)
        return [series, other, done, note, run, *data.values()]

    def carelessly():
        # A user's own slip: the token as a parameter that the service does not have.
        place_order("echo", {"message": unique, "token": os.environ["IVCAP_JWT"]})

    def broken_off():
        effects.embedded.add_fault(method="GET", path="/services2", reset=True)
        try:
            place_order("echo", {"message": unique})
        finally:
            effects.embedded.clear_faults()

    def refused():
        effects.embedded.add_fault(method="POST", path="/jobs$", status=403)
        try:
            request_job("echo", {"message": unique})
        finally:
            effects.embedded.clear_faults()

    troubles = [
        carelessly,
        broken_off,
        refused,
        lambda: place_order("echo", {"message": unique}, credentials=expired),
        lambda: linked_person(credentials=stranger),
        lambda: get_artifact(results[0].urn, credentials=second_account),
        lambda: place_order("no such service", {}, credentials=second_account),
    ]
    with ExitStack() as everything:
        for name in ("", "ivcap_flows", "prefect", "httpx", "httpcore"):
            everything.enter_context(caplog.at_level(logging.DEBUG, name))
        results += in_flow(well)
        for trouble in troubles:
            with pytest.raises(Exception) as caught:
                in_flow(trouble)
            errors.append(caught.value)
    assert recorder().flush()

    texts = {"the log": caplog.text.encode()}
    texts |= {f"the {type(error).__name__} no. {n}": everything_of(error) for n, error in enumerate(errors)}
    for result in results:
        assert isinstance(result, Handle)
        texts[f"the handle {result.urn}"] = result.model_dump_json().encode() + cloudpickle.dumps(result)
    texts |= {f"the block {name}": f"{block!r} {block}".encode() for name, block in (("a", expired), ("b", stranger))}
    texts["the blocks' JSON"] = json.dumps([expired.model_dump(mode="json"), stranger.model_dump(mode="json")]).encode()
    files = [*tmp_path.rglob("*"), *Path(prefect_server["PREFECT_HOME"]).rglob("*")]
    texts |= {f"the file {path}": path.read_bytes() for path in files if path.is_file()}
    assert any(path.name.startswith("journal.sqlite") for path in files)
    assert any(path.name.startswith("prefect.db") for path in files)
    assert {record.name.partition(".")[0] for record in caplog.records} >= {"ivcap_flows", "prefect", "httpx"}
    assert len(errors) == len(troubles) and effects.intents("order")
    assert shown(secrets, texts) == []
