"""The places of nodes, groups and lines on a page, in a real browser. Without Chromium these tests are skipped."""

from __future__ import annotations

import json
import random
import re
from itertools import combinations, pairwise

import pytest

from ivcap_flows.provenance import RULES, Graph, entity
from ivcap_flows.provenance.html import page

TYPES = [list(RULES).index(name) for name in ("used", "wasInformedBy")]

BOXES = """() => Object.fromEntries([...document.querySelectorAll("#world [data-item]")].map(each => {
    const [x, y] = each.getAttribute("transform").match(/-?[\\d.]+/g).map(Number);
    const area = each.querySelector(".area");
    const [width, height] = area ? ["width", "height"].map(name => Number(area.getAttribute(name))) : [196, 42];
    return [each.dataset.item, { x, y, width, height }];
}))"""

PASSED = """() => {
    const boxes = [...document.querySelectorAll("#nodes > .node")].map(each =>
        [each.dataset.item, each.ariaLabel, ...each.getAttribute("transform").match(/-?[\\d.]+/g).map(Number)]);
    return [...document.querySelectorAll("#edges > .edge")].flatMap(path => {
        const ends = path.dataset.edge.split(" ");
        const points = Array.from({ length: path.getTotalLength() / 4 }, (_, step) => path.getPointAtLength(4 * step));
        return boxes.filter(([item, , x, y]) => !ends.includes(item)
            && points.some(point => point.x > x && point.x < x + 196 && point.y > y && point.y < y + 42))
            .map(([, name]) => `${path.dataset.edge} through ${name}`);
    });
}"""

LEFT = """() => {
    const frames = [...document.querySelectorAll("#frames > .frame")].map(each => {
        const [x, y] = each.getAttribute("transform").match(/-?[\\d.]+/g).map(Number);
        const [width, height] = ["width", "height"].map(name => Number(each.querySelector(".area").getAttribute(name)));
        const has = point => point.x >= x && point.x <= x + width && point.y >= y && point.y <= y + height;
        return { has, y, name: each.ariaLabel };
    });
    return [...document.querySelectorAll("#edges > .edge")].flatMap(path => {
        const length = path.getTotalLength(), size = path.classList.contains("same") ? 0 : 17;
        const points = Array.from({ length: (length - size) / 4 }, (_, step) => path.getPointAtLength(4 * step));
        if (!points.length || points[0].y > points.at(-1).y) return [];
        return frames.filter(({ has, y }) => has(points.at(-1)) && !points.every(point => point.y < y || has(point)))
            .map(({ name }) => `${path.dataset.edge} out of ${name}`);
    });
}"""

TURN = """number => [...document.querySelectorAll(".toggle")][number]
    .dispatchEvent(new MouseEvent("click", { bubbles: true }))"""


def drawn(parents: list[int | None], links: list[tuple[int, int]], stages: list[int] | None = None) -> str:
    """Return the page of nodes in these groups, each after its own. Of the links, every third is a weak one."""
    text = page(Graph([entity("e", "file", path="e")]))
    before, data, after = re.split(r'(?<=id="picture">)(.*?)(?=</script>)', text, maxsplit=1)
    [view] = json.loads(data)
    [item] = view["items"]
    view["items"] = [
        {
            **item,
            "open": True,
            "id": str(number),
            "title": str(number),
            "parent": parent,
            "stage": stages[number] if stages else 0,
        }
        for number, parent in enumerate(parents)
    ]
    view["links"] = [[*ends, TYPES[number % 3 == 2]] for number, ends in enumerate(links)]
    return before + json.dumps([view]) + after


def nested(seed: int) -> tuple[list[int | None], list[tuple[int, int]]]:
    """Nodes in nested groups, with links between any two of them, including cycles."""
    drawn_by = random.Random(seed)
    count = drawn_by.randint(1, 40)
    parents = [above if (above := drawn_by.randrange(-1, number)) >= 0 else None for number in range(1, count)]
    links = [(drawn_by.randrange(count), drawn_by.randrange(count)) for _ in range(drawn_by.randint(0, 60))]
    return [None, *parents], links


