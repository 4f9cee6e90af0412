"""Write RO-Crates by the `rocrate` library, as a folder or a zip. Needs the extra `rocrate`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml
from pydantic import ValidationError

from ivcap_flows.errors import ConfigurationError, InputError
from ivcap_flows.identity import digest
from ivcap_flows.provenance import prov_json
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.provenance.graph_index import Story
from ivcap_flows.provenance.ro_crate import Crate
from ivcap_flows.provenance.ro_crate_terms import CrateTerms
from ivcap_flows.provenance.ro_crate_words import CONTEXT, PACKAGES, PROV, README, VERSION
from ivcap_flows.sinks.base import shareable
from ivcap_flows.sinks.contents import files, sources

if TYPE_CHECKING:
    from rocrate.rocrate import ROCrate

    from ivcap_flows.journal import RunRow

__all__ = ["read_terms", "write_crate"]

_SAFE: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def write_crate(run: RunRow, graph: Graph, target: Path, terms: CrateTerms | None = None) -> None:
    """Write a run as an RO-Crate to a new or empty folder, or to a zip if `target` ends with `.zip`.

    The crate contains the flow's code and the files that are unchanged. Everything else is named by URN and sha256. It
    is made to be shared: it names no local user, no absolute path and no e-mail address. Raises InputError if the
    target is not empty, OSError if it cannot be written, and ConfigurationError without the extra.
    """
    if importlib.util.find_spec("rocrate") is None:
        raise ConfigurationError("RO-Crates need an extra. Install it with `pip install 'ivcap-flows[rocrate]'`.")
    zipped = target.suffix == ".zip"
    if target.exists() and (zipped or not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} exists already. Name a new file or folder, or an empty folder.")
    _write(run, graph, target, zipped, terms or CrateTerms())


def read_terms(path: Path) -> CrateTerms:
    """Read the terms of a crate from a YAML file. Raises InputError, with every fault, if the file cannot be used."""
    try:
        return CrateTerms.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        raise InputError(f"{path} cannot be used as the terms of a crate: {' '.join(str(error).split())}") from error


def _write(run: RunRow, graph: Graph, target: Path, zipped: bool, terms: CrateTerms) -> None:
    # Beside the target, so that a full disk or a kill leaves no incomplete crate there.
    with tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=f".{target.name}.") as folder:
        copies = _copied(graph, Path(folder) / "data")
        contents = {**_placed_files(copies), **_placed_sources(sources(run.entry_point, graph), graph)}
        shared = shareable(graph)
        crate = Crate(shared, {id_: place for id_, (place, _) in contents.items()}, terms)
        made = _filled(crate, shared, dict(contents.values()))
        part = Path(folder) / "crate"
        if zipped:
            made.write_zip(part.with_suffix(".zip"))
            os.replace(part.with_suffix(".zip"), target)
            return
        made.write(part)
        if target.exists():
            target.rmdir()
        shutil.move(part, target)


def _copied(graph: Graph, folder: Path) -> dict[str, Path]:
    """Copy a graph's files under their names. Leave out a file that has changed since it was hashed."""
    copies: dict[str, Path] = {}
    for id_, path in files(graph).items():
        try:
            content = path.read_bytes()
        except OSError:
            continue
        if digest(content) == graph.nodes[id_].attributes["sha256"]:
            copies[id_] = folder / str(len(copies)) / path.name
            copies[id_].parent.mkdir(parents=True)
            copies[id_].write_bytes(content)
    return copies


def _placed_files(found: Mapping[str, Path]) -> dict[str, tuple[str, Any]]:
    """Return places below `data`, by the start of the digest in each URN, so that files with one name stay apart."""
    return {id_: (f"data/{id_.rpartition(':')[2][:12]}/{_plain(path.name)}", path) for id_, path in found.items()}


def _placed_sources(found: Mapping[str, bytes], graph: Graph) -> dict[str, tuple[str, Any]]:
    """Return places below `code`, as in the repository. Each version of a file has one place, the run's code first."""
    placed: dict[str, tuple[str, Any]] = {}
    taken: set[str] = set()
    story = Story(graph)
    main = next((story.plan(each) for each in story.activities if each.type == "flow-run"), None)
    for id_, content in sorted(found.items(), key=lambda item: main is None or item[0] != main.id):
        if any(content == known for _, known in placed.values()):
            continue
        name = str(graph.nodes[id_].attributes["file"])
        place = "/".join(["code", *(_plain(part) for part in name.split("/") if part not in ("", ".", ".."))])
        if place in taken:
            place = f"code/{id_.rpartition(':')[2][:12]}/{_plain(name.rpartition('/')[2])}"
        taken.add(place)
        placed[id_] = place, content
    return placed


def _plain(name: str) -> str:
    return "".join(each if each in _SAFE else "_" for each in name) or "_"


def _filled(crate: Crate, shared: Graph, contents: Mapping[str, Path | bytes]) -> ROCrate:
    from rocrate.model import ContextEntity, DataEntity
    from rocrate.rocrate import ROCrate

    record = (prov_json.dumps(shared) + "\n").encode()
    bodies: dict[str, Path | bytes] = {PROV: record, README: crate.readme().encode(), **contents}
    requirements = crate.requirements()
    if requirements is not None:
        bodies[PACKAGES] = requirements.encode()
    made = ROCrate(version=VERSION)
    made.metadata.extra_contexts.append(CONTEXT)
    made.metadata["conformsTo"] = [{"@id": each} for each in crate.conforms]
    for id_, entity in crate.entities.items():
        properties = {name: value for name, value in entity.items() if name != "@id"}
        body = bodies.get(id_)
        if body is not None:
            source = BytesIO(body) if isinstance(body, bytes) else body
            if isinstance(body, bytes):
                properties["sha256"] = digest(body)
            made.add_file(source, id_, properties=properties, record_size=True)
        elif entity["@type"] == "MediaObject":
            made.add(DataEntity(made, id_, properties))
        else:
            made.add(ContextEntity(made, id_, properties))
    for name, value in crate.root.items():
        made.root_dataset[name] = value
    for each in made.get_entities():
        # RO-Crate 1.1 requires a single value instead of a list of one.
        told = each.properties()
        told.update({name: value[0] for name, value in told.items() if isinstance(value, list) and len(value) == 1})
    return made
