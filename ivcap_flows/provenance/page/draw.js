/* Drawing: shapes show what a thing is, signs how it ended. Names are only ever set as text. */

const SVG = "http://www.w3.org/2000/svg";
const SIGNS = {
  completed: ["M8 0a8 8 0 1 0 -16 0a8 8 0 1 0 16 0z", "M-3.6 .4L-1 3L3.8 -2.6"],
  failed: ["M0 -9L9 0L0 9L-9 0z", "M-2.6 -2.6L2.6 2.6M2.6 -2.6L-2.6 2.6"],
  crashed: ["M0 -9L9.4 7.4H-9.4z", "M0 -3.4V2M0 4.9V5"],
  lost: ["M-4.4 -7.6H4.4L8.8 0L4.4 7.6H-4.4L-8.8 0z", "M-2.4 -1.6a2.4 2.4 0 1 1 3.6 2c-.9.5 -1.2 1 -1.2 1.7M0 4.6V4.7", true],
  cancelled: ["M-7.5 -7.5H7.5V7.5H-7.5z", "M-3.8 0H3.8"],
  abandoned: ["M-7.5 -7.5H7.5V7.5H-7.5z", "M-7.5 7.5L7.5 -7.5", true],
  parked: ["M-8 -4a4 4 0 0 1 4 -4H4a4 4 0 0 1 4 4V4a4 4 0 0 1 -4 4H-4a4 4 0 0 1 -4 -4z", "M-2.2 -3.4V3.4M2.2 -3.4V3.4"],
  paused: ["M-8 -4a4 4 0 0 1 4 -4H4a4 4 0 0 1 4 4V4a4 4 0 0 1 -4 4H-4a4 4 0 0 1 -4 -4z", "M-3 -3.6L3.4 0L-3 3.6z"],
  running: ["M-6 -8.4L9 0L-6 8.4z", "M-2.6 -2V2M.6 -1V1"],
  retried: ["M-8 8V0a8 8 0 1 1 8 8z", "M3.2 -2.4a3.9 3.9 0 1 0 .6 3.4M3.8 -4.2V-1.6H1.2"],
  reused: ["M0 -9L2.6 -3.6L8.6 -2.8L4.2 1.4L5.3 7.3L0 4.5L-5.3 7.3L-4.2 1.4L-8.6 -2.8L-2.6 -3.6z", "M-1.8 0H1.8"],
  unknown: ["M8 0a8 8 0 1 0 -16 0a8 8 0 1 0 16 0z", "M-2.5 0H-2.4M2.4 0H2.5", true],
};

function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function shape(kind, width, height) {
  if (kind === "entity") {
    const round = height / 2;
    return `M${round} 0H${width - round}a${round} ${round} 0 0 1 0 ${height}H${round}a${round} ${round} 0 0 1 0 ${-height}z`;
  }
  if (kind === "agent") {
    const cut = height / 3;
    return `M${cut} 0H${width - cut}L${width} ${height / 2}L${width - cut} ${height}H${cut}L0 ${height / 2}z`;
  }
  return `M3 0H${width - 3}a3 3 0 0 1 3 3V${height - 3}a3 3 0 0 1 -3 3H3a3 3 0 0 1 -3 -3V3a3 3 0 0 1 3 -3z`;
}

function sign(outcome) {
  const [body, mark, hollow] = SIGNS[outcome];
  return svg("g", { class: `sign ${outcome}${hollow ? " hollow" : ""}` },
    svg("path", { class: "body", d: body }), svg("path", { class: "mark", d: mark }));
}

/* Draw a small picture for lists: how a thing ended, or else what it is. */
function icon(item) {
  return item.outcome
    ? svg("svg", { viewBox: "-10 -10 20 20", "aria-hidden": "true" }, sign(item.outcome))
    : svg("svg", { viewBox: "-1 -5 26 22", "aria-hidden": "true", class: item.kind }, svg("path", { class: "shape", d: shape(item.kind, 24, 12) }));
}

const ruler = document.createElement("canvas").getContext("2d");
const FAMILY = getComputedStyle(document.body).fontFamily;
const TITLE = `550 13px ${FAMILY}`, NOTE = `11px ${FAMILY}`;

/* Cut a text in the middle if there is not enough room. Its end is kept, since it tells files apart. */
function fitted(text, font, room) {
  if (text.length * 13 < room || widthOf(text, font) <= room) return text;
  const letters = [...text];
  let low = 0, high = Math.min(letters.length, Math.ceil(room / 3));
  const cut = (count) => letters.slice(0, Math.ceil(count * 0.62)).join("") + "…" + letters.slice(letters.length - Math.floor(count * 0.38)).join("");
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (widthOf(cut(middle), font) <= room) low = middle; else high = middle - 1;
  }
  return cut(low);
}

function widthOf(text, font) {
  if (ruler.font !== font) ruler.font = font;
  return ruler.measureText(text).width;
}

