"""Tasks for Provena's registry: create an item once, mint an artifact's dataset once, find the caller's person."""

from __future__ import annotations

from ivcap_flows.capture import mark_existing
from ivcap_flows.capture.context import outside_call
from ivcap_flows.errors import InputError
from ivcap_flows.handles import Artifact, Dataset, RegistryItem
from ivcap_flows.provena.models import Info, Person
from ivcap_flows.provena.terms import Terms
from ivcap_flows.registration.drafts import Drafts
from ivcap_flows.registration.making import Making, Mint
from ivcap_flows.registration.references import References
from ivcap_flows.registration.registry import DatasetEffect, ItemEffect, person_of
from ivcap_flows.registration.requirements import Requirements
from ivcap_flows.registration.workflow import Register
from ivcap_flows.tasks.assets import Version, note_assets
from ivcap_flows.tasks.call import ProvenaCall, ProvenaCredentialsLike
from ivcap_flows.tasks.pair import task_pair
from ivcap_flows.tasks.terms import TermsLike, terms_of

__all__ = [
    "alinked_person",
    "amint_dataset",
    "aregister_item",
    "linked_person",
    "mint_dataset",
    "minting",
    "register_item",
    "registering",
]


async def _register_item(info: Info, *, credentials: ProvenaCredentialsLike = None) -> RegistryItem:
    """Create an item of Provena's registry (a model, template, organisation, person or study), once per content.

    The same content always gives the same item, in any flow of this user. Raises InputError before anything is sent,
    and BadRequestError if Provena refuses the item, for example because no person is linked to the caller.
    """
    call = await ProvenaCall.of(credentials)
    if not isinstance(info, Info):
        raise InputError(
            f"Pass a statement of ivcap_flows.provena.models, such as Model or Organisation, not {type(info).__name__}."
        )
    done = await call.perform(ItemEffect.of(info, client=call.client, platform=call.platform, account=call.account))
    return done.value


async def _mint_dataset(
    artifact: Artifact,
    *,
    terms: TermsLike = None,
    credentials: ProvenaCredentialsLike = None,
) -> Dataset:
    """Return the external dataset of an artifact; mint it once if there is none. Its `access_info.uri` is the URN.

    If the caller can read an external dataset with that URI, it is the result, whoever minted it. Otherwise `terms`
    must state owner, publisher, licence and approvals; InputError names the missing values.
    """
    call = await ProvenaCall.of(credentials)
    stated = await terms_of(terms)
    if stated is not None and stated.owner is not None:
        stated = await _owned(call, artifact, stated, credentials)
    done = await call.perform(
        DatasetEffect.of(artifact, stated, client=call.client, platform=call.platform, account=call.account)
    )
    facts = {"artifact": artifact.urn, "artifact_sha256": artifact.sha256}
    note_assets([Version(done.value, "datasets", new=done.how == "sent", facts=facts)], inputs=[artifact.urn])
    return done.value


async def _owned(
    call: ProvenaCall, artifact: Artifact, terms: Terms, credentials: ProvenaCredentialsLike
) -> Terms | None:
    """Return the terms with the handle of the owner, once nothing is against a mint; None if none is needed."""

    async def given(urn: str) -> Artifact:
        return artifact

    drafts = Drafts(call.client, call.journal, call.platform, call.account)
    with References() as references:
        requirements = Requirements(drafts, references, terms=terms, describe=given)
        check = requirements.check_artifact(artifact.urn)
        making = await Making.after(check, requirements, registering(credentials), minting(credentials))
        return await making.terms_for(artifact.urn)


def registering(credentials: ProvenaCredentialsLike) -> Register:
    """Return a function that registers content, once, and returns its handle.

    That is a call of the flow in the record. Else a run whose workflow was registered beside another would come of it.
    """

    async def register(info: Info) -> str:
        with outside_call():
            return (await aregister_item.fn(info, credentials=credentials)).urn

    return register


def minting(credentials: ProvenaCredentialsLike) -> Mint:
    """Return a function that finds or mints an artifact's dataset, once, and returns its handle. It is a call in the
    record."""

    async def mint(artifact: Artifact, terms: Terms | None) -> str:
        return (await amint_dataset.fn(artifact, terms=terms, credentials=credentials)).urn

    return mint


async def _linked_person(*, credentials: ProvenaCredentialsLike = None) -> RegistryItem:
    """Return the Person that is linked to the caller. Raises InputError, with the next step, if there is none."""
    call = await ProvenaCall.of(credentials)
    item = await call.client.registry.fetch(Person, await person_of(call.client, call.account))
    name = item.info.display_name
    person = RegistryItem(urn=item.id, platform=call.platform, subtype=Person.subtype, display_name=name)
    mark_existing(person.urn)
    return person


register_item, aregister_item = task_pair(_register_item, "register {info.display_name}")
mint_dataset, amint_dataset = task_pair(_mint_dataset, "mint dataset of {artifact}")
linked_person, alinked_person = task_pair(_linked_person, "look up the linked person")
