"""The page of a picture in a real browser. Without Chromium these tests are skipped."""

from __future__ import annotations

import itertools
import re
import socket
from datetime import datetime, timezone

import pytest

from ivcap_flows.notebook import Trace
from ivcap_flows.provenance import Graph, activity, entity, relation
from ivcap_flows.provenance.html import page
from ivcap_flows.provenance.picture import OUTCOMES
from ivcap_flows.reading import Lineage

NASTY = [
    "</script><script>document.title = 'taken'</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "'\"><b>bold</b>",
    "javascript:alert(1)",
    "{{data}} ${alert(1)} &lt;i&gt; \u202e\ud800",
]


def place(opened):
    """Return the position of the drawing: x, y and scale."""
    opened.wait_drawn()
    moved = opened.page.locator("#world").get_attribute("transform")
    return tuple(float(number) for number in re.findall(r"-?[\d.]+(?:e-?\d+)?", moved))


def test_the_page_shows_the_graph_and_tells_of_it(opened, make_survey):
    """The page has a title, a count, and a shape for each kind. The traced thing has a ring, and each link an arrow."""
    shown = opened(page(make_survey(3), ["out"], title="What out.csv came from"))
    assert shown.page.title() == "What out.csv came from"
    assert "22 things, 34 relations" in shown.page.locator("#summary").inner_text()
    kinds = {kind: shown.page.locator(f"#nodes > .{kind}").count() for kind in ("activity", "entity", "agent")}
    assert kinds == {"activity": 7, "entity": 9, "agent": 1}
    assert shown.page.locator("#frames > .frame").count() == 5
    assert shown.node("out.csv").get_attribute("class").split() == ["node", "entity", "start"]
    assert shown.page.locator("#edges > .flow").count() == 16


def test_a_click_tells_all_that_is_on_record(opened, make_survey):
    """A click shows outcome, cause, id and relations, which lead on.

    Escape closes the details and restores the focus.
    """
    shown = opened(page(make_survey(10), ["out"]))
    details = shown.page.locator("#details")
    assert details.is_hidden()
    shown.page.click("#unfold")
    shown.node("Season 9").click()
    text = details.inner_text()
    assert "Season 9" in text and "failed: it ended with an error" in text and "The season has no data." in text
    assert "order:9" in text and "Jul 1, 2026" in text
    assert shown.node("Season 9").get_attribute("aria-selected") == "true"
    details.get_by_role("button", name="in.csv").click()
    assert details.locator("h2").inner_text() == "in.csv"
    assert details.locator("h3", has_text="Used by (20)").count() == 1
    shown.page.keyboard.press("Escape")
    assert details.is_hidden()
    assert shown.page.evaluate("document.activeElement.dataset.item") is not None


def test_groups_fold_and_unfold_where_they_are(opened, make_survey):
    """Groups fold by their sign, or all at once. The sign that was clicked stays under the pointer."""
    shown = opened(page(make_survey(30), ["out"]))
    begun = shown.shown()
    group = shown.node("Place order, 30 task runs")
    assert group.get_attribute("aria-expanded") == "false"
    sign = group.locator(".toggle circle")
    before = sign.bounding_box()
    sign.click()
    shown.wait_drawn()
    assert shown.shown() == begun + 29
    opened_group = shown.page.locator('#frames > [aria-label^="Place order, 30 task runs"]')
    assert opened_group.get_attribute("aria-expanded") == "true"
    after = opened_group.locator("> .toggle circle").bounding_box()
    assert (after["x"], after["y"]) == pytest.approx((before["x"], before["y"]), abs=0.5)
    opened_group.locator("> .toggle").click()
    shown.wait_drawn()
    assert shown.shown() == begun
    shown.page.click("#fold")
    assert shown.shown() == 3
    shown.page.click("#unfold")
    assert shown.page.locator("#frames > .frame").count() == 2 + 4 + 30
    assert shown.shown() == 30 + 27 * 3 + 5


def test_a_search_finds_what_is_folded_away(opened, make_survey):
    """The search finds names, ids, outcomes and attributes.

    A hit in a folded group marks the group, and Enter shows it.
    """
    shown = opened(page(make_survey(30), ["out"]))
    shown.page.keyboard.press("/")
    shown.page.keyboard.type("season 17")
    assert shown.page.locator("#count").inner_text() == "2 found"
    assert "hit" in shown.node("Place order, 30 task runs").get_attribute("class")
    assert shown.page.locator("#results li").first.inner_text().startswith("Season 17")
    shown.page.keyboard.press("Enter")
    shown.wait_drawn()
    assert shown.node("Season 17").is_visible()
    box, stage = (shown.page.locator(name).bounding_box() for name in ('[aria-label^="Season 17"]', "#graph"))
    assert stage["x"] < box["x"] < stage["x"] + stage["width"] and stage["y"] < box["y"] < stage["y"] + stage["height"]
    assert shown.page.locator("#details h2").inner_text() == "Season 17"
    search = shown.page.locator("#search")
    for words, count in {
        "failed no data": "3 found",
        "order:7": "1 found",
        "5508": "1 found",
        "nothing": "none",
    }.items():
        search.fill(words)
        assert shown.page.locator("#count").inner_text() == count
    search.fill("failed")
    for turn in ("1 of 3", "2 of 3", "3 of 3", "1 of 3"):
        search.press("Enter")
        assert shown.page.locator("#count").inner_text() == turn
    search.press("Escape")
    assert search.input_value() == "" and shown.page.locator(".hit").count() == 0


