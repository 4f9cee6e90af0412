"""The things of a run as entities of an RO-Crate: files, things on platforms, people, tools."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from ivcap_flows.provenance.activities import Activities, columns_of
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.provenance.names import uri
from ivcap_flows.provenance.records import ANNOTATION, CONCLUDED, Record
from ivcap_flows.provenance.ro_crate_words import (
    DATA,
    NOT_STATED,
    PROPERTIES,
    TOOL,
    WORDS,
    Entity,
    media_type_of,
    moment,
    name_of,
    one_or_all,
    ref_to,
    refs_to,
    text_of,
    version_of,
    why_left_out,
)
from ivcap_flows.provenance.things import type_of

__all__ = ["Things"]


class Things:
    """The entities of the things, agents and tools of a graph, by their ids.

    `contents` is the place of a thing's content in the crate, by the thing's id. All else is referenced by its URI.
    """

    def __init__(self, graph: Graph, contents: Mapping[str, str]) -> None:
        self.graph = graph
        self.activities = Activities(graph)
        self.contents = contents
        self.entities: dict[str, Entity] = {}

    def ref(self, record: Record) -> str:
        """Return the id of a thing in the crate: the place of its content, or else its URI."""
        place = self.contents.get(record.id)
        return quote(place) if place is not None else uri(record.id)

    def _thing(self, record: Record) -> None:
        attributes, form = record.attributes, type_of(record)
        types = form.crate
        runs = self.graph.sources(record.id, "hadPlan")
        if runs or TOOL[0] in types:
            versions = (run.attributes.get("service_version") for run in runs)
            version = next((str(each) for each in versions if each), version_of(record))
            # A thing of which only the URN is known may have been a plan, and then is a tool.
            types = tuple(dict.fromkeys((*TOOL, *types)))
            self._tool(self.ref(record), name_of(record), uri(record.id), version, types)
            return
        if DATA & set(types) and record.id not in self.contents:
            types = ("MediaObject",)
        entity: Entity = {"@id": self.ref(record), "@type": one_or_all(list(types)), "name": name_of(record)}
        entity["additionalType"] = record.type
        if uri(record.id) != entity["@id"]:
            entity["identifier"] = uri(record.id)
        sha256 = attributes.get("sha256") or attributes.get("manifest_sha256") or attributes.get("content_sha256")
        if isinstance(sha256, str):
            entity["sha256"] = sha256
        if isinstance(attributes.get("size"), int):
            entity["contentSize"] = str(attributes["size"])
        if DATA & set(form.crate):
            entity["encodingFormat"] = media_type_of(record)
        columns = [f"{name} ({type_})" if type_ else name for name, type_ in columns_of(record)]
        if columns:
            entity["variableMeasured"] = one_or_all(columns)
        if record.time is not None:
            entity["dateCreated"] = moment(record.time)
        if isinstance(attributes.get("reason"), str):
            entity["description"] = f"The content was not read: {attributes['reason']}."
        elif (why := why_left_out(record)) is not None:
            entity["description"] = why
        elif isinstance(attributes.get("description"), str):
            entity["description"] = attributes["description"]
        about = self.graph.nodes.get(str(attributes.get("about")))
        if about is not None and about.kind != "agent":
            entity["about"] = ref_to(self.ref(about))
        self._add(entity | self._properties(record))

    def _properties(self, record: Record) -> Entity:
        """Return facts for which the profiles have no term: the host, how long it waited and ran, a user's notes."""
        found: list[str] = []
        facts = dict(record.attributes)
        if record.kind == "activity" and (concluded := self.activities.concluded(record)):
            facts[CONCLUDED] = [name_of(each) for each in concluded]
        for name, value in facts.items():
            if value is not None and (name in PROPERTIES or name.startswith(ANNOTATION)):
                id_ = f"#property/{quote(record.id, safe=':')}/{quote(name, safe='')}"
                fact = name.removeprefix(ANNOTATION)
                self._add({"@id": id_, "@type": "PropertyValue", "name": fact, "value": text_of(value)})
                found.append(id_)
        return {"additionalProperty": refs_to(found)} if found else {}

    def _image(self, activity: Record) -> str | None:
        """Return the id of the entity for the container image that an activity ran in; None without an image."""
        name = activity.attributes.get("container_image")
        if not isinstance(name, str):
            return None
        plain = name.partition("://")[2] or name
        host, slash, rest = plain.partition("/")
        named = bool(slash) and ("." in host or ":" in host)
        path, _, tag = (rest if named else plain).partition(":")
        image: Entity = {
            "@id": f"#image/{quote(name, safe='')}",
            "@type": "ContainerImage",
            "additionalType": ref_to(f"{WORDS}#{'SIFImage' if path.endswith('.sif') else 'DockerImage'}"),
            "registry": host if named else NOT_STATED,
            "name": path.partition("@")[0],
            "tag": tag or None,
        }
        self._add(image)
        return str(image["@id"])

    def _agent(self, record: Record) -> None:
        if record.type == "software":
            version = str(record.attributes.get("version") or NOT_STATED)
            self._tool(self.ref(record), name_of(record), uri(record.id), version)
        elif record.type == "organisation":
            url = str(record.attributes.get("url") or uri(record.id))
            self._add({"@id": self.ref(record), "@type": "Organization", "name": name_of(record), "url": url})
        else:
            self._add({"@id": self.ref(record), "@type": "Person", "name": name_of(record)})

    def _tool(self, id: str, name: str, url: str, version: str, types: tuple[str, ...] = TOOL) -> str:  # noqa: A002
        self._add({"@id": id, "@type": one_or_all(list(types)), "name": name, "url": url, "softwareVersion": version})
        return id

    def _add(self, entity: Entity) -> None:
        self.entities.setdefault(entity["@id"], {name: value for name, value in entity.items() if value is not None})
