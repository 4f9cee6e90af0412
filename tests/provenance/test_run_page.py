"""The page of a run among others, in a real browser: what its things are called, what is folded, what covers what, on
wide and narrow screens. Where there is no Chromium, these tests are skipped."""

from __future__ import annotations

import itertools

import pytest

from ivcap_flows.provenance import Graph, activity, entity, relation
from ivcap_flows.provenance.html import page

PHONE = {"width": 420, "height": 800}


def boxes(shown, *selectors):
    """Return where elements are on the screen: left, top, right, bottom."""
    shown.wait_drawn()
    found = [shown.page.locator(each).bounding_box() for each in selectors]
    return [(box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]) for box in found]


def names(shown):
    """Return the names of the drawn nodes and groups, with their notes."""
    return shown.page.evaluate("[...document.querySelectorAll('[data-item]')].map(each => each.ariaLabel)")


def test_tables_and_arrays_are_called_by_role_and_columns(opened, make_neighbours):
    """A table or array is named by its parameter, or else "result", with size, columns, variables or data type.

    A content is named by what holds it.
    """
    shown = opened(page(make_neighbours(2), ["own"]))
    assert {
        "weather, frame 100 x 3 · year, temperature, rain",
        "grid, array 20 x 5 · anomaly",
        "result, array 2 x 3 · float64",
    } <= set(names(shown))
    shown.page.fill("#search", "content")
    assert shown.page.locator("#results").inner_text().startswith("report.md")


def test_task_runs_are_called_by_their_own_names_and_tries_are_numbered(opened, make_neighbours):
    """Task runs have Prefect's names. If there are several tries, each shows its number and their count."""
    shown = opened(page(make_neighbours(0), ["own"]))
    assert {
        "load-1a2, task run, completed",
        "clean perth, task run, completed",
        "fit-3f2, task run · try 1 of 3, retried",
        "fit-3f2, task run · try 2 of 3, retried",
        "fit-3f2, task run · try 3 of 3, completed",
    } <= set(names(shown))


def test_a_stack_of_task_runs_is_called_by_their_task(opened):
    """A group of task runs has the task's name. Unfolded, each has its own name and the task's."""
    runs = [activity(f"t{n}", "task-run", name="clean", run_name=f"station {n}") for n in range(5)]
    shown = opened(page(Graph([activity("run", "flow-run", name="flow"), *runs, *_started(runs)]), ["run"]))
    assert any(name.startswith("clean, 5 task runs") for name in names(shown))
    shown.page.click("#unfold")
    assert "station 3, task run · clean, unknown" in names(shown)


def _started(runs):
    return [relation("wasStartedBy", each.id, "run") for each in runs]


@pytest.mark.parametrize("others", [3, 6])
def test_each_other_run_is_one_folded_thing(opened, make_neighbours, others):
    """The run's own things and inputs are open.

    Another run is one folded thing, and its sign unfolds all that is in it.
    """
    shown = opened(page(make_neighbours(others), ["own"]))
    groups = shown.page.locator('#nodes > [aria-label^="stations, flow run"]')
    assert groups.count() == others
    assert all(group.get_attribute("aria-expanded") == "false" for group in groups.all())
    called = [name.partition(" · 9 s")[0] for name in names(shown)]
    assert {f"stations, flow run · amber-fox-{number}" for number in range(others)} <= set(called)
    # Of the others' things only the report that this run took is seen.
    files = sorted(name for name in called if ", file" in name)
    assert [name.partition(",")[0] for name in files] == ["places.csv", "report.md", "report.md", "stations.csv"]
    assert "load-1a2, task run, completed" in called
    begun = shown.shown()
    groups.first.locator(".toggle").click()
    shown.wait_drawn()
    assert sum(name.startswith("places.csv, file") for name in names(shown)) == 2
    assert shown.shown() > begun


def test_the_page_of_a_file_shows_all_of_the_way_to_it(opened, make_neighbours):
    """Other runs are folded only on the page of a run."""
    shown = opened(page(make_neighbours(2), ["other0:report"]))
    assert sum(name.startswith("places.csv, file") for name in names(shown)) == 3