def test_everything_can_be_done_by_keys(opened, make_survey):
    """Tab leads to the traced thing and arrows along the data and to neighbours.

    Space folds, and Enter shows the details.
    """
    shown = opened(page(make_survey(30), ["out"]))
    press = shown.page.keyboard.press
    focused = "document.activeElement.getAttribute('aria-label')"
    for _ in range(12):
        press("Tab")
        if shown.page.evaluate("document.activeElement.closest('#world') !== null"):
            break
    trail = [shown.page.evaluate(focused)]
    for key in ("ArrowUp", "ArrowUp", "ArrowUp", "Space", "ArrowDown", "ArrowRight", "Home"):
        press(key)
        shown.wait_drawn()
        trail.append(shown.page.evaluate(focused))
    names = [name.split(",")[0] for name in trail]
    assert names == ["out.csv", "Join tables", "files", "Download artifact", *["Download artifact"] * 3, "out.csv"]
    assert len(set(trail[3:7])) <= 3 and shown.shown() > 30
    press("Enter")
    assert shown.page.locator("#details h2").inner_text() == "out.csv"
    before = place(shown)
    press("+")
    assert place(shown)[2] == pytest.approx(before[2] * 1.25)
    press("0")
    assert shown.page.locator("#world [tabindex='0']").count() == 1


def test_the_drawing_pans_and_zooms(opened, make_survey):
    """Dragging moves the drawing, the wheel zooms at the pointer, and a button shows all of it again."""
    shown = opened(page(make_survey(5), ["out"]))
    shown.page.click("#fit")
    mouse, begun = shown.page.mouse, place(shown)
    mouse.move(60, 120)
    mouse.down()
    mouse.move(100, 140, steps=4)
    mouse.up()
    x, y, scale = place(shown)
    assert (x, y, scale) == pytest.approx((begun[0] + 40, begun[1] + 20, begun[2]))
    box = shown.page.locator("#graph").bounding_box()
    under = [(500 - box["x"] - x) / scale, (400 - box["y"] - y) / scale]
    mouse.move(500, 400)
    mouse.wheel(0, -300)
    shown.page.wait_for_function(
        "before => document.getElementById('world').getAttribute('transform') !== before",
        arg=f"translate({x} {y}) scale({scale})",
    )
    x, y, larger = place(shown)
    assert larger > scale * 1.2
    assert [(500 - box["x"] - x) / larger, (400 - box["y"] - y) / larger] == pytest.approx(under, abs=0.5)
    shown.page.click("#fit")
    assert place(shown) == pytest.approx(begun)
    assert shown.page.locator("#details").is_hidden()


CLICK = """index => {
    document.querySelectorAll(".node.activity")[index].dispatchEvent(new MouseEvent("click", { bubbles: true }));
}"""


def test_no_name_becomes_markup(opened):
    """Names are shown as text everywhere, and no script but the page's own runs."""
    records = []
    for number, name in enumerate(NASTY):
        records += [
            activity(f"run{number}", "call", name=f"{name} c"),
            activity(name, "task-run", name=name, cause=name, outcome="failed", parameters={name: [name]}),
            relation("wasStartedBy", name, f"run{number}"),
            entity(f"e{number}", "file", path=name, media_type=name),
            relation("used", name, f"e{number}", role=name),
        ]
    shown = opened(page(Graph(records), ["e0"], title=NASTY[0]))
    assert shown.page.title() == NASTY[0]
    for number, name in enumerate(NASTY):
        shown.page.evaluate(CLICK, number)
        assert shown.page.locator("#details h2").text_content() == name
    shown.page.fill("#search", "alert")
    tags = shown.page.evaluate("[...new Set([...document.querySelectorAll('body *')].map(each => each.localName))]")
    assert not {"img", "iframe", "a", "b", "i", "object", "foreignObject"} & set(tags)
    assert shown.page.evaluate("document.scripts.length") == 2


