"""The report about a model run or study: a short Word document."""

from __future__ import annotations

import io
import zipfile
from xml.sax.saxutils import escape

from ivcap_flows.local.provena.prov.graph import Graph, downstream, upstream
from ivcap_flows.local.provena.registry.state import Entry, Registry

__all__ = ["REPORTED", "report"]

REPORTED = ("MODEL_RUN", "STUDY")
_XML = '<?xml version="1.0" encoding="UTF-8"?>'
_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_TYPES = (
    f'{_XML}<Types xmlns="{_PACKAGE}/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Override PartName="/word/document.xml" ContentType='
    '"application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>'
)
_RELATIONS = (
    f'{_XML}<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="rId1" '
    'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" '
    'Target="word/document.xml"/></Relationships>'
)


def report(registry: Registry, graph: Graph, entry: Entry, depth: int) -> bytes:
    """Return the document about an item and the items connected with it within `depth` steps."""
    links = upstream(graph, entry.id, depth) | downstream(graph, entry.id, depth)
    lines = [f"{entry.kind.subtype} {entry.id}", entry.item["display_name"], "Connected items:"]
    for other_id in sorted({end for link in links for end in (link.source, link.target)} - {entry.id}):
        other = registry.get(other_id)
        if other is not None:
            lines.append(f"{other.kind.subtype} {other_id}: {other.item.get('display_name', '')}")
    paragraphs = "".join(f"<w:p><w:r><w:t>{escape(line)}</w:t></w:r></w:p>" for line in lines)
    body = f'{_XML}<w:document xmlns:w="{_WORD}"><w:body>{paragraphs}</w:body></w:document>'
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", _TYPES)
        archive.writestr("_rels/.rels", _RELATIONS)
        archive.writestr("word/document.xml", body)
    return packed.getvalue()
