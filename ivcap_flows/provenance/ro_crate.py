"""A run as the entities of an RO-Crate 1.1, by the run-crate profiles 0.5 (https://w3id.org/ro/wfrun).

The profile depends on the crate. If the flow's code is in it and the flow ran steps, it is a Provenance Run Crate; with
the code and no steps, a Workflow Run Crate; without the code, a Process Run Crate.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

from ivcap_flows.identity import flows_urn
from ivcap_flows.plain_text import in_markdown
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.provenance.names import uri
from ivcap_flows.provenance.records import Record
from ivcap_flows.provenance.ro_crate_terms import CrateTerms, Institution
from ivcap_flows.provenance.ro_crate_things import Things
from ivcap_flows.provenance.ro_crate_words import (
    ACTIONS,
    FAILED,
    NOT_STATED,
    PACKAGES,
    PREFECT,
    PROFILES,
    PROV,
    PYTHON,
    README,
    VERSION,
    Entity,
    file_entity,
    kind_of,
    moment,
    name_of,
    one_or_all,
    python_of,
    ref_to,
    refs_to,
    text_of,
    url_of,
    version_of,
    why_left_out,
)
from ivcap_flows.provenance.rules import RULES, validate
from ivcap_flows.provenance.things import type_of

__all__ = ["Crate"]


class Crate(Things):
    """The entities of one run's crate. `entities` are JSON-LD objects by id; `root` is the root data entity.

    `contents` is the place of a thing's content in the crate, by the thing's id. All else is referenced by its URI.
    Raises ValueError if the graph breaks the rules.
    """

    def __init__(self, graph: Graph, contents: Mapping[str, str], terms: CrateTerms) -> None:
        validate(graph)
        super().__init__(graph, contents)
        self.terms = terms
        self.root: Entity = {}
        self._steps: dict[str, list[str]] = {}
        self.run = next((each for each in self.activities.all if each.type == "flow-run"), None)
        code = self.activities.plan(self.run) if self.run is not None else None
        self.code = code if code is not None and code.type == "code" and code.id in contents else None
        self._build()

    @property
    def profile(self) -> str:
        """The narrowest profile that fits: process, workflow or provenance."""
        if self.code is None:
            return "process"
        return "provenance" if self._steps.get(self.code.id) else "workflow"

    def _build(self) -> None:
        graph = self.graph
        self._state_terms()
        for record in graph.nodes.values():
            if record.kind == "agent":
                self._agent(record)
            elif record.kind == "entity" and record.type not in ("parameters", "code"):
                self._thing(record)
        for activity in self.activities.all:
            if activity.type == "study":
                self._thing(activity)
            elif activity.type != "activity":
                self._action(activity)
        for code in graph.nodes.values():
            if code.type == "code" and code.id in self.contents:
                self._add(self._workflow(code))
        self._organize()
        self._relate()
        self._files()
        self._describe_root()

    def _action(self, activity: Record) -> None:
        activities = self.activities
        outcome, ended = activities.outcome(activity), activities.ended(activity)
        whole = activity is self.run
        results = (
            self._products()
            if whole
            else [self.ref(made) for made in self.graph.sources(activity.id, "wasGeneratedBy")]
        )
        type_ = "CreateAction" if results else "ActivateAction"
        entity: Entity = {
            "@id": self.ref(activity),
            # An activity that has not ended has made nothing yet. The run as a whole is what the crate is about.
            "@type": type_ if ended is not None or whole else "Action",
            "additionalType": activity.type,
            "name": name_of(activity),
            "description": self._told(activity, outcome),
            "startTime": moment(activities.began(activity)),
            "agent": refs_to(self._answering(activity)),
            "instrument": ref_to(self._instrument(activity)),
        }
        if ended is not None or whole:
            entity["endTime"] = moment(ended or activities.last_seen(activity))
        objects = [*self._given(activity), *self._values(activity)]
        if objects:
            entity["object"] = refs_to(objects)
        if results:
            entity["result"] = refs_to(results)
        if ended is not None and outcome in FAILED:
            entity["actionStatus"] = "http://schema.org/FailedActionStatus"
            entity["error"] = str(activity.attributes.get("cause") or outcome)
        elif ended is not None and outcome == "completed":
            entity["actionStatus"] = "http://schema.org/CompletedActionStatus"
        image = self._image(activity)
        if image is not None:
            entity["containerImage"] = ref_to(image)
        self._add(entity | self._properties(activity))

    def _given(self, activity: Record) -> list[str]:
        used = [each for part in self.activities.parts(activity) for each in self.graph.targets(part.id, "used")]
        return [self.ref(each) for each in used if type_of(each).lineage == "dataset"]

    def _products(self) -> list[str]:
        """Return what the run made, without what it used to make something else."""
        found = []
        for product in self.activities.products():
            id_ = self.ref(product)
            found.append(id_)
            entity = self.entities.get(id_)
            if self.code is not None and entity is not None and "File" in type_of(product).crate:
                entity.setdefault("exampleOfWork", ref_to(self._formal("output", name_of(product), "File")))
        return found

    def _told(self, activity: Record, outcome: str) -> str:
        words = {
            "running": "It had not ended when this was written.",
            "parked": "It parked: it waits without a process.",
            "paused": "It was paused: it waits to be resumed.",
        }
        kind = activity.type.replace("-", " ").capitalize()
        return f"{kind} {name_of(activity)!r}: {outcome}. {words.get(outcome, '')}".strip()

    def _answering(self, activity: Record) -> list[str]:
        found = [agent for agent in self.activities.agents(activity) if agent.type != "software"]
        return [self.ref(agent) for agent in found] or [self._somebody()]

    def _somebody(self) -> str:
        self._add({"@id": "#person", "@type": "Person", "name": NOT_STATED})
        return "#person"

    def _instrument(self, activity: Record) -> str:
        plan = self.activities.plan(activity)
        if plan is not None:
            return self._code(plan) if plan.type == "code" else self.ref(plan)
        flow = self.activities.flow_of(activity.id)
        parts = [*([name_of(flow)] if flow is not None else []), name_of(activity)]
        code = self.activities.plan(flow) if flow is not None else None
        name = flows_urn("tool", "/".join(quote(part, safe="") for part in parts))
        return self._tool(name, name_of(activity), uri(code.id) if code is not None else name, version_of(code))

    def _code(self, code: Record) -> str:
        id_ = self.ref(code)
        if code.id not in self.contents and id_ not in self.entities:
            url, version = url_of(code), version_of(code)
            # If two flows are in one file, the crate has that file once.
            source = code.attributes.get("source_sha256")
            there = (node for node in self.graph.nodes.values() if node.id in self.contents)
            file = next((each for each in there if source and each.attributes.get("source_sha256") == source), None)
            self._add(
                {
                    "@id": id_,
                    "@type": "SoftwareSourceCode",
                    "name": name_of(code),
                    "description": why_left_out(code),
                    "url": url,
                    "version": version,
                    "isPartOf": ref_to(self.ref(file)) if file is not None else None,
                }
            )
        return id_

    def _workflow(self, code: Record) -> Entity:
        attributes = code.attributes
        types = list(type_of(code).crate) if code is self.code else ["File", "SoftwareSourceCode"]
        self._add(
            {"@id": PYTHON, "@type": "ComputerLanguage", "name": "Python", "url": PYTHON, "version": python_of(code)}
        )
        return {
            "@id": self.ref(code),
            "@type": types,
            "name": name_of(code),
            "identifier": uri(code.id),
            "url": url_of(code),
            "version": version_of(code),
            "sha256": attributes.get("source_sha256"),
            "encodingFormat": "text/x-python",
            "programmingLanguage": ref_to(PYTHON),
        }

    def _values(self, activity: Record) -> list[str]:
        """Return the parameters of an activity as values. Those of the run also become inputs of its workflow."""
        found = []
        files = self._files_given(activity) if activity is self.run and self.code is not None else {}
        for name, value in self.activities.parameters(activity).items():
            if name in files:
                for given in files[name]:
                    self.entities[given].setdefault("exampleOfWork", ref_to(self._formal("input", name, "File")))
                continue
            id_ = f"#{quote(activity.id, safe=':')}/{quote(name, safe='')}"
            entity: Entity = {"@id": id_, "@type": "PropertyValue", "name": name, "value": text_of(value)}
            if activity is self.run and self.code is not None:
                entity["exampleOfWork"] = ref_to(self._formal("input", name, kind_of(value)))
            self._add(entity)
            found.append(id_)
        return found

    def _files_given(self, run: Record) -> dict[str, list[str]]:
        """Return the files that a run was given, by parameter."""
        found: dict[str, list[str]] = {}
        for part in self.activities.parts(run):
            for use in self.graph.links_from(part.id, "used"):
                given, role = self.graph.nodes[use.target or ""], use.attributes.get("role")
                if "File" in type_of(given).crate and self.ref(given) in self.entities:
                    for each in role if isinstance(role, list) else [role]:
                        found.setdefault(str(each), []).append(self.ref(given))
        return found

    def _formal(self, end: str, name: str, kind: str) -> str:
        """Return the id of a parameter of the workflow; `end` is `input` or `output`."""
        id_ = f"#{end}/{quote(name, safe='')}"
        self._add(
            {
                "@id": id_,
                "@type": "FormalParameter",
                "conformsTo": ref_to("https://bioschemas.org/profiles/FormalParameter/1.0-RELEASE"),
                "name": name,
                "additionalType": kind,
            }
        )
        return id_

    # The flow and its steps

    def _organize(self) -> None:
        """Add a step for each tool that a flow ran, a control action for each time, and one action with all of them."""
        if self.code is None or self.run is None:
            return
        flow = self.entities[self.ref(self.code)]
        runs = [self.entities[uri(each.id)] for each in self._ended() if each.type not in ("flow-run", "attempt")]
        runs += [self.entities[uri(each.id)] for each in self._ended() if each.attributes.get("subflow")]
        runs.sort(key=lambda action: str(action["startTime"]))
        steps: dict[str, str] = {}
        controls = []
        for action in runs:
            tool = action["instrument"]["@id"]
            if tool == flow["@id"]:
                continue
            if tool not in steps:
                steps[tool] = f"#step/{len(steps) + 1}"
                self._add(
                    {
                        "@id": steps[tool],
                        "@type": "HowToStep",
                        "name": self.entities[tool]["name"],
                        "position": str(len(steps)),
                        "workExample": ref_to(tool),
                    }
                )
            controls.append(f"#control/{action['@id']}")
            self._add(
                {
                    "@id": controls[-1],
                    "@type": "ControlAction",
                    "name": f"run {action['name']}",
                    "instrument": ref_to(steps[tool]),
                    "object": ref_to(action["@id"]),
                }
            )
        self._steps[self.code.id] = list(steps.values())
        for end in ("input", "output"):
            formal = [id_ for id_ in self.entities if id_.startswith(f"#{end}/")]
            if formal:
                flow[end] = refs_to(formal)
        flow["conformsTo"] = ref_to("https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE")
        if not controls:
            return
        flow["@type"] = [*flow["@type"], "HowTo"]
        flow["hasPart"] = refs_to(list(steps))
        flow["step"] = refs_to(list(steps.values()))
        engine = self._tool(PREFECT, "Prefect", PREFECT, str(self._packages().get("prefect") or NOT_STATED))
        self._add(
            {
                "@id": "#organize",
                "@type": "OrganizeAction",
                "name": f"Prefect runs {flow['name']}",
                "instrument": ref_to(engine),
                "object": refs_to(controls),
                "result": ref_to(uri(self.run.id)),
            }
        )

    def _ended(self) -> list[Record]:
        return [
            each
            for each in self.activities.all
            if self.entities.get(uri(each.id), {}).get("@type") in ("CreateAction", "ActivateAction")
        ]

    def _relate(self) -> None:
        """Add the relations between things that are a property of one of them. Those of actions are there already."""
        graph = self.graph
        for link in graph.relations.values():
            rule = RULES.get(link.type)
            if rule is None or rule.crate is None or rule.crate in ("object", "result", "instrument", "agent"):
                continue
            ends = [graph.nodes.get(link.source or ""), graph.nodes.get(link.target or "")]
            if link.type == "actedOnBehalfOf" and (ends[1] is None or ends[1].type != "organisation"):
                # A program has no affiliation with the person for whom it acts.
                continue
            ids = [self.ref(each) for each in ends if each is not None]
            if len(ids) == 2 and all(id_ in self.entities for id_ in ids) and ids[0] != ids[1]:
                entity = self.entities[ids[0]]
                there = entity.get(rule.crate, [])
                known = [*(there if isinstance(there, list) else [there])]
                if ref_to(ids[1]) not in known:
                    entity[rule.crate] = one_or_all([*known, ref_to(ids[1])])

    # The crate itself

    def _packages(self) -> dict[str, Any]:
        packages = self.code.attributes.get("packages") if self.code is not None else None
        return packages if isinstance(packages, dict) else {}

    def requirements(self) -> str | None:
        """Return the packages installed for the run, in the format of pip; None if they are not known."""
        lines = [f"{name}=={version}\n" for name, version in self._packages().items()]
        return "".join(lines) or None

    def _files(self) -> None:
        about = ref_to("./")
        self._add(
            file_entity(PROV, "Provenance", "application/json", "The whole record, as PROV-JSON.") | {"about": about}
        )
        self._add(
            file_entity(README, "README", "text/markdown", "A description of the crate for people.") | {"about": about}
        )
        if self.code is not None and self._packages():
            self._add(file_entity(PACKAGES, "Packages", "text/plain", "The installed packages, with their versions."))
            self.entities[self.ref(self.code)]["softwareRequirements"] = ref_to(PACKAGES)

    def readme(self) -> str:
        """Return a description of the crate for people, in Markdown. No name in it is Markdown."""
        actions = [entity for entity in self.entities.values() if entity["@type"] in ACTIONS]
        files = [entity for entity in self.entities.values() if "identifier" in entity and "sha256" in entity]
        lines = [f"# {in_markdown(self.root['name'])}", "", in_markdown(self.root["description"]), ""]
        lines += [
            f"- {in_markdown(entity['@id'])}: {in_markdown(entity['name'])}, sha256 {in_markdown(entity['sha256'])}"
            for entity in files
            if entity["@id"] != "./"
        ]
        nodes = self.graph.nodes.values()
        left_out = ((name_of(node), why_left_out(node)) for node in nodes)
        lines += [f"- not in the crate: {in_markdown(name)}. {in_markdown(why)}" for name, why in left_out if why]
        return "\n".join(
            [
                *lines,
                f"- `{PROV}`: the whole record, as PROV-JSON",
                "",
                f"The crate describes {len(actions)} actions.",
                "",
            ]
        )

    def _state_terms(self) -> None:
        terms, organisation = self.terms, self.terms.organisation
        stated = organisation or Institution(name=NOT_STATED, url="#organisation")
        place = stated.url if organisation is not None else "#organisation"
        self._add({"@id": place, "@type": "Organization", "name": stated.name, "url": stated.url})
        licence = terms.license
        named = "#license" if licence is None else licence
        if licence is not None and not licence.startswith(("https://", "http://")):
            named = f"#license/{quote(licence, safe='')}"
        words = "No licence was stated, so none is granted. Ask the author before you use the contents."
        if licence is not None:
            words = "The licence that was stated when the crate was written."
        self._add({"@id": named, "@type": "CreativeWork", "name": licence or NOT_STATED, "description": words})
        self.root = {"license": ref_to(named), "publisher": ref_to(place)}

    def _describe_root(self) -> None:
        run, place = self.run, self.root["publisher"]
        authors = [self.ref(a) for a in self.activities.agents(run) if a.type != "software"] if run is not None else []
        if self.terms.author is not None:
            id_ = self.terms.author.id or f"#person/{quote(self.terms.author.name, safe='')}"
            self._add({"@id": id_, "@type": "Person", "name": self.terms.author.name})
            authors = [id_]
        authors = authors or [self._somebody()]
        for author in authors:
            if self.entities[author]["@type"] == "Person":
                self.entities[author].setdefault("affiliation", place)
        profiles: list[str] = ["process"]
        if self.code is not None:
            profiles += ["workflow", "base", *(["provenance"] if self.profile == "provenance" else [])]
            self.root["mainEntity"] = ref_to(self.ref(self.code))
        for name in profiles:
            id_, title, version = PROFILES[name]
            self._add({"@id": id_, "@type": "CreativeWork", "name": title, "version": version})
        name = name_of(run) if run is not None else "a run"
        when = self.activities.last_seen(run) if run is not None else datetime.now(timezone.utc)
        actions = [id_ for id_, entity in self.entities.items() if entity["@type"] in ACTIONS]
        self.root |= {
            "name": f"Run of {name}",
            "description": f"What the run {uri(run.id)} of {name} used and made, and how." if run is not None else name,
            "datePublished": moment(when),
            "author": refs_to(authors),
            "conformsTo": refs_to([PROFILES[each][0] for each in profiles]),
            "mentions": refs_to(actions),
        }
        if run is not None:
            self.root["identifier"] = uri(run.id)

    @property
    def conforms(self) -> list[str]:
        """The specifications to which the metadata file conforms."""
        return [f"https://w3id.org/ro/crate/{VERSION}", *([PROFILES["base"][0]] if self.code is not None else [])]
