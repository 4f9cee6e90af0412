/* The interaction with the page: pan, zoom, fold, search and choose, by pointer and by keys. */

const at = (id) => document.getElementById(id);
const [graph, world, details, search] = [at("graph"), at("world"), at("details"), at("search")];
const READABLE = 0.62;
const view = { x: 0, y: 0, scale: 1 };
const drawn = new Map();
let scene = null, chosen = null, current = data.starts[0] ?? roots[0] ?? null, found = [], turn = -1;

/* ---- Drawing ---- */

function draw() {
  scene = arranged();
  const frames = [], titles = [], nodes = [];
  for (const index of scene.shown) {
    const box = scene.place.get(index), open = isOpen(index);
    const form = open ? `frame ${box.width} ${box.height}` : "node";
    let known = drawn.get(index);
    if (!known || known.form !== form) {
      known = open ? { form, element: drawnFrame(index, box), title: drawnTitle(index, box) } : { form, element: drawnNode(index, box) };
      drawn.set(index, known);
    }
    for (const part of [known.element, known.title]) part?.setAttribute("transform", `translate(${box.x.toFixed(1)} ${box.y.toFixed(1)})`);
    (open ? frames : nodes).push(known.element);
    if (open) titles.push(known.title);
  }
  at("frames").replaceChildren(...frames);
  at("titles").replaceChildren(...titles);
  at("nodes").replaceChildren(...nodes);
  at("edges").replaceChildren(...scene.edges.map((edge) =>
    svg("path", { class: `edge ${edge.kind}${edge.count > 1 ? " many" : ""}`, d: edge.path, "data-edge": edge.key })));
  mark();
  map();
  at("summary").textContent = `${data.size} · ${scene.shown.filter((index) => items[index].id || !isOpen(index)).length} shown`;
}

function elementOf(index) { return drawn.get(index)?.element; }

function set(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/* Mark the chosen, found and current things in the scene. */
function mark() {
  const hits = new Set(search.value.trim() ? found.map((index) => scene.standing[index]) : []);
  const lit = chosen === null ? null : lineageOf(scene, scene.standing[chosen]);
  graph.classList.toggle("searching", hits.size > 0);
  graph.classList.toggle("choosing", lit !== null && hits.size === 0);
  for (const index of scene.shown) {
    const element = elementOf(index);
    for (const part of [element, drawn.get(index).title]) part?.classList.toggle("hit", hits.has(index));
    element.classList.toggle("near", lit !== null && lit.near.has(index));
    const isChosen = chosen !== null && scene.standing[chosen] === index;
    element.classList.toggle("chosen", isChosen);
    set(element, "aria-selected", String(isChosen));
    set(element, "tabindex", current !== null && scene.standing[current] === index ? "0" : "-1");
  }
  for (const path of at("edges").children) path.classList.toggle("near", lit !== null && lit.edges.has(path.dataset.edge));
}

/* ---- Looking ---- */

let asked = false;

/* Show the view once for each frame, however often this is called. */
function look() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(show);
}

function show() {
  asked = false;
  world.setAttribute("transform", `translate(${view.x} ${view.y}) scale(${view.scale})`);
  graph.classList.toggle("far", view.scale < 0.3);
  const { width, height } = graph.getBoundingClientRect();
  // The small map is useful only if a part of the graph is out of view.
  const inView = view.x >= 0 && view.y >= 0 && view.x + scene.width * view.scale <= width && view.y + scene.height * view.scale <= height;
  at("map").toggleAttribute("hidden", inView);
  for (const [name, value] of Object.entries({ x: -view.x / view.scale, y: -view.y / view.scale, width: width / view.scale, height: height / view.scale })) {
    at("window").setAttribute(name, value);
  }
}

function zoom(factor, x, y) {
  const scale = Math.min(3, Math.max(0.02, view.scale * factor));
  view.x = x - (x - view.x) * scale / view.scale;
  view.y = y - (y - view.y) * scale / view.scale;
  view.scale = scale;
  look();
}

