"""A mapping of limited size."""

from ivcap_flows.lru_cache import LruCache


def test_of_many_the_latest_are_remembered() -> None:
    """The mapping holds so many at the most, and lets go of what was not asked for."""
    known = LruCache(2)
    known.put("a", 1)
    known.put("b", 2)
    assert known.get("a") == 1
    known.put("c", 3)
    assert (known.get("a"), known.get("b"), known.pop("c"), known.get("c"), len(known)) == (1, None, 3, None, 1)
