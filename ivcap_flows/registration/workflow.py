"""A workflow: which orders, jobs or flow runs are model runs on Provena, and what is stated of them.

A YAML file has one, or a list of them; the same in code is a `Workflow`. What Provena has is named by its handle. In
place of a handle, the content of the item may stand: it is registered once.

- service: coastal-el-nino-index           # its name or URN
  flow: coastal                            # optional; such a workflow wins over one without a flow
  workflow_template:                       # or its handle
    display_name: Coastal El Niño index
    model: 102.100.100/1
  inputs: {series: 102.100.100/2}          # parameter: dataset template
  outputs:                                 # product: dataset template
    index.csv: {display_name: Index by month}
  terms:                                   # of the datasets that are minted: Terms
    owner: {display_name: Example, name: Example}
    license: https://creativecommons.org/licenses/by/4.0/
    approvals: {}
- flow: monthly-index                      # without a service: the run of the flow itself
  workflow_template: 102.100.100/5
  display_name: {parameter: title}         # taken from the work: ValueFrom
  model_version: {annotation: version}     # stated by the flow with annotate()
  annotations: {region: Tasman Sea, commit: {record: commit}, degree: {parameter: degree, of: fit}}
  inputs: {series: 102.100.100/2}          # parameter of the flow, or name of an artifact that it used
  outputs:
    index.csv:                             # name of an artifact that it made
      template: 102.100.100/3
      resources: {table: index.csv}        # path of each deferred resource of the dataset template
    mask:
      template: 102.100.100/6
      dataset: 102.100.100/7               # a dataset that is registered already
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from ivcap_flows.errors import InputError
from ivcap_flows.provena.models import (
    Annotations,
    DatasetTemplate,
    Info,
    Model,
    TemplateUse,
    WorkflowTemplate,
)
from ivcap_flows.provena.terms import Terms
from ivcap_flows.registration.values import Stated, Text, text_or_more

__all__ = ["DataUse", "NewWorkflowTemplate", "Register", "RegisteredUse", "RegisteredWorkflow", "Workflow"]

I = TypeVar("I", bound=Info)  # noqa: E741
Register = Callable[[Info], Awaitable[str]]
"""A function that registers content, once, and returns its handle."""


def _complete(content: I | str) -> I | str:
    """Return content that Provena would take."""
    if not isinstance(content, str):
        try:
            content.body()
        except InputError as error:
            raise ValueError("; ".join(error.data["faults"])) from None
    return content


class DataUse(BaseModel):
    """The data for one dataset template: the data with this entry's name, or a registered `dataset`.

    `template` is a handle, or the content of a dataset template. `dataset` is a handle, or a `ValueFrom` that gives
    one. `resources` maps the template's deferred resources, by key, to relative paths. In a new workflow template, a
    model run may leave out `optional` data.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    template: Annotated[
        Annotated[Text, Tag("text")] | Annotated[DatasetTemplate, Tag("more")],
        Discriminator(text_or_more),
        AfterValidator(_complete),
    ]
    dataset: Stated | None = None
    resources: Mapping[str, Stated] = Field(default_factory=dict)
    optional: bool = False


def _meant_as(value: Any) -> Literal["text", "content", "use"]:
    """Return which of the forms of an input or output a value is meant as."""
    if isinstance(value, DatasetTemplate) or (isinstance(value, Mapping) and "display_name" in value):
        return "content"
    return "use" if isinstance(value, Mapping | DataUse) else "text"


Uses = Mapping[
    str,
    Annotated[
        Annotated[Text, Tag("text")]
        | Annotated[DatasetTemplate, AfterValidator(_complete), Tag("content")]
        | Annotated[DataUse, Tag("use")],
        Discriminator(_meant_as),
    ],
]
"""Dataset templates by the names of the data: handles, contents, or how they are used."""


class NewWorkflowTemplate(BaseModel):
    """A workflow template to register. Its dataset templates are those of the inputs and outputs of the workflow."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    display_name: Text
    model: Annotated[
        Annotated[Text, Tag("text")] | Annotated[Model, Tag("more")],
        Discriminator(text_or_more),
        AfterValidator(_complete),
    ]
    annotations: Annotations | None = None


class Workflow(BaseModel):
    """Says that work is a model run: a service's orders and jobs, in one flow or all; without a service, a flow's runs.

    `inputs` and `outputs` map the name of a parameter or product to a dataset template or a `DataUse`. Items of Provena
    are named by their handles; of the workflow template, its model, the dataset templates and the owner in the terms,
    the content may be given instead, which is registered once. A `ValueFrom` takes a value that differs from run to run
    from the work. The default `modeller` is the person linked to the user.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    service: Text | None = None
    flow: Text | None = None
    workflow_template: Annotated[
        Annotated[Text, Tag("text")] | Annotated[NewWorkflowTemplate, Tag("more")], Discriminator(text_or_more)
    ]
    display_name: Stated | None = None
    description: Stated | None = None
    model_version: Stated | None = None
    inputs: Uses = Field(default_factory=dict)
    outputs: Uses = Field(default_factory=dict)
    annotations: Mapping[str, Stated] = Field(default_factory=dict)
    organisation: Text | None = None
    modeller: Text | None = None
    study: Text | None = None
    terms: Terms | None = None

    @model_validator(mode="after")
    def _names_its_work(self) -> Workflow:
        if self.service is None and self.flow is None:
            raise ValueError("give a service, a flow, or both")
        return self

    async def registered(self, register: Register) -> RegisteredWorkflow:
        """Return the workflow with the handles of all that it names, after what has none is registered."""
        inputs, outputs = [await _registered(side, register) for side in (self.inputs, self.outputs)]
        template = self.workflow_template
        if not isinstance(template, str):
            info = WorkflowTemplate(
                display_name=template.display_name,
                software_id=await _handle(template.model, register),
                input_templates=_parts(inputs),
                output_templates=_parts(outputs),
                annotations=template.annotations,
            )
            template = await register(info)
        terms = await self.terms.registered(register) if self.terms is not None else None
        return RegisteredWorkflow(self, template, inputs, outputs, terms)


@dataclass(frozen=True)
class RegisteredUse:
    """The data for one dataset template, which has a handle."""

    template: str
    dataset: Stated | None
    resources: Mapping[str, Stated]
    optional: bool


@dataclass(frozen=True)
class RegisteredWorkflow:
    """A workflow and the handles of its items on Provena."""

    stated: Workflow
    template: str
    inputs: Mapping[str, RegisteredUse]
    outputs: Mapping[str, RegisteredUse]
    terms: Terms | None


async def _registered(uses: Uses, register: Register) -> dict[str, RegisteredUse]:
    whole = {name: use if isinstance(use, DataUse) else DataUse(template=use) for name, use in uses.items()}
    return {
        name: RegisteredUse(await _handle(use.template, register), use.dataset, use.resources, use.optional)
        for name, use in whole.items()
    }


async def _handle(stated: Info | str, register: Register) -> str:
    return stated if isinstance(stated, str) else await register(stated)


def _parts(uses: Mapping[str, RegisteredUse]) -> list[TemplateUse]:
    """Return the parts of a workflow template. Several names may have one template, which it must name once."""
    optional = {use.template: use.optional or None for use in uses.values()}
    return [TemplateUse(template_id=template, optional=each) for template, each in optional.items()]