function zoomInMiddle(factor) {
  const { width, height } = graph.getBoundingClientRect();
  zoom(factor, width / 2, height / 2);
}

function fit() {
  const { width, height } = graph.getBoundingClientRect();
  view.scale = Math.min(1.25, (width - 48) / scene.width, (height - 48) / scene.height);
  view.x = (width - scene.width * view.scale) / 2;
  view.y = (height - scene.height * view.scale) / 2;
  look();
}

function middleOf(index) {
  const box = scene.place.get(scene.standing[index]);
  return [box.x + box.width / 2, box.y + (isOpen(index) ? Math.min(box.height / 2, 80) : box.height / 2)];
}

function center(index, least = view.scale) {
  const { width, height } = graph.getBoundingClientRect();
  const [x, y] = middleOf(index);
  view.scale = Math.max(view.scale, least);
  [view.x, view.y] = [width / 2 - x * view.scale, height / 2 - y * view.scale];
  look();
}

/* If the whole graph would be too small to read, begin at what was traced, with as much around it as fits. */
function begin() {
  center(scene.standing[current], READABLE);
  const { width, height } = graph.getBoundingClientRect();
  const within = (value, size, room) => size * view.scale + 48 < room ? (room - size * view.scale) / 2 : Math.min(24, Math.max(room - 24 - size * view.scale, value));
  [view.x, view.y] = [within(view.x, scene.width, width), within(view.y, scene.height, height)];
  look();
}

function centerIfOutside(index) {
  const { width, height } = graph.getBoundingClientRect();
  const [x, y] = middleOf(index).map((value, axis) => value * view.scale + (axis ? view.y : view.x));
  if (x < 60 || y < 40 || x > width - 60 || y > height - 40) center(index);
}

function map() {
  at("map").setAttribute("viewBox", `-40 -40 ${scene.width + 80} ${scene.height + 80}`);
  at("marks").setAttribute("d", scene.shown.filter((index) => !isOpen(index)).map((index) => {
    const box = scene.place.get(index);
    return `M${box.x.toFixed(0)} ${box.y.toFixed(0)}h${box.width}v${HEIGHT}h${-box.width}z`;
  }).join(""));
}

/* ---- Folding ---- */

/* Keep the sign under the pointer in its place, and move the rest. */
function fold(index, shut = isOpen(index)) {
  const hand = () => {
    const box = scene.place.get(index), [x, y] = handleOf(index, box);
    return [box.x + x, box.y + y];
  };
  const [x, y] = hand();
  if (shut) folded.add(index); else folded.delete(index);
  draw();
  const [newX, newY] = hand();
  view.x += (x - newX) * view.scale;
  view.y += (y - newY) * view.scale;
  look();
}

function foldAll(shut) {
  items.forEach((_, index) => {
    if (isGroup(index)) { if (shut) folded.add(index); else folded.delete(index); }
  });
  draw();
  fit();
}

function reveal(index) {
  const shut = around(index).filter((group) => folded.has(group));
  if (!shut.length) return;
  shut.forEach((group) => folded.delete(group));
  draw();
}

/* ---- Choosing ---- */

function choose(index, { focus = false } = {}) {
  reveal(index);
  chosen = current = index;
  details.hidden = false;
  details.replaceChildren(...told(index, (other) => { choose(other); center(other, 0.7); }, unchoose));
  details.scrollTop = 0;
  mark();
  centerIfOutside(index);
  if (focus) elementOf(index).focus({ preventScroll: true });
}

function unchoose() {
  chosen = null;
  details.hidden = true;
  mark();
  if (current !== null) elementOf(scene.standing[current])?.focus({ preventScroll: true });
}

function goTo(index) {
  if (index === undefined || index === null) return;
  current = index;
  mark();
  elementOf(index).focus({ preventScroll: true });
  centerIfOutside(index);
}