/* Return the space beside the words of a node or of a frame's title: for signs, and the shape's own. */
function margins({ kind, outcome, within }, isFolded) {
  return [outcome ? 32 : kind === "activity" ? 12 : 20, within ? 52 : isFolded ? 30 : 14];
}

function widthOfNode(index) {
  const [left, right] = margins(items[index], isGroup(index));
  const words = Math.max(widthOf(items[index].title, TITLE), widthOf(items[index].note, NOTE));
  return Math.min(WIDEST, Math.max(WIDTH, Math.ceil(left + words + right)));
}

function widthOfTitle(index) {
  const { title, note } = items[index];
  return Math.min(WIDEST, Math.ceil(32 + widthOf(title, TITLE) + 10 + widthOf(note, NOTE) + 34));
}

function label(className, text, x, y, font, room) {
  const made = svg("text", { class: className, x, y });
  made.textContent = fitted(text, font, room);
  return made;
}

/* Return the place of the sign that folds or unfolds a group, from the group's corner. */
function handleOf(index, box) { return [box.width - 17, isOpen(index) ? 19 : HEIGHT / 2]; }

function toggle(index, box) {
  const [x, y] = handleOf(index, box), open = isOpen(index);
  return svg("g", { class: "toggle", transform: `translate(${x} ${y})` },
    svg("circle", { r: 8 }), svg("path", { d: open ? "M-4 0H4" : "M-4 0H4M0 -4V4" }));
}

function spoken(index) {
  const item = items[index];
  const group = isGroup(index) ? `, group of ${members[index].length}` : "";
  const ended = item.outcome && !item.note.includes(item.outcome) ? `, ${item.outcome}` : "";
  const within = item.within ? `, ${item.within} within` : "";
  return `${item.title}, ${item.note}${ended}${group}${within}`;
}

function tip(text) {
  const made = svg("title");
  made.textContent = text;
  return made;
}

function attributesOf(index) {
  const given = { role: "treeitem", tabindex: "-1", "data-item": index, "aria-label": spoken(index), "aria-level": depth[index] + 1, "aria-selected": "false" };
  if (isGroup(index)) given["aria-expanded"] = isOpen(index) ? "true" : "false";
  return given;
}

function drawnNode(index, { width }) {
  const item = items[index], group = isGroup(index);
  const path = shape(item.kind, width, HEIGHT);
  const [left, right] = margins(item, group), room = width - left - right;
  const node = svg("g", { ...attributesOf(index), class: `node ${item.kind} ${item.outcome ?? ""}${group ? " group" : ""}${data.starts.includes(index) ? " start" : ""}` },
    tip(spoken(index)),
    svg("rect", { class: "ring", x: -5, y: -5, width: width + (group ? 17 : 10), height: HEIGHT + (group ? 17 : 10), rx: item.kind === "entity" ? HEIGHT / 2 + 5 : 8 }));
  if (group) {
    for (const by of [7, 3.5]) node.append(svg("path", { class: "under", d: path, transform: `translate(${by} ${by})` }));
  }
  node.append(svg("path", { class: "shape", d: path }));
  if (item.outcome) {
    const badge = sign(item.outcome);
    badge.setAttribute("transform", `translate(17 ${HEIGHT / 2})`);
    node.append(badge);
  }
  node.append(label("title", item.title, left, 18, TITLE, room), label("note", item.note, left, 33, NOTE, room));
  if (item.within) {
    const inner = sign(item.within);
    inner.setAttribute("transform", `translate(${width - 38} ${HEIGHT / 2}) scale(.8)`);
    node.append(inner);
  }
  if (group) node.append(toggle(index, { width }));
  return node;
}

function drawnFrame(index, box) {
  const item = items[index];
  const frame = svg("g", { ...attributesOf(index), class: `frame ${item.kind} ${item.outcome ?? ""}${depth[index] % 2 ? " even" : ""}${data.starts.includes(index) ? " start" : ""}` },
    tip(spoken(index)),
    svg("rect", { class: "area", width: box.width, height: box.height, rx: 8 }),
    svg("rect", { class: "head", width: box.width, height: HEADER + PAD / 2 }),
    svg("rect", { class: "ring", x: -3, y: -3, width: box.width + 6, height: box.height + 6, rx: 10 }));
  if (item.outcome) {
    const badge = sign(item.outcome);
    badge.setAttribute("transform", "translate(17 19)");
    frame.append(badge);
  }
  frame.append(toggle(index, box));
  return frame;
}

/* Draw the words of a frame, which lie over the lines. */
function drawnTitle(index, box) {
  const item = items[index];
  const left = item.outcome ? 32 : 12, room = box.width - left - 34;
  const name = label("title", item.title, left, 23, TITLE, room);
  const made = svg("g", { class: `words${depth[index] % 2 ? " even" : ""}` }, name);
  const used = widthOf(name.textContent, TITLE) + 10;
  if (widthOf(item.note, NOTE) <= room - used) made.append(label("note", item.note, left + used, 23, NOTE, room - used));
  return made;
}
