"""The page of a picture in a real browser. Without Chromium this test is skipped."""

from __future__ import annotations

from itertools import combinations

from ivcap_flows.notebook import Trace
from ivcap_flows.plain_text import visible
from ivcap_flows.provenance import Graph, activity, entity, relation
from ivcap_flows.provenance.html import page
from ivcap_flows.reading import Lineage

BOXES = """() => [...document.querySelectorAll("#world [data-item]")].map(each => {
    const [x, y] = each.getAttribute("transform").match(/-?[\\d.]+/g).map(Number);
    const area = each.querySelector(".area");
    const { width, height } = (area ?? each.querySelector(".shape")).getBBox();
    return [x, y, x + width, y + height];
})"""

THROUGH = """() => {
    const boxes = [...document.querySelectorAll("#nodes > .node")].map(each =>
        [each.dataset.item, each.ariaLabel, ...each.getAttribute("transform").match(/-?[\\d.]+/g).map(Number),
            each.querySelector(".shape").getBBox().width]);
    return [...document.querySelectorAll("#edges > .edge")].flatMap(path => {
        const ends = path.dataset.edge.split(" ");
        const points = Array.from({ length: path.getTotalLength() / 4 }, (_, step) => path.getPointAtLength(4 * step));
        return boxes.filter(([item, , x, y, width]) => !ends.includes(item)
            && points.some(point => point.x > x && point.x < x + width && point.y > y && point.y < y + 42))
            .map(([, name]) => `${path.dataset.edge} through ${name}`);
    });
}"""


NASTY = "</script><script>document.title = 'taken'</script><img src=x onerror=alert(1)>{{data}} \u202e\ud800"

TRIES = """async () => {
    const refused = [];
    const request = new Promise(done => document.addEventListener("securitypolicyviolation", event => {
        refused.push(event.effectiveDirective);
        if (event.effectiveDirective === "connect-src") done();
    }));
    try { document.body.innerHTML = "<b>x</b>"; } catch { refused.push("innerHTML"); }
    const script = document.createElement("script");
    try { script.textContent = "window.taken = true"; } catch { refused.push("script text"); }
    await fetch("http://127.0.0.1:9/").catch(() => {});
    await request;
    return refused;
}"""


class Opened:
    """A page in the browser, with its network requests and its messages."""

    def __init__(self, chromium, file, text, **options):
        file.write_text(text, encoding="utf-8")
        self.page, self.asked, self.complaints = chromium.new_page(**options), [], []
        self.page.set_default_timeout(20_000)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(file.as_uri())
        self.wait_drawn()
        assert (self.asked, self.complaints) == ([file.as_uri()], [])

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

    def close(self):
        """Assert that the page used no network and wrote nothing to the console."""
        self.wait_drawn()
        assert (len(self.asked), self.complaints) == (1, [])
        self.page.close()