/* ---- Searching ---- */

const texts = [];
function textOf(index) {
  const item = items[index];
  texts[index] ??= [item.title, item.note, item.id, item.outcome, JSON.stringify(item.attributes)].join("\n").toLowerCase();
  return texts[index];
}

/* Rank a hit: the words are the title, within the title, or elsewhere. */
function distance(index, sought) {
  const title = items[index].title.toLowerCase();
  return title === sought ? 0 : title.includes(sought) ? 1 : 2;
}

function seek() {
  const sought = search.value.trim().toLowerCase(), words = sought.split(/\s+/).filter(Boolean);
  found = words.length ? [...items.keys()].filter((index) => items[index].id && words.every((word) => textOf(index).includes(word))) : [];
  found.sort((one, other) => distance(one, sought) - distance(other, sought));
  turn = -1;
  at("count").textContent = words.length ? (found.length ? `${found.length} found` : "none") : "";
  at("results").hidden = !found.length;
  at("results").replaceChildren(...found.slice(0, LISTED).map((index) => entry(index, (other) => {
    at("results").hidden = true;
    choose(other, { focus: true });
    center(other, 0.8);
  })));
  mark();
}

function nextFound(step) {
  if (!found.length) return;
  turn = (turn + step + found.length) % found.length;
  const index = found[turn];
  choose(index);
  center(index, 0.8);
  at("count").textContent = `${turn + 1} of ${found.length}`;
  [...at("results").children].forEach((line, number) => line.firstChild.setAttribute("aria-current", String(number === turn)));
}

search.addEventListener("input", seek);
search.addEventListener("focus", () => { at("results").hidden = !found.length; });
search.addEventListener("keydown", (event) => {
  if (event.key === "Enter") nextFound(event.shiftKey ? -1 : 1);
  else if (event.key === "Escape") { search.value = ""; seek(); goTo(scene.standing[current]); }
  else if (event.key === "ArrowDown" && found.length) at("results").querySelector("button").focus();
  else return;
  event.preventDefault();
});
at("results").addEventListener("keydown", (event) => {
  const line = document.activeElement.closest("li");
  const next = event.key === "ArrowDown" ? line?.nextElementSibling : event.key === "ArrowUp" ? line?.previousElementSibling ?? search : null;
  if (event.key === "Escape") { at("results").hidden = true; search.focus(); at("results").hidden = true; }
  else if (next) (next.firstChild ?? next).focus();
  else return;
  event.preventDefault();
});
document.addEventListener("pointerdown", (event) => {
  if (!event.target.closest(".search")) at("results").hidden = true;
});

/* ---- By keys ---- */

function beside(index, step) {
  const own = items[index].parent;
  const row = (own === null ? roots : members[own]).filter((each) => scene.place.has(each));
  row.sort((one, other) => scene.place.get(one).y - scene.place.get(other).y || scene.place.get(one).x - scene.place.get(other).x);
  return row[(row.indexOf(index) + step + row.length) % row.length];
}

function along(index, from, to) {
  const strongest = ["flow", "same", "weak", "context"];
  const ends = scene.edges.filter((edge) => edge[from] === index).sort((one, other) => strongest.indexOf(one.kind) - strongest.indexOf(other.kind));
  return ends[0]?.[to];
}

world.addEventListener("keydown", (event) => {
  const index = Number(event.target.dataset.item);
  switch (event.key) {
    case "ArrowUp": goTo(along(index, "to", "from") ?? items[index].parent); break;
    case "ArrowDown": goTo(isOpen(index) ? members[index][0] : along(index, "from", "to")); break;
    case "ArrowLeft": goTo(beside(index, -1)); break;
    case "ArrowRight": goTo(beside(index, 1)); break;
    case "Home": goTo(scene.standing[data.starts[0] ?? roots[0]]); break;
    case "Enter": choose(index); break;
    case " ": if (isGroup(index)) { fold(index); goTo(index); } break;
    default: return;
  }
  event.preventDefault();
});

