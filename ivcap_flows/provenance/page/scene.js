/* The scene: which things are shown, their places after folding, and the edges between them. */

const views = JSON.parse(document.getElementById("picture").textContent);
const whole = views.length === 1 || location.hash === "#all";
const data = views.at(whole ? -1 : 0);
const items = data.items;
const [WIDTH, HEIGHT] = data.size;
const NEAREST = 44; // Wider gaps are closed when the things in them are folded away.

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

/* Return a map of one axis that keeps the order and closes gaps that have become empty. */
function squeezed(spans) {
  spans.sort((one, other) => one[0] - other[0]);
  const knots = [];
  let end = null, shift = 0;
  for (const [low, high] of spans) {
    if (end === null) {
      shift = low;
      knots.push([low, 0]);
    } else if (low > end) {
      knots.push([end, end - shift]);
      shift += Math.max(0, low - end - NEAREST);
      knots.push([low, low - shift]);
    }
    end = end === null ? high : Math.max(end, high);
  }
  knots.push([end, end - shift]);
  return (value) => {
    let low = 0, high = knots.length - 1;
    if (value <= knots[low][0]) return knots[low][1];
    if (value >= knots[high][0]) return knots[high][1];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (knots[middle][0] <= value) low = middle; else high = middle;
    }
    const [[from, start], [to, stop]] = [knots[low], knots[high]];
    return start + (value - from) * (stop - start) / (to - from);
  };
}

/* Return what represents each thing now: itself, or the outermost folded group around it. */
function standIns() {
  const standing = [];
  items.forEach(({ parent }, index) => {
    standing[index] = parent === null || (standing[parent] === parent && isOpen(parent)) ? index : standing[parent];
  });
  return standing;
}

/* Lay out the inside of a group, or of the whole: the members keep their middles, get their new sizes, and are drawn
   together. `moved` maps old places in the group to new ones. */
function inside(group, sizes) {
  const [left, top] = group === null ? [0, 0] : items[group].box;
  const [padX, padY] = group === null ? [0, 0] : [data.pad, data.pad + data.header];
  const corners = new Map(), across = [], down = [];
  for (const member of group === null ? roots : members[group]) {
    const [x, y, width, height] = items[member].box;
    const [newWidth, newHeight] = sizes.get(member);
    const corner = [x - left + (width - newWidth) / 2, y - top + (height - newHeight) / 2];
    corners.set(member, corner);
    across.push([corner[0], corner[0] + newWidth]);
    down.push([corner[1], corner[1] + newHeight]);
  }
  const [mapX, mapY] = [squeezed(across), squeezed(down)];
  const moved = (x, y) => [padX + mapX(x), padY + mapY(y)];
  const ends = [across, down].map((spans) => Math.max(...spans.map((span) => span[1])));
  const [width, height] = moved(...ends);
  return { moved, corners, left, top, size: [width + padX, height + (group === null ? 0 : data.pad)] };
}

/* Return the scene with the present folding: what is `shown`, in order, its places, and the edges. */
function arranged() {
  const standing = standIns();
  const shown = [...items.keys()].filter((index) => standing[index] === index);
  const frames = new Map(), sizes = new Map(), place = new Map();
  for (const index of shown.toReversed()) {
    if (isOpen(index)) frames.set(index, inside(index, sizes));
    sizes.set(index, isOpen(index) ? frames.get(index).size : [WIDTH, HEIGHT]);
  }
  frames.set(null, inside(null, sizes));
  for (const index of shown) {
    const parent = items[index].parent, frame = frames.get(parent);
    const [x, y] = frame.moved(...frame.corners.get(index));
    const corner = place.get(parent) ?? { x: 0, y: 0 };
    const [width, height] = sizes.get(index);
    place.set(index, { x: corner.x + x, y: corner.y + y, width, height });
  }
  const [width, height] = frames.get(null).size;
  return { shown, standing, place, edges: edgesBetween(standing, place, frames), width, height };
}

/* Return the new place of a point of a link, or null if a group around it is folded. */
function placeOf(x, y, trail, place, frames) {
  const group = trail.find((each) => {
    const [left, top, width, height] = items[each].box;
    return x > left && x < left + width && y > top && y < top + height;
  }) ?? null;
  const frame = frames.get(group);
  if (!frame) return null;
  const [newX, newY] = frame.moved(x - frame.left, y - frame.top);
  const corner = place.get(group) ?? { x: 0, y: 0 };
  return [corner.x + newX, corner.y + newY];
}

function edgesBetween(standing, place, frames) {
  const edges = new Map();
  for (const [origin, result, type, route] of data.links) {
    const [from, to, { kind }] = [standing[origin], standing[result], data.types[type]];
    if (from === to) continue;
    const key = `${from} ${to} ${kind}`;
    const known = edges.get(key);
    if (known) {
      known.count += 1;
      continue;
    }
    const trail = route.length ? [origin, ...around(origin), result, ...around(result)].filter(isGroup).sort((one, other) => depth[other] - depth[one]) : [];
    const points = [];
    for (let at = 0; at < route.length; at += 2) {
      const point = placeOf(route[at], route[at + 1], trail, place, frames);
      if (point) points.push(point);
    }
    edges.set(key, { key, from, to, kind, count: 1, path: curve(place.get(from), points, place.get(to), kind) });
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