def test_the_page_opens_and_draws(chromium, tmp_path, make_survey):
    """A shape for each kind, a ring for what was traced, an arrow for each link, nothing over anything else. A click
    tells all that is on record, in the reader's time, and a search finds what is folded away. Groups fold and unfold by
    their sign, which stays under the pointer, by keys, or all at once. No name becomes markup, and markup, scripts and
    requests that are added later are refused."""
    few = Opened(chromium, tmp_path / "few.html", page(make_survey(3), ["out"], title="What out.csv came from"))
    assert few.page.title() == "What out.csv came from"
    assert "22 things, 34 relations" in few.page.locator("#summary").inner_text()
    kinds = {kind: few.page.locator(f"#nodes > .{kind}").count() for kind in ("activity", "entity", "agent")}
    assert kinds == {"activity": 7, "entity": 9, "agent": 1}
    assert (few.page.locator("#frames > .frame").count(), few.page.locator("#edges > .flow").count()) == (5, 16)
    assert few.node("out.csv").get_attribute("class").split() == ["node", "entity", "start"]
    few.assert_apart()
    assert few.page.evaluate(THROUGH) == []
    few.close()

    survey = page(make_survey(30), ["out"])
    many = Opened(chromium, tmp_path / "many.html", survey, timezone_id="America/Lima", locale="en-GB")
    details, count, begun = many.page.locator("#details"), many.page.locator("#count"), many.shown()
    many.page.locator('#world [tabindex="0"]').focus()
    trail = []
    for key in ("Home", "ArrowUp", "ArrowUp", "ArrowUp", "Space", "ArrowDown", "Space", "Home"):
        many.page.keyboard.press(key)
        many.wait_drawn()
        trail.append(many.page.evaluate("document.activeElement.getAttribute('aria-label')").split(",")[0])
    assert trail[:5] == ["out.csv", "Join tables", "files", "Download artifact", "Download artifact"]
    many.page.keyboard.press("/")
    many.page.keyboard.type("season 29")
    assert count.inner_text() == "1 found"
    assert "hit" in many.node("Place order, 30 task runs").get_attribute("class")
    many.page.keyboard.press("Enter")
    many.wait_drawn()
    text = details.inner_text()
    assert many.node("Season 29").is_visible() and details.locator("h2").inner_text() == "Season 29"
    assert (
        "failed: it ended with an error" in text
        and "The season has no data." in text
        and "1 Jul 2026, 07:00:00" in text
    )
    details.get_by_role("button", name="in.csv").click()
    assert details.locator("h3", has_text="Used by (60)").count() == 1
    many.page.press("#search", "Escape")
    many.page.click("#fold")
    assert many.shown() == 3
    many.assert_apart()
    many.page.click("#unfold")
    assert many.page.locator("#frames > .frame").count() == 2 + 4 + 30
    assert many.shown() == 30 + 27 * 3 + 5 > begun
    many.assert_apart()
    many.close()

    records = [
        activity("run", "call", name=f"{NASTY} c"),
        activity(NASTY, "task-run", name=NASTY, cause=NASTY, outcome="failed", parameters={NASTY: [NASTY]}),
        relation("wasStartedBy", NASTY, "run"),
        entity("e", "file", path=NASTY, media_type=NASTY),
        relation("used", NASTY, "e", role=NASTY),
    ]
    nasty = Opened(chromium, tmp_path / "nasty.html", page(Graph(records), ["e"], title="nasty"))
    nasty.page.locator(".node.activity").first.dispatch_event("click")
    assert nasty.page.locator("#details h2").text_content() == visible(NASTY) and nasty.page.title() == "nasty"
    tags = nasty.page.evaluate("[...new Set([...document.querySelectorAll('body *')].map(each => each.localName))]")
    assert not {"img", "iframe", "a", "b", "i", "object", "foreignObject"} & set(tags)
    assert {"innerHTML", "script text", "connect-src"} <= set(nasty.page.evaluate(TRIES))
    assert nasty.page.evaluate("window.taken") is None


def test_names_are_whole_where_there_is_room(chromium, tmp_path):
    """A node and a frame are as wide as their words, within limits. The words of a frame lie over the lines."""
    name, long = "Monthly sea surface temperature", "x" * 200
    records = [
        *(activity("run", "flow-run", name=name), activity("load", "task-run", name=f"load {name}")),
        *(entity("in", "file", path=f"{name}.csv"), entity("out", "file", path=long)),
        *(relation("wasStartedBy", "load", "run"), relation("used", "load", "in"), relation("used", "load", "out")),
    ]
    wide = Opened(chromium, tmp_path / "wide.html", page(Graph(records), ["in"]))
    titles = wide.page.locator(".title").all_text_contents()
    assert {name, f"load {name}", f"{name}.csv"} <= set(titles) and long not in titles
    wide.assert_apart()
    layers = [each.get_attribute("id") for each in wide.page.locator("#world > g").all()]
    assert layers == ["frames", "edges", "titles", "nodes"]
    assert wide.page.locator("#titles text").first.evaluate("each => getComputedStyle(each).paintOrder") == "stroke"
    wide.close()


def test_a_notebook_shows_the_page_in_a_frame_of_its_own(make_survey):
    """Its script has no way to the notebook."""
    graph = make_survey(3)
    assert (
        Trace(Lineage(("out",), graph, graph), "up")._repr_html_().startswith('<iframe sandbox="allow-scripts" style=')
    )