document.addEventListener("keydown", (event) => {
  if (event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") search.focus();
  else if (event.key === "Escape" && chosen !== null) unchoose();
  else if (event.key === "+" || event.key === "=") zoomInMiddle(1.25);
  else if (event.key === "-") zoomInMiddle(0.8);
  else if (event.key === "0") fit();
  else return;
  event.preventDefault();
});

/* ---- By pointer ---- */

const held = new Map();
let moved = false;

graph.addEventListener("pointerdown", (event) => {
  if (event.button > 0) return;
  held.set(event.pointerId, [event.clientX, event.clientY]);
  moved = false;
});
graph.addEventListener("pointermove", (event) => {
  const last = held.get(event.pointerId);
  if (!last) return;
  const [dx, dy] = [event.clientX - last[0], event.clientY - last[1]];
  if (!moved && Math.hypot(dx, dy) < 4) return;
  if (!moved) graph.setPointerCapture(event.pointerId);
  moved = true;
  graph.classList.add("dragging");
  if (held.size === 2) {
    const [other] = [...held].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
    const box = graph.getBoundingClientRect();
    const apart = (x, y) => Math.hypot(x - other[0], y - other[1]) || 1;
    zoom(apart(event.clientX, event.clientY) / apart(...last), (event.clientX + other[0]) / 2 - box.left, (event.clientY + other[1]) / 2 - box.top);
  } else {
    view.x += dx;
    view.y += dy;
    look();
  }
  held.set(event.pointerId, [event.clientX, event.clientY]);
});
for (const ending of ["pointerup", "pointercancel"]) {
  graph.addEventListener(ending, (event) => {
    held.delete(event.pointerId);
    graph.classList.remove("dragging");
  });
}
graph.addEventListener("click", (event) => {
  if (moved) return;
  const element = event.target.closest("[data-item]");
  if (!element) { if (chosen !== null) unchoose(); return; }
  const index = Number(element.dataset.item);
  if (event.target.closest(".toggle")) fold(index); else choose(index, { focus: true });
});
graph.addEventListener("dblclick", (event) => {
  const element = event.target.closest("[data-item]");
  if (element && isGroup(Number(element.dataset.item)) && !event.target.closest(".toggle")) fold(Number(element.dataset.item));
});
graph.addEventListener("wheel", (event) => {
  event.preventDefault();
  const box = graph.getBoundingClientRect();
  const lines = event.deltaMode === 1 ? 16 : 1;
  zoom(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0016)), event.clientX - box.left, event.clientY - box.top);
}, { passive: false });

function lookAt(event) {
  if (!event.buttons) return;
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(at("map").getScreenCTM().inverse());
  const { width, height } = graph.getBoundingClientRect();
  [view.x, view.y] = [width / 2 - point.x * view.scale, height / 2 - point.y * view.scale];
  look();
}
at("map").addEventListener("pointerdown", lookAt);
at("map").addEventListener("pointermove", lookAt);

at("fit").addEventListener("click", fit);
at("in").addEventListener("click", () => zoomInMiddle(1.25));
at("out").addEventListener("click", () => zoomInMiddle(0.8));
at("fold").addEventListener("click", () => foldAll(true));
at("unfold").addEventListener("click", () => foldAll(false));
at("who").hidden = views.length === 1;
at("who").setAttribute("aria-pressed", String(whole));
at("who").addEventListener("click", () => { location.hash = whole ? "" : "#all"; });
addEventListener("hashchange", () => location.reload());
new ResizeObserver(look).observe(graph);

at("heading").textContent = at("heading").title = data.title;
at("signs").replaceChildren(...legend());
// On a small screen, and where data alone explain themselves, the legend is closed, to leave the room to the graph.
at("legend").open = whole && matchMedia("(min-width: 761px) and (min-height: 600px)").matches;
draw();
fit();
if (view.scale < READABLE && current !== null) begin();
