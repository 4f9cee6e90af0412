"""Media types by name, the same on every host."""

import mimetypes

import pytest

from ivcap_flows.media_types import media_type_of


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.csv", "text/csv"),
        ("dir.d/SERIES.NC", "application/x-netcdf"),
        ("coast.geojson", "application/geo+json"),
        ("t.parquet", "application/vnd.apache.parquet"),
        ("map.gpkg", "application/geopackage+sqlite3"),
        ("a.tar.gz", "application/gzip"),
        ("config.yml", "application/yaml"),
        ("rows.ndjson", "application/x-ndjson"),
        ("no ending", "application/octet-stream"),
        ("what.ever", "application/octet-stream"),
        (".nc", "application/x-netcdf"),
        (None, "application/octet-stream"),
    ],
)
def test_a_name_tells_its_media_type(name, kind, tmp_path):
    """By its last ending, in any case; the host's own table has no say."""
    table = tmp_path / "mime.types"
    table.write_text("text/x-of-the-host csv nc geojson parquet gpkg gz yml ndjson ever\n")
    try:
        mimetypes.init([str(table)])
        assert media_type_of(name) == kind
    finally:
        mimetypes.init()
