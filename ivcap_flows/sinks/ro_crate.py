"""Write RO-Crates as a folder or a zip. The `rocrate` library, an extra, makes their metadata."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import BeforeValidator, TypeAdapter

from ivcap_flows.errors import ConfigurationError, InputError
from ivcap_flows.identity import digest
from ivcap_flows.provenance import prov_json
from ivcap_flows.provenance.activities import Activities
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.provenance.records import Record
from ivcap_flows.provenance.ro_crate import Crate
from ivcap_flows.provenance.ro_crate_terms import CrateTerms
from ivcap_flows.provenance.ro_crate_words import CONTEXT, PACKAGES, PROV, README, VERSION, Entity
from ivcap_flows.registration.yaml_file import read_yaml
from ivcap_flows.sinks.base import shareable
from ivcap_flows.sinks.contents import Contents
from ivcap_flows.whole_file import whole_file

if TYPE_CHECKING:
    from rocrate.rocrate import ROCrate

    from ivcap_flows.journal import RunRow

__all__ = ["read_terms", "write_crate", "write_zip"]

_TERMS: Final = TypeAdapter(Annotated[CrateTerms, BeforeValidator(lambda value: value or {})])
_SAFE: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def write_crate(run: RunRow, graph: Graph, target: Path, terms: CrateTerms | None = None) -> None:
    """Write a run as an RO-Crate to a new or empty folder, or to a zip if `target` ends with `.zip`.

    The crate contains the flow's code and the files that are unchanged. Everything else is named by URN and sha256. It
    is made to be shared: it names no local user, no absolute path and no e-mail address. Raises InputError if the
    target is not empty, OSError if it cannot be written, and ConfigurationError without the extra.
    """
    zipped = target.suffix == ".zip"
    if target.exists() and (zipped or not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} exists already. Name a new file or folder, or an empty folder.")
    if zipped:
        with whole_file(target) as file:
            write_zip(run, graph, file, terms)
        return
    # Beside the target, so that a full disk or a kill leaves no incomplete crate there.
    with tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=f".{target.name}.") as folder:
        part = Path(folder) / "crate"

        def put(place: str, content: bytes) -> None:
            (part / place).parent.mkdir(parents=True, exist_ok=True)
            (part / place).write_bytes(content)

        _write(run, graph, put, terms)
        if target.exists():
            target.rmdir()
        shutil.move(part, target)


def write_zip(run: RunRow, graph: Graph, file: Path, terms: CrateTerms | None = None) -> None:
    """Write a run as an RO-Crate to a zip file, as `write_crate` does."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        _write(run, graph, archive.writestr, terms)


def read_terms(path: Path) -> CrateTerms:
    """Read the terms of a crate from a YAML file; an empty one states none. Raises InputError as `read_yaml`."""
    return read_yaml(path, _TERMS, "terms of the crate")


def _write(run: RunRow, graph: Graph, put: Callable[[str, bytes], None], terms: CrateTerms | None) -> None:
    """Write each content once by `put`, under its place in the crate, and at the end the metadata."""
    if importlib.util.find_spec("rocrate") is None:
        raise ConfigurationError("RO-Crates need an extra. Install it with `pip install 'ivcap-flows[rocrate]'`.")
    places: dict[str, str] = {}
    facts: dict[str, Entity] = {}

    def add(place: str, content: bytes) -> None:
        put(place, content)
        facts[place] = {"contentSize": str(len(content)), "sha256": digest(content)}

    contents = Contents(graph)
    for id_, (place, content) in _placed_sources(contents.sources(run.entry_point), graph).items():
        places[id_] = place
        add(place, content)
    for node, content in contents.files():
        places[node.id] = _place_of(node)
        add(places[node.id], content)
    shared = shareable(contents.with_reasons())
    crate = Crate(shared, places, terms or CrateTerms())
    add(PROV, (prov_json.dumps(shared) + "\n").encode())
    add(README, crate.readme().encode())
    requirements = crate.requirements()
    if requirements is not None:
        add(PACKAGES, requirements.encode())
    for place, content in _described(crate, facts).metadata.stream():
        put(place, content)


def _place_of(file: Record) -> str:
    """Return a place below `data`, by the start of the digest in the URN, so that files with one name stay apart."""
    return f"data/{file.id.rpartition(':')[2][:12]}/{_safe_name(Path(file.attributes['path']).name)}"


def _placed_sources(sources: Mapping[str, bytes], graph: Graph) -> dict[str, tuple[str, bytes]]:
    """Return places below `code`, as in the repository. Each version of a file has one place, the run's code first."""
    placed: dict[str, tuple[str, bytes]] = {}
    taken: set[str] = set()
    activities = Activities(graph)
    main = next((activities.plan(each) for each in activities.all if each.type == "flow-run"), None)
    for id_, content in sorted(sources.items(), key=lambda item: main is None or item[0] != main.id):
        if any(content == known for _, known in placed.values()):
            continue
        name = str(graph.nodes[id_].attributes["file"])
        place = "/".join(["code", *(_safe_name(part) for part in name.split("/") if part not in ("", ".", ".."))])
        if place in taken:
            place = f"code/{id_.rpartition(':')[2][:12]}/{_safe_name(name.rpartition('/')[2])}"
        taken.add(place)
        placed[id_] = place, content
    return placed


def _safe_name(name: str) -> str:
    return "".join(each if each in _SAFE else "_" for each in name) or "_"


def _described(crate: Crate, facts: Mapping[str, Entity]) -> ROCrate:
    """Return the crate of the library, with the entities and no contents. `facts` are those of each file, by place."""
    from rocrate.model import ContextEntity, DataEntity
    from rocrate.rocrate import ROCrate

    described = ROCrate(version=VERSION)
    described.metadata.extra_contexts.append(CONTEXT)
    described.metadata["conformsTo"] = [{"@id": each} for each in crate.conforms]
    for id_, entity in crate.entities.items():
        properties = {name: value for name, value in entity.items() if name != "@id"}
        if id_ in facts:
            described.add_file(None, id_, properties=properties | facts[id_])
        elif entity["@type"] == "MediaObject":
            described.add(DataEntity(described, id_, properties))
        else:
            described.add(ContextEntity(described, id_, properties))
    for name, value in crate.root.items():
        described.root_dataset[name] = value
    for each in described.get_entities():
        # RO-Crate 1.1 requires a single value instead of a list of one.
        properties = each.properties()
        properties.update({name: of[0] for name, of in properties.items() if isinstance(of, list) and len(of) == 1})
    return described
