/* The scene: which things are shown, their places, and the edges between them. */

const views = JSON.parse(document.getElementById("picture").textContent);
const whole = views.length === 1 || location.hash === "#all";
const data = views.at(whole ? -1 : 0);
const items = data.items;

const members = items.map(() => []);
const roots = [];
items.forEach((item, index) => (item.parent === null ? roots : members[item.parent]).push(index));
const depth = [];
items.forEach((item, index) => { depth[index] = item.parent === null ? 0 : depth[item.parent] + 1; });
const folded = new Set(items.keys());
items.forEach((item, index) => { if (item.open) folded.delete(index); });

function isGroup(index) { return members[index].length > 0; }
function isOpen(index) { return isGroup(index) && !folded.has(index); }

/* Return the groups around a thing, innermost first. */
function around(index) {
  const found = [];
  for (let at = items[index].parent; at !== null; at = items[at].parent) found.push(at);
  return found;
}

/* Return what represents each thing now: itself, or the outermost folded group around it. */
function standIns() {
  const standing = [];
  items.forEach(({ parent }, index) => {
    standing[index] = parent === null || (standing[parent] === parent && isOpen(parent)) ? index : standing[parent];
  });
  return standing;
}

/* Return the scene with the present folding: what is `shown`, in order, its places, and the edges. */
function arranged() {
  const standing = standIns();
  const shown = [...items.keys()].filter((index) => standing[index] === index);
  const edges = edgesBetween(standing);
  const { layouts, sizes } = layoutsOf(shown, edges);
  const place = new Map();
  const inner = (group) => (group === null ? [0, 0] : [place.get(group).x + PAD, place.get(group).y + PAD + HEADER]);
  for (const index of shown) {
    const { parent } = items[index];
    const [[left, top], [x, y], [width, height]] = [inner(parent), layouts.get(parent).places.get(index)[0], sizes.get(index)];
    place.set(index, { x: left + x, y: top + y, width, height });
  }
  const pointsOf = (group, name) => {
    const [left, top] = inner(group);
    return (layouts.get(group).lanes.get(name) ?? []).map(([x, y]) => [left + x, top + y]);
  };
  for (const edge of edges) {
    const points = passed(edge).flatMap(({ group, from, to }) => pointsOf(group, laneName(from, to)));
    edge.path = curve(place.get(edge.from), points, place.get(edge.to), edge.kind);
  }
  const { width, height } = layouts.get(null);
  return { shown, standing, place, edges, width, height };
}

/* Lay out each open group, innermost first: it is one large node of the group around it. */
function layoutsOf(shown, edges) {
  const groups = [...shown.filter(isOpen).reverse(), null];
  const insides = new Map(groups.map((group) => [group, { links: [], entered: new Set(), left: new Set() }]));
  for (const edge of edges) {
    for (const { group, from, to } of passed(edge)) {
      const inside = insides.get(group);
      if (from === START) inside.entered.add(to);
      else if (to === END) inside.left.add(from);
      else inside.links.push({ from, to, kind: edge.kind });
    }
  }
  const layouts = new Map(), sizes = new Map(shown.map((index) => [index, [widthOfNode(index), HEIGHT]]));
  for (const group of groups) {
    const layout = laidOut(group === null ? roots : members[group], insides.get(group), sizes);
    const width = group === null ? layout.width : Math.max(layout.width, widthOfTitle(group) - 2 * PAD);
    layouts.set(group, { ...joined([layout], [[(width - layout.width) / 2, 0]]), width, height: layout.height });
    if (group !== null) sizes.set(group, [width + 2 * PAD, layout.height + 2 * PAD + HEADER]);
  }
  return { layouts, sizes };
}

/* Return the groups that an edge passes on its way, with the members or borders between which it does. */
function passed({ leaving, entering }) {
  const inside = (member, from, to) => ({ group: items[member].parent, from, to });
  return [
    ...leaving.slice(0, -1).map((member) => inside(member, member, END)),
    inside(leaving.at(-1), leaving.at(-1), entering.at(-1)),
    ...entering.slice(0, -1).reverse().map((member) => inside(member, START, member)),
  ];
}

/* Join the links between the same two things. `leaving` and `entering` are the ends, each with the groups around it up to
   the innermost group around both. */
function edgesBetween(standing) {
  const edges = new Map();
  for (const [origin, result, type] of data.links) {
    const [from, to, { kind }] = [standing[origin], standing[result], data.types[type]];
    if (from === to) continue;
    const key = `${from} ${to} ${kind}`;
    if (edges.has(key)) {
      edges.get(key).count += 1;
      continue;
    }
    const [leaving, entering] = [[from, ...around(from)], [to, ...around(to)]];
    while (leaving.at(-1) === entering.at(-1)) {
      leaving.pop();
      entering.pop();
    }
    // A group and something in it: there is no space between them for a line.
    if (leaving.length && entering.length) edges.set(key, { key, from, to, kind, count: 1, leaving, entering });
  }
  return [...edges.values()];
}

function curve(from, points, to, kind) {
  const all = [[from.x + from.width / 2, from.y + from.height], ...points, [to.x + to.width / 2, to.y]];
  let [x, y] = all[0];
  let path = `M${x.toFixed(1)} ${y.toFixed(1)}`;
  for (const [nextX, nextY] of all.slice(1)) {
    const bend = nextY >= y ? (nextY - y) / 2 : 60;
    path += nextX === x && nextY >= y
      ? `V${nextY.toFixed(1)}`
      : `C${x.toFixed(1)} ${(y + bend).toFixed(1)} ${nextX.toFixed(1)} ${(nextY - bend).toFixed(1)} ${nextX.toFixed(1)} ${nextY.toFixed(1)}`;
    [x, y] = [nextX, nextY];
  }
  return kind === "same" || kind === "context" ? path : `${path}m-4 -7l4 7l4 -7`;
}

/* Return what comes before and after a thing along the data flow. Weak links and context count one step only. */
function lineageOf(scene, index) {
  const before = new Map(), after = new Map(), near = new Set([index]), edges = new Set();
  for (const edge of scene.edges) {
    if (!after.has(edge.from)) after.set(edge.from, []);
    if (!before.has(edge.to)) before.set(edge.to, []);
    after.get(edge.from).push(edge);
    before.get(edge.to).push(edge);
  }
  const held = isOpen(index) ? scene.shown.filter((each) => around(each).includes(index)) : [];
  held.forEach((each) => near.add(each));
  for (const [links, end] of [[before, "from"], [after, "to"]]) {
    const queue = [index, ...held], seen = new Set(queue);
    while (queue.length) {
      const at = queue.pop();
      for (const edge of links.get(at) ?? []) {
        if (edge.kind !== "flow" && edge.kind !== "same" && at !== index) continue;
        edges.add(edge.key);
        if (seen.has(edge[end])) continue;
        seen.add(edge[end]);
        near.add(edge[end]);
        if (edge.kind === "flow" || edge.kind === "same") queue.push(edge[end]);
      }
    }
  }
  return { near, edges };
}
