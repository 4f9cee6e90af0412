"""The page of a picture in a real browser. Without Chromium this test is skipped."""

from __future__ import annotations

from itertools import combinations

import pytest
from surveys import make_survey

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

LOOK = """() => {
    const box = document.querySelector("#graph").getBoundingClientRect();
    const matrix = document.querySelector("#world").getScreenCTM();
    const point = new DOMPoint(box.x + box.width / 2, box.y + box.height / 2).matrixTransform(matrix.inverse());
    return [matrix.a, point.x, point.y];
}"""
"""The scale of the picture, and which of its points lies in the middle of its window."""

MAPPED = """([x, y]) => {
    const point = new DOMPoint(x, y).matrixTransform(document.querySelector("#map").getScreenCTM().inverse());
    return [point.x, point.y];
}"""
"""The point of the picture that lies here on the small map."""

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


def test_the_page_opens_and_draws(chromium, tmp_path):
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


PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}


@pytest.mark.catches("one layout")
def test_the_page_on_a_phone(chromium, tmp_path):
    """Nothing lies beside the screen. A tap tells of a thing below the picture, which keeps a third of the screen and
    more, and a tap on the cross closes that again."""
    phone = Opened(
        chromium, tmp_path / "phone.html", page(make_survey(30), ["out"], title="What out.csv came from"), **PHONE
    )

    def boxes(*places):
        return [phone.page.locator(place).bounding_box() for place in places]

    def assert_on_the_screen():
        assert phone.page.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [390, 390]
        assert phone.page.evaluate("document.documentElement.scrollHeight") == 844
        for box in boxes("#search", "#fold", "#unfold", "#out", "#fit", "#in", "#stage"):
            assert box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["y"] + box["height"] <= 844

    assert_on_the_screen()
    details = phone.page.locator("#details")
    assert not details.is_visible()
    phone.node("out.csv").tap()
    phone.wait_drawn()
    assert details.locator("h2").inner_text() == "out.csv"
    assert_on_the_screen()
    stage, told = boxes("#stage", "#details")
    assert stage["height"] > 844 / 3 and told["y"] >= stage["y"] + stage["height"] and told["width"] == 390
    details.locator(".close").tap()
    assert not details.is_visible()
    phone.close()


class Fingers:
    """Fingers on the screen of a page."""

    def __init__(self, page):
        self._send = page.context.new_cdp_session(page).send

    def draw(self, *paths, steps=20):
        """Put down a finger for each path (from, to), draw all at once, and lift them."""

        def at(share):
            return [
                {"x": x + (to_x - x) * share, "y": y + (to_y - y) * share, "id": number}
                for number, ((x, y), (to_x, to_y)) in enumerate(paths)
            ]

        self._touch("touchStart", at(0))
        for step in range(1, steps + 1):
            self._touch("touchMove", at(step / steps))
        self._touch("touchEnd", [])

    def _touch(self, kind, points):
        self._send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


def middle(box):
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


@pytest.fixture
def on_both(chromium, tmp_path):
    """One page on a desk and on a phone."""
    survey = page(make_survey(30), ["out"])
    opened = (
        Opened(chromium, tmp_path / "desk.html", survey, viewport={"width": 1200, "height": 800}),
        Opened(chromium, tmp_path / "phone.html", survey, **PHONE),
    )
    yield opened
    for each in opened:
        each.close()


@pytest.mark.catches("a drag is a click")
def test_a_mouse_and_a_finger_drag_the_picture(on_both):
    """The picture goes as far as the pointer, from a node on too, and what is chosen stays so. The small map shows what
    is in view, and leads there."""
    desk, phone = on_both

    def by_mouse(begin, end):
        desk.page.mouse.move(*begin)
        desk.page.mouse.down()
        desk.page.mouse.move(*end, steps=20)
        desk.page.mouse.up()

    fingers = Fingers(phone.page)
    for opened, draw in ((desk, by_mouse), (phone, lambda *path: fingers.draw(path))):
        node, details = opened.node("out.csv"), opened.page.locator("#details")
        for chosen in (False, True):
            if chosen:
                node.click()
                opened.wait_drawn()
            x, y = middle(node.bounding_box())
            draw((x, y), (x - 70, y - 60))
            opened.wait_drawn()
            assert middle(node.bounding_box()) == pytest.approx((x - 70, y - 60), abs=1.5)
            assert details.is_visible() == chosen
            assert opened.page.evaluate("[scrollX, scrollY]") == [0, 0]

    x, y = middle(desk.page.locator("#map").bounding_box())
    desk.page.mouse.click(x, y - 20)
    desk.wait_drawn()
    assert middle(desk.page.locator("#window").bounding_box()) == pytest.approx((x, y - 20), abs=1.5)
    assert desk.page.evaluate(LOOK)[1:] == pytest.approx(desk.page.evaluate(MAPPED, [x, y - 20]), abs=1)


@pytest.mark.catches("zoom at the corner")
def test_a_wheel_and_two_fingers_zoom_where_they_point(on_both):
    """What is under them stays there. Buttons and keys zoom into the middle, within limits, and show the whole picture
    again."""
    desk, phone = on_both

    def by_wheel(x, y):
        desk.page.mouse.move(x, y)
        desk.page.mouse.wheel(0, -400)

    def by_fingers(x, y):
        Fingers(phone.page).draw(((x - 50, y), (x - 100, y)), ((x + 50, y), (x + 100, y)))

    for opened, zoom in ((desk, by_wheel), (phone, by_fingers)):
        node = opened.node("out.csv")
        before = node.bounding_box()
        zoom(*middle(before))
        opened.wait_drawn()
        after = node.bounding_box()
        assert middle(after) == pytest.approx(middle(before), abs=4)
        assert 1.8 < after["width"] / before["width"] < 2.1

    click, press = desk.page.click, desk.page.keyboard.press
    for act, name, factor in ((click, "#in", 1.25), (press, "+", 1.25), (click, "#out", 0.8), (press, "-", 0.8)):
        scale, *point = desk.page.evaluate(LOOK)
        act(name)
        desk.wait_drawn()
        assert desk.page.evaluate(LOOK) == pytest.approx([scale * factor, *point], abs=0.01)
    for act, name, key, limit in ((click, "#fit", "+", 3), (press, "0", "-", 0.02)):
        for _ in range(30):
            press(key)
        desk.wait_drawn()
        assert desk.page.evaluate(LOOK)[0] == pytest.approx(limit)
        act(name)
        desk.wait_drawn()
        whole, window = (desk.page.locator(place).bounding_box() for place in ("#world", "#graph"))
        for start, size in (("x", "width"), ("y", "height")):
            assert window[start] <= whole[start]
            assert whole[start] + whole[size] <= window[start] + window[size]


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


def test_a_notebook_shows_the_page_in_a_frame_of_its_own():
    """Its script has no way to the notebook."""
    graph = make_survey(3)
    assert (
        Trace(Lineage(("out",), graph, graph), "up")._repr_html_().startswith('<iframe sandbox="allow-scripts" style=')
    )
