"""The standard facets of OpenLineage for which our records have data."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from openlineage.client.facet_v2 import (
    dataset_type_dataset,
    dataset_version_dataset,
    environment_variables_run,
    error_message_run,
    execution_parameters_run,
    input_statistics_input_dataset,
    job_dependencies_run,
    job_type_job,
    output_statistics_output_dataset,
    ownership_job,
    parent_run,
    processing_engine_run,
    schema_dataset,
    source_code_job,
    source_code_location_job,
    symlinks_dataset,
    tags_job,
    tags_run,
)

from ivcap_flows import __version__
from ivcap_flows.provenance.activities import Activities, columns_of
from ivcap_flows.provenance.names import uri
from ivcap_flows.provenance.openlineage_names import Names
from ivcap_flows.provenance.records import ANNOTATION, CONCLUDED, LEFT_OUT, Record
from ivcap_flows.provenance.things import type_of

__all__ = ["Facets"]

_FACTS_OF_CODE: Final = frozenset(
    {"name", "file", "source_sha256", "commit", "branch", "remote", "dirty", "diff_sha256", "packages", LEFT_OUT}
)
"""Facts of a code that are not part of its environment, or have another form in it."""
_FACTS_OF_HOST: Final = frozenset({"host_kind", "batch_system", "container_image", "machine", "system"})
_WORK: Final = frozenset({"order", "job"})


class Facets:
    """Makes the facets of runs, jobs and datasets. `run_id` returns the id of an activity's run."""

    def __init__(
        self,
        activities: Activities,
        sources: Mapping[str, bytes],
        producer: str,
        names: Names,
        run_id: Callable[[str], str],
    ) -> None:
        self.activities = activities
        self.graph = activities.graph
        self.sources = sources
        self.names = names
        self.run_id = run_id
        self._producer = producer

    def of_run(self, activity: Record, state: str) -> dict[str, Any]:
        found: dict[str, Any] = {
            "tags": self._tags(activity),
            "parent": self._parent(activity),
            "processing_engine": self._engine(activity),
            "environmentVariables": self._environment(activity),
            "executionParameters": self._parameters(activity),
            "jobDependencies": self._dependencies(activity),
        }
        if state in ("FAIL", "ABORT"):
            found["errorMessage"] = error_message_run.ErrorMessageRunFacet(
                str(activity.attributes.get("cause") or self.activities.outcome(activity)),
                "Python",
                producer=self._producer,
            )
        return {name: facet for name, facet in found.items() if facet is not None}

    def of_job(self, activity: Record) -> dict[str, Any]:
        plan = self.activities.plan(activity)
        found: dict[str, Any] = {
            "jobType": job_type_job.JobTypeJobFacet(
                "BATCH",
                "IVCAP" if activity.type in _WORK else "PROVENA" if activity.type == "model-run" else "PREFECT",
                activity.type.upper(),
                producer=self._producer,
            )
        }
        owners = [
            ownership_job.Owner(uri(agent.id), agent.type)
            for agent in self.activities.agents(activity)
            if agent.type in ("user", "organisation")
        ]
        if plan is not None and plan.type != "code":
            found["tags"] = self._tag("urn", uri(plan.id))
        if owners:
            found["ownership"] = ownership_job.OwnershipJobFacet(owners, producer=self._producer)
        if plan is not None and plan.type == "code":
            found["sourceCodeLocation"] = self._location(plan)
            # The text goes with the run and with each subflow, but not with every attempt.
            whole = activity.type == "flow-run" or activity.attributes.get("subflow")
            if whole and plan.id in self.sources:
                found["sourceCode"] = source_code_job.SourceCodeJobFacet(
                    "python", self.sources[plan.id].decode(errors="replace"), producer=self._producer
                )
            elif whole and LEFT_OUT in plan.attributes:
                found["tags"] = self._tag("sourceCode", f"left out: {plan.attributes[LEFT_OUT]}")
        return found

    def _tag(self, name: str, value: str) -> Any:
        fields = [tags_job.TagsJobFacetFields(name, value, "ivcap-flows")]
        return tags_job.TagsJobFacet(fields, producer=self._producer)

    def of_dataset(self, record: Record) -> dict[str, Any]:
        attributes = record.attributes
        found: dict[str, Any] = {
            "datasetType": dataset_type_dataset.DatasetTypeDatasetFacet("FILE", record.type, producer=self._producer)
            if attributes.get("sha256")
            else dataset_type_dataset.DatasetTypeDatasetFacet(record.type.upper(), producer=self._producer)
        }
        found["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(uri(record.id), producer=self._producer)
        fields = [schema_dataset.SchemaDatasetFacetFields(name, type_) for name, type_ in columns_of(record)]
        if fields:
            found["schema"] = schema_dataset.SchemaDatasetFacet(fields, producer=self._producer)
        names = [
            symlinks_dataset.Identifier(*self.names.dataset(other), other.type.upper())
            for relation in ("specializationOf", "alternateOf")
            for other in self.graph.targets(record.id, relation)
        ]
        if names:
            found["symlinks"] = symlinks_dataset.SymlinksDatasetFacet(names, producer=self._producer)
        return found

    def statistics(self, record: Record, kind: str) -> dict[str, Any]:
        """Return how many rows, bytes and files a dataset has."""
        rows, size, files = (_count(record.attributes.get(name)) for name in ("rows", "size", "files"))
        if rows is None and size is None and files is None:
            return {}
        if kind == "InputDataset":
            return {
                "inputStatistics": input_statistics_input_dataset.InputStatisticsInputDatasetFacet(
                    rows, size, files, producer=self._producer
                )
            }
        return {
            "outputStatistics": output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
                rows, size, files, producer=self._producer
            )
        }

    def _tags(self, activity: Record) -> Any:
        tags = {
            "urn": uri(activity.id),
            "type": activity.type,
            "outcome": self.activities.outcome(activity),
            **{
                name: str(activity.attributes[name])
                for name in ("flow_run_id", "number", "try", "platform", "status", "queue_seconds", "run_seconds")
                if activity.attributes.get(name) is not None
            },
            **{
                name: _text(value)
                for name, value in activity.attributes.items()
                if name.startswith(ANNOTATION) and value is not None
            },
        }
        if concluded := self.activities.concluded(activity):
            tags[CONCLUDED] = ", ".join(self.names.dataset(each)[1] for each in concluded)
        listed = [tags_run.TagsRunFacetFields(name, value, "ivcap-flows") for name, value in tags.items()]
        return tags_run.TagsRunFacet(listed, producer=self._producer)

    def _parent(self, activity: Record) -> Any:
        above = self.activities.above(activity.id)
        if not above:
            return None
        nearest, root = above[0], above[-1]
        return parent_run.ParentRunFacet(
            parent_run.Run(self.run_id(nearest.id)),
            parent_run.Job(*self.names.job(nearest)),
            parent_run.Root(parent_run.RootRun(self.run_id(root.id)), parent_run.RootJob(*self.names.job(root))),
            producer=self._producer,
        )

    def _code(self, activity: Record) -> Record | None:
        """Return the code of the flow around an activity, whose environment it shares; None for work of a platform."""
        if activity.type in _WORK or activity.type == "model-run":
            return None
        for each in (activity, *self.activities.above(activity.id)):
            plan = self.activities.plan(each)
            if plan is not None and plan.type == "code":
                return plan
        return None

    def _engine(self, activity: Record) -> Any:
        code = self._code(activity)
        packages = code.attributes.get("packages") if code is not None else None
        version = packages.get("prefect") if isinstance(packages, dict) else None
        if version is None:
            return None
        return processing_engine_run.ProcessingEngineRunFacet(
            str(version), "Prefect", __version__, producer=self._producer
        )

    def _environment(self, activity: Record) -> Any:
        """Return Python, host and packages, for flow runs and attempts only. A task shares those of its parent."""
        if activity.type not in ("flow-run", "attempt"):
            return None
        code, attempts = self._code(activity), self.activities.attempts(activity.id)
        facts = {} if code is None else {n: v for n, v in code.attributes.items() if n not in _FACTS_OF_CODE}
        for each in (activity, *attempts[-1:]):
            facts |= {name: value for name, value in each.attributes.items() if name in _FACTS_OF_HOST}
        variables = {name.upper(): _text(value) for name, value in facts.items() if value is not None}
        packages = code.attributes.get("packages") if code is not None else None
        if isinstance(packages, dict):
            variables["PACKAGES"] = " ".join(f"{name}=={version}" for name, version in packages.items())
        if not variables:
            return None
        listed = [environment_variables_run.EnvironmentVariable(name, value) for name, value in variables.items()]
        return environment_variables_run.EnvironmentVariablesRunFacet(listed, producer=self._producer)

    def _parameters(self, activity: Record) -> Any:
        values = self.activities.parameters(activity)
        if not values:
            return None
        listed = [
            execution_parameters_run.ExecutionParameter(name, value=_text(value)) for name, value in values.items()
        ]
        return execution_parameters_run.ExecutionParametersRunFacet(listed, producer=self._producer)

    def _dependencies(self, activity: Record) -> Any:
        informants = self.graph.targets(activity.id, "wasInformedBy")
        known = [other for other in informants if type_of(other).lineage == "run"]
        if not known:
            return None
        upstream = [
            job_dependencies_run.JobDependency(
                job_dependencies_run.JobIdentifier(*self.names.job(other)),
                job_dependencies_run.RunIdentifier(self.run_id(other.id)),
            )
            for other in known
        ]
        return job_dependencies_run.JobDependenciesRunFacet(upstream, producer=self._producer)

    def _location(self, code: Record) -> Any:
        known = {name: code.attributes.get(name) for name in ("remote", "file", "commit", "branch")}
        return source_code_location_job.SourceCodeLocationJobFacet(
            "git" if known["commit"] else "file",
            uri(code.id),
            repoUrl=known["remote"],
            path=known["file"],
            version=known["commit"] or code.attributes.get("source_sha256"),
            branch=known["branch"],
            producer=self._producer,
        )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
