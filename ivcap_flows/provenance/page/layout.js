/* The layout of one group: where its members are, and which lanes the lines between them have.

   Dagre places members that are linked, from top to bottom. Members without links stand beside each other. */

const WIDTH = 196, WIDEST = 340, HEIGHT = 42; // The size of a node, which is as wide as its words, within limits.
const PAD = 16, HEADER = 30; // The space that a group keeps around its content, and above that for its title.
const GAP_X = 26, GAP_Y = 36, LANE = 8;
const WIDE = 8 * (WIDTH + GAP_X), HEAP = 5 * (WIDTH + GAP_X); // Least widths at which a layer, or a row without links, is broken.
const LINKED = 200; // Dagre places up to this many at once: its time grows faster than their number.
const LANES = 6; // Lines get lanes if these pass at most this many stages for each member. The longest go without.
const FORWARD = 10; // The weight of a line along the data flow to a later stage, against 1: the others may run upwards.
const START = "start", END = "end"; // The borders of a group, where lines enter and leave it.

function laneName(from, to) { return `${from} ${to}`; }

/* Lay out the members of a group. Lines lead into those that are `entered`, and out of those that are `left`. */
function laidOut(inner, { links, entered, left }, sizes) {
  return inColumns(connected(inner, links).map((part) => {
    if (part.size === 1) return alone(part.values().next().value, sizes);
    if (part.size > LINKED) return byStage(part, sizes);
    return layered([...part], links.filter(({ from }) => part.has(from)), { entered, left }, sizes);
  }));
}

/* Divide things into sets that no link connects. (Dagre's own function recurses, too deeply for a long chain.) */
function connected(inner, links) {
  const beside = new Map(inner.map((index) => [index, []]));
  for (const { from, to } of links) {
    beside.get(from).push(to);
    beside.get(to).push(from);
  }
  const seen = new Set();
  return inner.flatMap((index) => {
    if (seen.has(index)) return [];
    const part = new Set([index]);
    for (const each of part) {
      seen.add(each);
      beside.get(each).forEach((other) => part.add(other));
    }
    return [part];
  });
}

function alone(index, sizes) {
  const [width, height] = sizes.get(index);
  return { width, height, places: new Map([[index, [[0, 0]]]]), lanes: new Map() };
}

function byStage(inner, sizes) {
  const stages = Map.groupBy(inner, (index) => items[index].stage);
  const order = [...stages.keys()].sort((one, other) => one - other);
  return stacked(order.map((stage) => inColumns(stages.get(stage).map((index) => alone(index, sizes)))));
}

/* Divide what would be too wide in one row into columns of several parts each. */
function columnsOf(parts, least) {
  const area = parts.reduce((sum, { width, height }) => sum + (width + GAP_X) * (height + GAP_Y), 0);
  const width = parts.reduce((sum, part) => sum + part.width + GAP_X, 0);
  const high = Math.max(1, Math.round(width / Math.max(least, Math.sqrt(2 * area))));
  return Array.from({ length: Math.ceil(parts.length / high) }, (_, number) => parts.slice(number * high, (number + 1) * high));
}

function inColumns(parts) {
  const columns = columnsOf(parts, HEAP).map(stacked);
  let end = -GAP_X;
  const corners = columns.map(({ width }) => [(end += width + GAP_X) - width, 0]);
  return { ...joined(columns, corners), width: Math.max(0, end), height: largest(columns, "height") };
}

function stacked(parts) {
  const width = largest(parts, "width");
  let end = -GAP_Y;
  const corners = parts.map((part) => [(width - part.width) / 2, (end += part.height + GAP_Y) - part.height]);
  return { ...joined(parts, corners), width, height: end };
}

function largest(parts, side) { return Math.max(0, ...parts.map((part) => part[side])); }

/* Put parts at corners. A place is a list of one point, a lane one of several. */
function joined(parts, corners) {
  const moved = (name) => new Map(parts.flatMap((part, number) => [...part[name]].map(([key, points]) =>
    [key, points.map(([x, y]) => [corners[number][0] + x, corners[number][1] + y])])));
  return { places: moved("places"), lanes: moved("lanes") };
}