def test_a_notebook_has_the_page_in_a_frame(opened, make_survey):
    """The page draws itself there, and its script has no way to the notebook."""
    graph = make_survey(3)
    shown = opened(Trace(Lineage(("out",), graph, graph), "up")._repr_html_())
    frame = shown.page.frame_locator("iframe")
    assert frame.locator("h1").inner_text() == "Lineage of out.csv"
    assert frame.locator("#nodes > .node").count() > 5
    assert shown.page.evaluate("document.querySelector('iframe').contentDocument") is None


def test_the_pages_policy_lets_in_nothing_else(opened, make_survey):
    """The policy blocks markup and scripts that are added later, and all requests."""
    shown = opened(page(make_survey(1), ["out"]))
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        refused = shown.page.evaluate(TRIES, f"http://127.0.0.1:{server.getsockname()[1]}/")
        with pytest.raises(TimeoutError):
            server.accept()
    assert {"innerHTML", "script text", "connect-src", "img-src"} <= set(refused)
    assert shown.page.evaluate("window.taken") is None
    # The browser tells of what it refused; that was the point.
    shown.complaints.clear()
    shown.asked.clear()


TRIES = """async url => {
    const refused = [];
    document.addEventListener("securitypolicyviolation", event => refused.push(event.effectiveDirective));
    try { document.body.innerHTML = "<b>x</b>"; } catch { refused.push("innerHTML"); }
    const script = document.createElement("script");
    try { script.textContent = "window.taken = true"; } catch { refused.push("script text"); }
    await fetch(url).catch(() => {});
    const image = new Image();
    image.src = url + "x.png";
    await new Promise(done => setTimeout(done, 50));
    return refused;
}"""


COLOURS = """() => [...document.querySelectorAll(".node")].map(node => {
    const look = (name, what) => {
        const found = node.querySelector(name);
        return found && getComputedStyle(found)[what];
    };
    const sign = node.querySelector(".sign");
    const solid = sign && !sign.classList.contains("hollow");
    return {
        fill: look(".shape", "fill"), title: look(".title", "fill"), note: look(".note", "fill"),
        sign: solid ? look(".body", "fill") : look(".body", "stroke"),
        mark: look(".mark", "stroke"), within: look(".body", "fill"),
        outcome: [...(sign?.classList ?? [])].find(name => name !== "sign" && name !== "hollow"),
        form: sign && sign.querySelector(".body").getAttribute("d") + sign.querySelector(".mark").getAttribute("d"),
    };
})"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_outcomes_differ_in_shape_and_can_be_read(opened, contrast, scheme):
    """Each outcome has a sign that differs without colour and is in the legend.

    Text has a contrast of 4.5 and signs of 3, in both themes (WCAG).
    """
    graph = Graph(
        [
            *(activity(f"t{n}", "task-run", name=f"step {n}", outcome=word) for n, word in enumerate(OUTCOMES)),
            entity("e", "file", path="data.csv"),
            relation("used", "t0", "e"),
        ]
    )
    shown = opened(page(graph, ["e"]), color_scheme=scheme)
    looks = shown.page.evaluate(COLOURS)
    signed = [look for look in looks if look["outcome"]]
    assert {look["outcome"] for look in signed} == set(OUTCOMES)
    assert all(one["form"] != other["form"] for one, other in itertools.combinations(signed, 2))
    for look in looks:
        assert contrast(look["title"], look["fill"]) >= 7
        assert contrast(look["note"], look["fill"]) >= 4.5
    for look in signed:
        assert contrast(look["sign"], look["fill"]) >= 3, look
        assert contrast(look["mark"], look["within"]) >= 3, look
    legend = shown.page.locator("#signs").inner_text()
    assert all(f"{word}: {meaning}" in legend for word, meaning in OUTCOMES.items())


@pytest.mark.long
def test_two_thousand_nodes_are_read_and_unfolded(opened, make_survey):
    """A page of 2,000 nodes opens in two seconds, mostly folded. It unfolds, finds one node and folds again.

    Each further step takes only a part of a minute.
    """
    graph = make_survey(430)
    assert len(graph.nodes) > 2000
    shown = opened(page(graph, ["out"]))
    shown.page.set_default_timeout(60_000)
    assert shown.page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd") < 2000
    assert shown.shown() < 20
    shown.page.click("#unfold")
    assert shown.shown() + shown.page.locator("#frames > .frame").count() > 2000
    shown.page.fill("#search", "season 333")
    shown.page.press("#search", "Enter")
    assert shown.page.locator("#details h2").inner_text() == "Season 333"
    shown.page.click("#fold")
    assert shown.shown() == 3


def test_times_are_told_by_the_readers_clock(opened):
    """Times are shown in the browser's time zone and language."""
    task = activity("t", "task-run", datetime(2026, 7, 1, 12, tzinfo=timezone.utc), name="step")
    shown = opened(page(Graph([task])), timezone_id="America/Lima", locale="en-GB")
    shown.node("step").click()
    assert "1 Jul 2026, 07:00:00" in shown.page.locator("#details").inner_text()
