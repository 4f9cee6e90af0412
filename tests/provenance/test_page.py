"""The page of a picture in a real browser. Without Chromium these tests are skipped."""

from __future__ import annotations

import socket
from itertools import combinations

import pytest

from ivcap_flows.notebook import Trace
from ivcap_flows.provenance import Graph, activity, entity, relation
from ivcap_flows.provenance.html import page
from ivcap_flows.reading import Lineage

BOXES = """() => [...document.querySelectorAll("#world [data-item]")].map(each => {
    const [x, y] = each.getAttribute("transform").match(/-?[\\d.]+/g).map(Number);
    const area = each.querySelector(".area");
    const [width, height] = area ? ["width", "height"].map(name => Number(area.getAttribute(name))) : [196, 42];
    return [x, y, x + width, y + height];
})"""

THROUGH = """() => {
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


class Opened:
    """A page in the browser, with its network requests and its messages."""

    def __init__(self, page):
        self.page, self.asked, self.complaints = page, [], []
        page.set_default_timeout(20_000)
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))

    def shown(self) -> int:
        """How many nodes are drawn, folded groups among them."""
        return self.page.locator("#nodes > .node").count()

    def node(self, name: str):
        """The first node or group whose spoken name begins with this text."""
        return self.page.locator(f'[data-item][aria-label^="{name}"]').first

    def wait_drawn(self):
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def assert_apart(self):
        """Assert that of two things that are drawn one is within the other, or they have no point in common."""
        self.wait_drawn()
        for one, other in combinations(self.page.evaluate(BOXES), 2):
            beside = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
            small, large = sorted((one, other), key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
            inside = large[0] < small[0] and large[1] < small[1] and small[2] < large[2] and small[3] < large[3]
            assert beside or inside, (one, other)


@pytest.fixture
def opened(chromium, tmp_path):
    """Return a function that opens a page from its HTML.

    At the end, no page has used the network, written to the console or raised.
    """
    pages = []

    def open_page(text, **options):
        path = tmp_path / f"page-{len(pages)}.html"
        path.write_text(text, encoding="utf-8")
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        made = Opened(context.new_page())
        made.page.goto(path.as_uri())
        made.wait_drawn()
        assert made.asked.pop(0) == path.as_uri()
        pages.append(made)
        return made

    yield open_page
    for each in pages:
        each.wait_drawn()
        assert (each.asked, each.complaints) == ([], [])
        each.page.context.close()


def test_the_page_opens_and_draws(opened, make_survey, make_neighbours):
    """A shape for each kind, a ring for what was traced, an arrow for each link, nothing over anything else. A click
    tells all that is on record, in the reader's time and language, and leads on. A search finds what is folded away."""
    shown = opened(page(make_survey(3), ["out"], title="What out.csv came from"))
    assert shown.page.title() == "What out.csv came from"
    assert "22 things, 34 relations" in shown.page.locator("#summary").inner_text()
    kinds = {kind: shown.page.locator(f"#nodes > .{kind}").count() for kind in ("activity", "entity", "agent")}
    assert kinds == {"activity": 7, "entity": 9, "agent": 1}
    assert shown.page.locator("#frames > .frame").count() == 5
    assert shown.node("out.csv").get_attribute("class").split() == ["node", "entity", "start"]
    assert shown.page.locator("#edges > .flow").count() == 16
    neighbours = opened(page(make_neighbours(3), ["own"]), viewport={"width": 420, "height": 800})
    assert neighbours.page.evaluate("document.documentElement.scrollWidth") <= 420
    for each in (shown, neighbours):
        each.assert_apart()
        assert each.page.evaluate(THROUGH) == []

    shown = opened(page(make_survey(30), ["out"]), timezone_id="America/Lima", locale="en-GB")
    details, count = shown.page.locator("#details"), shown.page.locator("#count")
    assert details.is_hidden()
    shown.page.keyboard.press("/")
    shown.page.keyboard.type("season 29")
    assert count.inner_text() == "1 found"
    assert "hit" in shown.node("Place order, 30 task runs").get_attribute("class")
    shown.page.keyboard.press("Enter")
    shown.wait_drawn()
    assert shown.node("Season 29").is_visible() and details.locator("h2").inner_text() == "Season 29"
    assert shown.node("Season 29").get_attribute("aria-selected") == "true"
    text = details.inner_text()
    assert "failed: it ended with an error" in text and "The season has no data." in text
    assert "order:29" in text and "1 Jul 2026, 07:00:00" in text
    details.get_by_role("button", name="in.csv").click()
    assert details.locator("h2").inner_text() == "in.csv"
    assert details.locator("h3", has_text="Used by (60)").count() == 1
    shown.page.fill("#search", "failed")
    for turn in ("1 of 3", "2 of 3", "3 of 3", "1 of 3"):
        shown.page.press("#search", "Enter")
        assert count.inner_text() == turn
    shown.page.press("#search", "Escape")
    assert shown.page.locator("#search").input_value() == "" and shown.page.locator(".hit").count() == 0