LOOKS = """selector => [...document.querySelectorAll(selector)].map(node => {
    const shape = getComputedStyle(node.querySelector(".shape"));
    const text = name => getComputedStyle(node.querySelector(name)).fill;
    return { fill: shape.fill, line: shape.stroke, title: text(".title"), note: text(".note") };
})"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_found_is_seen_over_all_else(opened, make_survey, contrast, scheme):
    """Every hit looks the same, whatever its outcome, its kind and the chosen lineage."""
    outcomes = ("failed", "lost", "running", "completed")
    tasks = [activity(word, "task-run", name=f"sought {word}", outcome=word) for word in outcomes]
    thing, apart = entity("e", "file", path="sought.csv"), activity("apart", "task-run", name="other", outcome="failed")
    graph = Graph([*tasks, thing, apart, *(relation("used", each.id, "e") for each in tasks[:2])])
    shown = opened(page(graph, ["e"]), color_scheme=scheme)
    [plain] = shown.page.evaluate(LOOKS, '.node[aria-label^="other"]')
    shown.page.fill("#search", "sought")
    shown.page.press("#search", "Enter")
    hits = shown.page.evaluate(LOOKS, ".node.hit")
    assert len(hits) == 5
    assert all(hit == hits[0] for hit in hits)
    assert hits[0]["fill"] != plain["fill"] and hits[0]["line"] != plain["line"]
    assert contrast(hits[0]["line"], hits[0]["fill"]) >= 3
    assert min(contrast(hits[0][text], hits[0]["fill"]) for text in ("title", "note")) >= 4.5


def test_the_legend_explains_the_lines_that_are_there(opened, make_neighbours, make_survey):
    """The legend shows the lines as they are drawn in the graph, and no others."""
    shown = opened(page(make_neighbours(2), ["own"]))
    legend = shown.page.locator("#legend")
    assert all(
        words in legend.inner_text()
        for words in (
            "used, or made by",
            "informed or influenced by it, or contains it",
            "the same content, or another name for it",
            "the code, service or person behind it",
        )
    )
    dashes = "each => getComputedStyle(document.querySelector(each)).strokeDasharray"
    for kind in ("flow", "weak", "same", "context"):
        drawn, explained = (shown.page.evaluate(dashes, f"{where} .edge.{kind}") for where in ("#edges", "#legend"))
        assert drawn == explained
    shown = opened(page(make_survey(1), ["out"]))
    assert "the same content" not in shown.page.locator("#legend").inner_text()


@pytest.mark.parametrize(
    "size",
    [pytest.param({"width": 1280, "height": 800}, id="wide", marks=pytest.mark.long), pytest.param(PHONE, id="narrow")],
)
def test_nothing_covers_the_graph(opened, make_neighbours, size):
    """Legend, details, header and graph do not overlap. The graph uses the room that the legend leaves."""
    shown = opened(page(make_neighbours(2), ["own"]), viewport=size)
    shown.page.locator("#frames > .frame").first.press("Enter")
    heights = []
    for _ in range(2):
        parts = boxes(shown, "header", "#stage", "#legend", "#details")
        for one, other in itertools.combinations(parts, 2):
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert all(part[0] >= 0 and part[2] <= size["width"] and part[3] <= size["height"] for part in parts)
        heights.append(parts[1][3] - parts[1][1])
        shown.page.click("#legend summary")
    assert abs(heights[0] - heights[1]) > 40


def test_the_small_map_is_there_where_not_all_is_in_view(opened, make_survey):
    """The small map is shown only if a part of the graph is out of view, and does not block clicks."""
    shown = opened(page(make_survey(1), ["out"]))
    shown.page.click("#fit")
    shown.wait_drawn()
    assert shown.page.locator("#map").is_hidden()
    for _ in range(6):
        shown.page.click("#in")
    shown.wait_drawn()
    assert shown.page.locator("#map").is_visible()


CUT = """() => [...document.querySelectorAll("h1, #summary, button, #legend div, aside *")]
    .filter(each => each.offsetParent && each.scrollWidth > each.clientWidth + 1
                    && getComputedStyle(each).display !== "inline")
    .map(each => each.textContent)"""


def test_the_page_is_used_on_a_phone(opened, make_neighbours):
    """At 420 pixels no text is cut and every control is reachable.

    The details do not cover the graph, and the legend begins folded.
    """
    title = "What hangs together with a_rather_long_name_of_a_report_that_nobody_has_shortened.md"
    shown = opened(page(make_neighbours(3), ["own"], title=title), viewport=PHONE)
    assert shown.page.locator("#legend").get_attribute("open") is None
    shown.node("clean perth").click()
    shown.wait_drawn()
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= 420
    assert shown.page.evaluate(CUT) == []
    for control in ("#search", "#fold", "#unfold", "#in", "#out", "#fit", "#legend summary", "#details .close"):
        [(left, top, right, bottom)] = boxes(shown, control)
        assert 0 <= left < right <= 420 and 0 <= top < bottom <= 800, control
    stage, details, chosen = boxes(shown, "#stage", "#details", '[data-item][aria-label^="clean perth"] .shape')
    assert stage[3] - stage[1] >= 250 and details[3] - details[1] >= 200
    assert stage[1] <= chosen[1] and chosen[3] <= stage[3]


TEXTS = """() => {
    const background = element => {
        for (let at = element; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor;
            if (!/, 0\\)$|transparent/.test(colour)) return colour;
        }
    };
    const says = each => [...each.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    return [...document.querySelectorAll("header *, #legend *, aside *")]
        .filter(each => !each.closest("svg") && says(each))
        .map(each => [each.textContent, getComputedStyle(each).color, background(each)]);
}"""


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.long)])
def test_texts_beside_the_graph_can_be_read(opened, make_survey, contrast, scheme):
    """Each text has the contrast of 4.5 that WCAG level AA requires."""
    shown = opened(page(make_survey(10), ["out"]), color_scheme=scheme)
    shown.page.fill("#search", "season 9")
    shown.page.press("#search", "Enter")
    texts = shown.page.evaluate(TEXTS)
    assert len(texts) > 40
    assert [each for each in texts if contrast(each[1], each[2]) < 4.5] == []
