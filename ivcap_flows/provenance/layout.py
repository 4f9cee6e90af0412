"""Places for the nodes of a nested graph, drawn from top to bottom: a layered layout in plain Python.

Each group is laid out separately, innermost first, and is then one large node of the group around it. Its nodes get a
layer (Sugiyama, Tagawa and Toda 1981), are ordered within it by the mean place of their neighbours, and move as near to
these as their order allows. A link that passes layers or leaves its group keeps a lane free on its way.

Equal graphs have equal layouts.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final, NamedTuple

__all__ = ["HEADER", "NODE", "PAD", "Box", "Layout", "Point", "layout", "ranks"]

NODE: Final = (196.0, 42.0)
"""Width and height of a node, in pixels, as all lengths here."""

PAD: Final = 16.0
HEADER: Final = 30.0
"""The space that a group keeps around its content, and above that for its title."""

_GAP_X: Final = 26.0
_GAP_Y: Final = 36.0
_LANE: Final = 8.0
_WIDE: Final = 8 * (NODE[0] + _GAP_X)
_HEAP: Final = 5 * (NODE[0] + _GAP_X)
"""The smallest widths at which a layer is broken into rows: in general, and in a group without links in it."""

_SWEEPS: Final = 10
_LANES: Final = 6
"""Links get lanes as long as there are at most this many for each node. The longest links go without."""


Point = tuple[float, float]


class Box(NamedTuple):
    """A rectangle by its upper left corner and its size."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Layout:
    """The place of every node and group, and the points between the ends of each link that is not straight."""

    boxes: dict[str, Box]
    routes: dict[tuple[str, str], list[Point]]


def _order_of(
    nodes: Sequence[str], links: Iterable[tuple[str, str]], weak: Iterable[tuple[str, str]]
) -> dict[str, int]:
    """Return the place of each node in an order in which links point forwards, except those that close a cycle.

    Weak links point forwards if the other links allow it.
    """
    after: dict[str, list[tuple[str, int]]] = defaultdict(list)
    before = {node: [0, 0] for node in nodes}
    for weakness, pairs in enumerate((links, weak)):
        for source, target in pairs:
            after[source].append((target, weakness))
            before[target][weakness] += 1
    free = deque(node for node in nodes if before[node] == [0, 0])
    able = deque(node for node in nodes if before[node][0] == 0)
    rest = iter(nodes)
    order: dict[str, int] = {}
    while len(order) < len(before):
        node = free.popleft() if free else able.popleft() if able else next(rest)
        if node in order:
            continue
        order[node] = len(order)
        for target, weakness in after[node]:
            before[target][weakness] -= 1
            if before[target] == [0, 0]:
                free.append(target)
            elif before[target][0] == 0:
                able.append(target)
    return order


def ranks(
    nodes: Sequence[str], links: Sequence[tuple[str, str]], weak: Sequence[tuple[str, str]] = (), *, tight: bool = True
) -> dict[str, int]:
    """Return the maximum number of links before each node.

    If `tight`, a node with more links after it than before it is placed just before its first user. A link that closes
    a cycle is reversed, and so is a weak link that points back.
    """
    order = _order_of(nodes, links, weak)
    before, after = _neighbours(_onwards([*links, *weak], order))
    rank: dict[str, int] = {}
    for node in sorted(nodes, key=order.__getitem__):
        rank[node] = max((rank[other] + 1 for other in before[node]), default=0)
    if not tight:
        return rank
    for node in sorted(nodes, key=order.__getitem__, reverse=True):
        if len(after[node]) > len(before[node]):
            rank[node] = min(rank[other] for other in after[node]) - 1
    return rank


def _onwards(links: Iterable[tuple[str, str]], order: Mapping[str, int]) -> list[tuple[str, str]]:
    return [(a, b) if order[a] < order[b] else (b, a) for a, b in links]