def assert_apart(boxes, parents):
    """Assert that members of a group are inside it and do not overlap."""
    shown = {int(number): box for number, box in boxes.items()}
    for number, box in shown.items():
        around = shown.get(parents[number])
        if around:
            assert around["x"] < box["x"] and box["x"] + box["width"] < around["x"] + around["width"] + 0.2
            assert around["y"] < box["y"] and box["y"] + box["height"] < around["y"] + around["height"] + 0.2
    for (first, one), (second, other) in combinations(shown.items(), 2):
        if parents[first] == parents[second]:
            beside = one["x"] + one["width"] <= other["x"] or other["x"] + other["width"] <= one["x"]
            below = one["y"] + one["height"] <= other["y"] or other["y"] + other["height"] <= one["y"]
            assert beside or below, (first, second)


@pytest.mark.parametrize("seed", range(6))
def test_nothing_stands_on_anything_else(opened, seed):
    """This holds unfolded, and after groups are folded and unfolded. The same folding is drawn in the same way."""
    parents, links = nested(seed)
    shown = opened(drawn(parents, links))
    shown.page.click("#unfold")
    whole = shown.page.evaluate(BOXES)
    assert len(whole) == len(parents)
    assert_apart(whole, parents)
    for number in range(min(4, shown.page.locator(".toggle").count())):
        shown.page.evaluate(TURN, number % shown.page.locator(".toggle").count())
        assert_apart(shown.page.evaluate(BOXES), parents)
    shown.page.click("#unfold")
    assert shown.page.evaluate(BOXES) == whole


def test_results_stand_below_their_origins(opened):
    """A chain runs downwards. A line that skips a step passes beside it, one that closes a cycle runs upwards."""
    shown = opened(drawn([None] * 4, [(0, 1), (1, 2), (0, 2), (2, 3), (3, 1)], [0, 1, 2, 3]))
    boxes = shown.page.evaluate(BOXES)
    assert [boxes[each]["y"] for each in "0123"] == sorted(boxes[each]["y"] for each in "0123")
    assert shown.page.locator("#edges > .edge").count() == 5
    assert [each for each in shown.page.evaluate(PASSED) if not each.startswith("3 1")] == []


def test_no_line_runs_through_a_node(opened, make_survey, make_neighbours):
    """Lines pass beside nodes, also where they enter and leave groups."""
    for graph, start in ((make_survey(3), "out"), (make_neighbours(3), "own")):
        shown = opened(page(graph, [start]))
        assert shown.page.locator("#edges > .edge").count() >= 20
        assert shown.page.evaluate(PASSED) == []


@pytest.mark.parametrize("seed", range(3))
def test_lines_into_a_group_and_within_it_stay_in_it(opened, seed):
    """A line that passes a step keeps beside it and within the group, also if it comes from outside."""
    drawn_by = random.Random(seed)
    chain = range(2, 10)
    passing = [pair for pair in combinations(chain, 2) if pair[1] == pair[0] + 1 or drawn_by.random() < 0.4]
    entering = [(0, number) for number in chain if drawn_by.random() < 0.6]
    shown = opened(drawn([None, None, *[1] * len(chain)], [*passing, *entering], [0, 0, *range(len(chain))]))
    assert shown.page.locator("#frames > .frame").count() == 1
    assert shown.page.evaluate(LEFT) == shown.page.evaluate(PASSED) == []


def test_what_is_many_is_neither_too_wide_nor_too_slow(opened):
    """Forty results of one thing are in several rows. A chain of 2,500, each with a shared input, runs downwards."""
    shown = opened(drawn([None] * 41, [(0, number) for number in range(1, 41)]))
    boxes = shown.page.evaluate(BOXES).values()
    assert max(box["x"] + box["width"] for box in boxes) < 2400
    assert_apart(shown.page.evaluate(BOXES), [None] * 41)
    links = [*pairwise(range(2500)), *((0, number) for number in range(2, 2500))]
    shown = opened(drawn([None] * 2500, links, [*range(2500)]))
    places = [box["y"] for _, box in sorted(shown.page.evaluate(BOXES).items(), key=lambda each: int(each[0]))]
    assert places == sorted(set(places))
    assert len(places) == 2500
