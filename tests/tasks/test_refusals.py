"""What Provena refuses is an error at once, though production may take ten minutes to show what it accepted."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from ivcap_flows import loop, tasks
from ivcap_flows.blocks import resolve
from ivcap_flows.blocks.resolve import provena_client
from ivcap_flows.errors import BadRequestError, IvcapFlowsError
from ivcap_flows.local.remote import PlatformControl
from ivcap_flows.provena.client import VISIBILITY_DELAY
from ivcap_flows.provena.models import TemplateUse, WorkflowTemplate
from ivcap_flows.provena.terms import collection_format

NONE = "102.100.100/none"
AT_ONCE = 20.0
"""Seconds within which a refused call returns on a busy machine; a doubt takes half an hour."""


@pytest.fixture
def production(embedded_platform: PlatformControl) -> Iterator[None]:
    """The tasks take the Provena for one that shows what it accepted after ten minutes, as production; it answers at
    once."""
    resolve._close_all()
    embedded_platform.be_like("production")

    async def told() -> float:
        client = await provena_client(None, deployed=False)
        await client.platform()
        return client.visibility_delay

    assert loop.run(told()) == VISIBILITY_DELAY == 600.0
    embedded_platform.be_itself()
    embedded_platform.forget_requests()
    yield
    resolve._close_all()


def refusal_of(call: Coroutine[Any, Any, object]) -> IvcapFlowsError:
    """Return the error of a call, which it raises at once."""
    with pytest.raises(IvcapFlowsError) as refused:
        asyncio.run(asyncio.wait_for(call, AT_ONCE))
    return refused.value


REFUSED: dict[str, Any] = {
    "a model that is none": lambda known: tasks.aregister_item.fn(
        WorkflowTemplate(display_name=known.unique, software_id=known.template)
    ),
    "an unknown model": lambda known: tasks.aregister_item.fn(
        WorkflowTemplate(display_name=known.unique, software_id=NONE)
    ),
    "an unknown dataset template": lambda known: tasks.aregister_item.fn(
        WorkflowTemplate(display_name=known.unique, software_id=NONE, input_templates=[TemplateUse(template_id=NONE)])
    ),
    "an unknown organisation": lambda known: tasks.aregister_dataset.fn(known.metadata(organisation_id=NONE)),
    "a publisher that is none": lambda known: tasks.aregister_dataset.fn(known.metadata(publisher_id=known.template)),
    "an unknown custodian": lambda known: tasks.aregister_dataset.fn(known.metadata(data_custodian_id=NONE)),
}


@dataclass(frozen=True)
class Known:
    """What the rows of the tables name."""

    unique: str
    registry: Any
    artifact: Any

    @property
    def template(self) -> str:
        return str(self.registry.template)

    def metadata(self, **changes: str) -> Any:
        return collection_format(self.artifact, self.registry.terms.model_copy(update=changes))


@pytest.fixture
def known(unique: str, registry: Any, artifact: Any) -> Known:
    return Known(unique, registry, artifact)


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_create_is_an_error_at_once(production, known, effects, name):
    """It is sent once, and names Provena's reason; nothing is in doubt. So the same may be asked for again."""
    for _ in range(2):
        error = refusal_of(REFUSED[name](known))
        assert isinstance(error, BadRequestError) and error.status == 200
    assert [(row.state, row.in_doubt) for row in effects.journal.intents.where()] == [("dropped", False)]
    creates = [
        each["path"] for each in effects.embedded.requests("POST") if each["path"].endswith(("/create", "-dataset"))
    ]
    assert len(creates) == 2