def _neighbours(links: Iterable[tuple[str, str]]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    before: dict[str, list[str]] = defaultdict(list)
    after: dict[str, list[str]] = defaultdict(list)
    for source, target in dict.fromkeys(links):
        before[target].append(source)
        after[source].append(target)
    return before, after


def layout(
    parents: Mapping[str, str | None],
    links: Iterable[tuple[str, str]],
    weak: Iterable[tuple[str, str]] = (),
) -> Layout:
    """Place nodes and groups. `parents` gives the group of each, or None, and lists a group before its members.

    A link points downwards, from what came first to what came of it. A weak link does so only if nothing else decides.
    """
    work = _Nest(parents)
    for strong, pairs in ((True, links), (False, weak)):
        for source, target in dict.fromkeys(pairs):
            work.link(source, target, strong)
    return work.placed()


@dataclass
class _Links:
    """The links within one group, and the members of the group that are linked with the outside."""

    strong: dict[tuple[str, str], None]
    weak: dict[tuple[str, str], None]
    entered: dict[str, None]
    left: dict[str, None]


@dataclass(frozen=True)
class _Drawn:
    """The layout of one group: boxes and lanes relative to its corner."""

    size: tuple[float, float]
    boxes: dict[str, Box]
    routes: dict[tuple[str, str], list[Point]]
    entries: dict[str, list[Point]]
    exits: dict[str, list[Point]]


_ROOT: Final = ""
"""The group of everything that is in no other group."""


class _Nest:
    def __init__(self, parents: Mapping[str, str | None]) -> None:
        self._parents = {node: parent or _ROOT for node, parent in parents.items()}
        self._members: dict[str, list[str]] = defaultdict(list)
        for node, parent in self._parents.items():
            self._members[parent].append(node)
        self._links = {group: _Links({}, {}, {}, {}) for group in [_ROOT, *self._parents]}
        self._ways: dict[tuple[str, str], tuple[list[str], list[str]]] = {}

    def link(self, source: str, target: str, strong: bool) -> None:
        up, down = self._trail(source), self._trail(target)
        common = next(group for group in up if group in set(down))
        leaving, entering = up[: up.index(common)], down[: down.index(common)]
        if not leaving or not entering:
            # A group and something in it: there is no space between them for a link.
            return
        within = self._links[common]
        (within.strong if strong else within.weak)[leaving[-1], entering[-1]] = None
        for member, group in pairwise(leaving):
            self._links[group].left[member] = None
        for member, group in pairwise(entering):
            self._links[group].entered[member] = None
        self._ways[source, target] = leaving, entering

    def _trail(self, node: str) -> list[str]:
        """Return a node and the groups around it, innermost first."""
        trail = [node]
        while trail[-1] != _ROOT:
            trail.append(self._parents[trail[-1]])
        return trail

    def placed(self) -> Layout:
        drawn: dict[str, _Drawn] = {}
        sizes = dict.fromkeys(self._parents, NODE)
        for group in [*reversed(self._links), _ROOT]:
            if self._members[group] and group not in drawn:
                drawn[group] = _arranged(self._members[group], sizes, self._links[group], framed=group != _ROOT)
                if group != _ROOT:
                    sizes[group] = drawn[group].size
        boxes = {_ROOT: Box(0, 0, 0, 0)}
        for node, parent in self._parents.items():
            corner, box = boxes[parent], drawn[parent].boxes[node]
            boxes[node] = Box(corner.x + box.x, corner.y + box.y, *sizes[node])
        routes: dict[tuple[str, str], list[Point]] = {}
        for ends, (leaving, entering) in self._ways.items():
            points: list[Point] = []
            for member in leaving[:-1]:
                group = self._parents[member]
                points += _moved(drawn[group].exits.get(member, ()), boxes[group])
            group = self._parents[leaving[-1]]
            points += _moved(drawn[group].routes.get((leaving[-1], entering[-1]), ()), boxes[group])
            for member in reversed(entering[:-1]):
                group = self._parents[member]
                points += _moved(drawn[group].entries.get(member, ()), boxes[group])
            if points:
                routes[ends] = points
        del boxes[_ROOT]
        return Layout(boxes, routes)


def _moved(points: Iterable[Point], corner: Box) -> list[Point]:
    return [(round(corner.x + x, 1), round(corner.y + y, 1)) for x, y in points]


class _Cell:
    """A part of a layer: a node, or a lane that a link keeps free there."""

    __slots__ = ("above", "below", "height", "node", "place", "pulls", "width", "x")

    def __init__(self, node: str | None, width: float, height: float) -> None:
        self.node, self.width, self.height = node, width, height
        self.above: list[_Cell] = []
        self.below: list[_Cell] = []
        self.pulls: dict[_Cell, float] = {}
        self.place = 0
        self.x = 0.0


class _Span(NamedTuple):
    """A link from one layer to a lower one. At an end where it enters or leaves the group, it has no cell."""

    start: int
    end: int
    upper: _Cell | None
    lower: _Cell | None
    pull: float
    ends: tuple[str | None, str | None]


_PULL: Final = 1.0
"""The force with which a link pulls its ends together. A weak link has a tenth of that. A lane keeps straight."""


def _tie(chain: Sequence[_Cell], pull: float) -> None:
    for above, below in pairwise(chain):
        above.below.append(below)
        below.above.append(above)
        above.pulls[below] = below.pulls[above] = 4 * pull if above.node is None and below.node is None else pull


def _arranged(
    members: Sequence[str], sizes: Mapping[str, tuple[float, float]], links: _Links, *, framed: bool
) -> _Drawn:
    rank = ranks(members, list(links.strong), list(links.weak))
    lowest = min(rank.values())
    layers: list[list[_Cell]] = [[] for _ in range(max(rank.values()) - lowest + 1)]
    cells = {node: _Cell(node, *sizes[node]) for node in members}
    depth = {node: rank[node] - lowest for node in members}
    for node in members:
        layers[depth[node]].append(cells[node])
    last = len(layers) - 1
    spans: list[_Span] = []
    for source, target in {**links.weak, **links.strong}:
        first, second = sorted((source, target), key=depth.__getitem__)
        pull = _PULL if (source, target) in links.strong else _PULL / 10
        spans.append(_Span(depth[first], depth[second], cells[first], cells[second], pull, (source, target)))
    spans += [_Span(-1, depth[node], None, cells[node], _PULL, (None, node)) for node in links.entered]
    spans += [_Span(depth[node], last + 1, cells[node], None, _PULL, (node, None)) for node in links.left]
    lanes: dict[tuple[str | None, str | None], list[_Cell]] = {}
    spare = _LANES * len(members) + 100
    for span in sorted(spans, key=lambda span: span.end - span.start):
        between = range(span.start + 1, span.end)
        spare -= len(between)
        if spare < 0:
            break
        lane = [_Cell(None, _LANE, 0.0) for _ in between]
        for number, cell in zip(between, lane, strict=True):
            layers[number].insert(len(layers[number]) // 2, cell)
        _tie([*([span.upper] if span.upper else []), *lane, *([span.lower] if span.lower else [])], span.pull)
        origin, result = span.ends
        upwards = origin is not None and result is not None and depth[origin] > depth[result]
        lanes[span.ends] = lane[::-1] if upwards else lane
    _order(layers)
    columns = [_columns(layer, _WIDE if len(layers) > 1 else _HEAP) for layer in layers]
    _spread(columns)
    return _drawn(columns, lanes, depth, framed=framed)


def _order(layers: list[list[_Cell]]) -> None:
    """Sort each layer by the mean place of the neighbours, downwards and upwards in turn. Keep the best order."""
    for layer in layers:
        _number(layer)
    best, fewest = [list(layer) for layer in layers], _crossings(layers)
    for sweep in range(_SWEEPS):
        if not fewest:
            break
        down = sweep % 2 == 0
        for layer in layers[1:] if down else layers[-2::-1]:
            layer.sort(key=lambda cell: _mean(cell.above if down else cell.below, cell.place))
            _number(layer)
        if (found := _crossings(layers)) < fewest:
            best, fewest = [list(layer) for layer in layers], found
    for layer, kept in zip(layers, best, strict=True):
        layer[:] = kept
        _number(layer)


def _number(layer: list[_Cell]) -> None:
    for place, cell in enumerate(layer):
        cell.place = place


def _mean(cells: list[_Cell], otherwise: float) -> float:
    return sum(cell.place for cell in cells) / len(cells) if cells else otherwise


def _crossings(layers: list[list[_Cell]]) -> int:
    """Count the crossings of links between neighbouring layers, with a tree of sums (Barth, Jünger, Mutzel 2002)."""
    found = 0
    for layer, below in pairwise(layers):
        size = len(below)
        sums = [0] * (size + 1)
        seen = 0
        for cell in layer:
            places = sorted(other.place for other in cell.below)
            for place in places:
                found += seen
                index = place + 1
                while index:
                    found -= sums[index]
                    index &= index - 1
            for place in places:
                index = place + 1
                while index <= size:
                    sums[index] += 1
                    index += index & -index
            seen += len(places)
    return found


def _columns(layer: list[_Cell], least: float) -> list[list[_Cell]]:
    """Divide a layer into columns of one cell, or of several if it would be far too wide. A lane is alone."""
    nodes = [cell for cell in layer if cell.node is not None]
    area = sum((cell.width + _GAP_X) * (cell.height + _GAP_Y) for cell in nodes)
    limit = max(least, (2.0 * area) ** 0.5)
    rows = max(1, round(sum(cell.width + _GAP_X for cell in nodes) / limit))
    columns: list[list[_Cell]] = []
    filling = False
    for cell in layer:
        if cell.node is not None and filling and len(columns[-1]) < rows:
            columns[-1].append(cell)
            continue
        columns.append([cell])
        filling = cell.node is not None
    return columns


def _spread(layers: list[list[list[_Cell]]]) -> None:
    """Move columns as near to their neighbours as their order allows, layer by layer, downwards and upwards in turn."""
    for layer in layers:
        widths = [max(cell.width for cell in column) for column in layer]
        for column, end, width in zip(layer, accumulate(w + _GAP_X for w in widths), widths, strict=True):
            for cell in column:
                cell.x = end - width / 2
    for sides in (("above",), ("below",), ("above",), ("below",), ("above", "below"), ("above", "below")):
        for layer in layers if sides[0] == "above" else reversed(layers):
            wanted = []
            for column in layer:
                pulls = [
                    (other.x, cell.pulls[other]) for cell in column for side in sides for other in getattr(cell, side)
                ]
                weight = sum(pull for _, pull in pulls)
                mean = sum(x * pull for x, pull in pulls) / weight if weight else column[0].x
                wanted.append((mean, weight or 0.01, max(cell.width for cell in column)))
            for column, x in zip(layer, _apart(wanted), strict=True):
                for cell in column:
                    cell.x = x


def _apart(wanted: list[tuple[float, float, float]]) -> list[float]:
    """Return the places nearest to the wanted ones, by least squares, that keep the order and the gaps.

    The method is pooling of adjacent violators. Each wanted place is a centre, its weight and the width around it.
    """
    offsets = [0.0]
    for (_, _, left), (_, _, right) in pairwise(wanted):
        gap = _GAP_X if left > _LANE or right > _LANE else _LANE / 2
        offsets.append(offsets[-1] + (left + right) / 2 + gap)
    pools: list[tuple[float, float, int]] = []
    for (centre, weight, _), offset in zip(wanted, offsets, strict=True):
        mean, heft, count = centre - offset, weight, 1
        while pools and pools[-1][0] >= mean:
            other, more, others = pools.pop()
            mean = (mean * heft + other * more) / (heft + more)
            heft, count = heft + more, count + others
        pools.append((mean, heft, count))
    means = [mean for mean, _, count in pools for _ in range(count)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=True)]


def _drawn(
    layers: list[list[list[_Cell]]],
    lanes: dict[tuple[str | None, str | None], list[_Cell]],
    depth: Mapping[str, int],
    *,
    framed: bool,
) -> _Drawn:
    pad, header = (PAD, HEADER) if framed else (0.0, 0.0)
    everything = [cell for layer in layers for column in layer for cell in column]
    left = min(cell.x - cell.width / 2 for cell in everything) - pad
    width = max(cell.x + cell.width / 2 for cell in everything) - left + pad
    boxes: dict[str, Box] = {}
    bands: dict[int, tuple[float, float]] = {}
    y = pad + header
    for layer in layers:
        heights = [sum(cell.height for cell in column) + _GAP_Y * (len(column) - 1) for column in layer]
        height = max(heights)
        for column, own in zip(layer, heights, strict=True):
            top = y + (height - own) / 2
            for cell in column:
                if cell.node is None:
                    bands[id(cell)] = (y, y + height)
                    continue
                boxes[cell.node] = Box(round(cell.x - cell.width / 2 - left, 1), round(top, 1), cell.width, cell.height)
                top += cell.height + _GAP_Y
        y += height + _GAP_Y
    height = y - _GAP_Y + pad
    routes: dict[tuple[str, str], list[Point]] = {}
    entries: dict[str, list[Point]] = {}
    exits: dict[str, list[Point]] = {}
    for (source, target), chain in lanes.items():
        points: list[Point] = []
        for cell in chain:
            ends = bands[id(cell)]
            upwards = source is not None and target is not None and depth[source] > depth[target]
            points += [(round(cell.x - left, 1), round(end, 1)) for end in (reversed(ends) if upwards else ends)]
        if not points:
            continue
        if source is None:
            entries[target or ""] = points
        elif target is None:
            exits[source] = points
        else:
            routes[source, target] = points
    return _Drawn((round(width, 1), round(height, 1)), boxes, routes, entries, exits)