/* Place linked members in layers. What would be too wide in one layer forms columns, which are then placed anew. */
function layered(inner, links, { entered, left }, sizes) {
  const lines = withoutLongest([
    ...links.map(({ from, to, kind }) => ({ from, to, weight: kind === "flow" && items[from].stage < items[to].stage ? FORWARD : 1 })),
    ...inner.filter((index) => entered.has(index)).map((to) => ({ from: START, to, weight: 1 })),
    ...inner.filter((index) => left.has(index)).map((from) => ({ from, to: END, weight: 1 })),
  ], inner);
  const apart = byDagre(inner.map((index) => [{ index, width: sizes.get(index)[0], height: sizes.get(index)[1] }]), lines);
  const columns = [...Map.groupBy(apart.columns, ({ y }) => y).values()].flatMap((layer) =>
    columnsOf(layer.sort((one, other) => one.x - other.x), WIDE).map((column) => column.flatMap(({ nodes }) => nodes)));
  return placed(columns.length < inner.length ? byDagre(columns, lines) : apart, lines);
}

function withoutLongest(lines, inner) {
  const stages = inner.map((index) => items[index].stage);
  const borders = { [START]: Math.min(...stages) - 1, [END]: Math.max(...stages) + 1 };
  const stageOf = (end) => borders[end] ?? items[end].stage;
  const lengthOf = ({ from, to }) => Math.abs(stageOf(to) - stageOf(from));
  let left = LANES * inner.length + 100;
  return lines.toSorted((one, other) => lengthOf(one) - lengthOf(other)).filter((line) => (left -= lengthOf(line)) >= 0);
}

/* Let Dagre place columns of nodes. Of equally good orders it takes the last, so all are handed over in reverse. */
function byDagre(parts, lines) {
  const graph = new dagre.graphlib.Graph().setGraph({ nodesep: GAP_X, edgesep: LANE, ranksep: GAP_Y, acyclicer: "greedy" });
  const nameOf = new Map([[START, START], [END, END]]);
  const columns = parts.toReversed().map((nodes, number) => {
    for (const { index } of nodes) nameOf.set(index, number);
    const height = nodes.reduce((sum, node) => sum + node.height + GAP_Y, -GAP_Y);
    return { nodes, width: Math.max(...nodes.map(({ width }) => width)), height };
  });
  columns.forEach((column, number) => graph.setNode(number, column));
  for (const { from, to, weight } of lines.toReversed()) {
    const ends = [nameOf.get(from), nameOf.get(to)];
    graph.setEdge(...ends, { weight: weight + (graph.edge(...ends)?.weight ?? 0) });
  }
  const [first, last] = [graph.sources(), graph.sinks()];
  if (first.includes(START)) for (const name of first) if (name !== START) graph.setEdge(START, name, { weight: 0 });
  if (last.includes(END)) for (const name of last) if (name !== END) graph.setEdge(name, END, { weight: 0 });
  for (const border of [START, END]) if (graph.hasNode(border)) graph.setNode(border, { width: 0, height: 0 });
  dagre.layout(graph);
  const passed = ({ from, to }) => {
    const [name, other] = [nameOf.get(from), nameOf.get(to)];
    return { upper: graph.node(name), points: graph.edge(name, other).points.slice(1, -1), lower: graph.node(other) };
  };
  return { columns, passed };
}

/* Return the places and lanes. Within a layer a line is straight, so that it does not touch high nodes beside it. */
function placed({ columns, passed }, lines) {
  const layers = new Map();
  for (const { y, height } of columns) layers.set(y, Math.max(layers.get(y) ?? 0, height));
  const places = new Map(), lanes = new Map();
  for (const column of columns) {
    let y = column.y - column.height / 2;
    for (const node of column.nodes) {
      places.set(node.index, [[column.x - node.width / 2, y]]);
      y += node.height + GAP_Y;
    }
  }
  const border = ({ x, y }, side) => [x, y + side * layers.get(y)];
  const beyond = (end, side) => (end.nodes?.length === 1 && end.height < layers.get(end.y) ? [border(end, side)] : []);
  for (const line of lines) {
    const { upper, points, lower } = passed(line);
    const half = upper.y < lower.y ? 0.5 : -0.5;
    const lane = points.filter(({ y }) => layers.has(y)).flatMap((point) => [border(point, -half), border(point, half)]);
    lanes.set(laneName(line.from, line.to), half > 0 ? [...beyond(upper, half), ...lane, ...beyond(lower, -half)] : lane);
  }
  const corners = columns.flatMap(({ x, y, width, height }) => [-0.5, 0.5].map((side) => [x + side * width, y + side * height]));
  const points = [...corners, ...[...lanes.values()].flat()];
  const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
  const [left, top] = [Math.min(...xs), Math.min(...ys)];
  return { ...joined([{ places, lanes }], [[-left, -top]]), width: Math.max(...xs) - left, height: Math.max(...ys) - top };
}
