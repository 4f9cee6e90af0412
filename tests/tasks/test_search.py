"""Search as a task."""

from __future__ import annotations

import json

import pytest

from ivcap_flows.errors import InputError, PlatformError
from ivcap_flows.tasks import attach_aspect, search


@pytest.mark.long
def test_a_search_goes_over_all_pages(in_script, effects, unique):
    """A search finds all aspects over several pages, at most the wanted number, and no others."""
    schema = f"urn:example:schema:search-{unique}.1"
    program = f':load_aspect(/p, "{schema}", ["entity", ".k"]).\nquery(X) :- p(X, "v").'

    def body():
        for n in range(53):
            attach_aspect(f"urn:example:thing:{unique}:{n}", {"k": "v"}, schema=schema)
        attach_aspect(f"urn:example:thing:{unique}:other", {"k": "w"}, schema=schema)
        return search(program), search(program, limit=3)

    everything, some = in_script(body)
    found = {n for n in range(53) if f'{unique}:{n}"' in json.dumps([everything])}
    assert found == set(range(53)) and len(everything) == 53 and len(some) == 3
    assert "other" not in json.dumps(everything)


def test_a_faulty_program_is_told(in_script, effects):
    """A wrong program is an error of the platform, or raised before the request if it is empty."""
    with pytest.raises(PlatformError) as error:
        in_script(lambda: search("query(X :- (("))
    assert 400 <= error.value.status < 500
    with pytest.raises(InputError):
        in_script(lambda: search(""))