def test_groups_fold_and_unfold_where_they_are(opened, make_survey):
    """By their sign, which stays under the pointer, by keys, or all at once; nothing covers anything then."""
    shown = opened(page(make_survey(30), ["out"]), color_scheme="dark")
    begun, many = shown.shown(), '[aria-label^="Place order, 30 task runs"]'
    sign = shown.page.locator(f"{many} .toggle circle").first
    before = sign.bounding_box()
    sign.click()
    shown.wait_drawn()
    assert shown.shown() == begun + 29
    group = shown.page.locator(f"#frames > {many}")
    assert group.get_attribute("aria-expanded") == "true"
    after = group.locator("> .toggle circle").bounding_box()
    assert (after["x"], after["y"]) == pytest.approx((before["x"], before["y"]), abs=0.5)
    group.locator("> .toggle").click()
    shown.wait_drawn()
    assert shown.shown() == begun and shown.node("Place order, 30").get_attribute("aria-expanded") == "false"
    shown.page.click("#fold")
    assert shown.shown() == 3
    shown.assert_apart()
    shown.page.click("#unfold")
    assert shown.page.locator("#frames > .frame").count() == 2 + 4 + 30
    assert shown.shown() == 30 + 27 * 3 + 5
    shown.assert_apart()

    shown = opened(page(make_survey(30), ["out"]))
    press = shown.page.keyboard.press
    shown.page.locator('#world [tabindex="0"]').focus()
    trail = []
    for key in ("Home", "ArrowUp", "ArrowUp", "ArrowUp", "Space", "ArrowDown", "Home"):
        press(key)
        shown.wait_drawn()
        trail.append(shown.page.evaluate("document.activeElement.getAttribute('aria-label')").split(",")[0])
    assert trail == ["out.csv", "Join tables", "files", *["Download artifact"] * 3, "out.csv"]
    assert shown.shown() == begun + 26
    press("Enter")
    assert shown.page.locator("#details h2").inner_text() == "out.csv"
    press("Escape")
    assert shown.page.locator("#details").is_hidden()
    assert shown.page.evaluate("document.activeElement.dataset.item") is not None


NASTY = [
    "</script><script>document.title = 'taken'</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "'\"><b>bold</b>",
    "javascript:alert(1)",
    "{{data}} ${alert(1)} &lt;i&gt; \u202e\ud800",
]

CLICK = """index => {
    document.querySelectorAll(".node.activity")[index].dispatchEvent(new MouseEvent("click", { bubbles: true }));
}"""

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


def test_the_pages_policy_lets_in_nothing_else(opened, make_survey):
    """No name becomes markup; markup and scripts that are added later are blocked, and all requests. In a notebook's
    frame the page draws itself, and its script has no way to the notebook."""
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

    graph = make_survey(3)
    shown = opened(Trace(Lineage(("out",), graph, graph), "up")._repr_html_())
    frame = shown.page.frame_locator("iframe")
    assert frame.locator("h1").inner_text() == "Lineage of out.csv"
    assert frame.locator("#nodes > .node").count() > 5
    assert shown.page.evaluate("document.querySelector('iframe').contentDocument") is None
