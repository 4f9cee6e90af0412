/* The meaning of the shapes, signs and lines that this picture has. */

const LINES = {
  flow: "used, or made by",
  weak: "informed or influenced by it, or contains it",
  same: "the same content, or another name for it",
  context: "the code, service or person behind it",
};
const KEYS = [
  [["/"], "search"], [["↑", "↓"], "origin, result"], [["←", "→"], "neighbours"],
  [["Enter"], "details"], [["Space"], "fold"], [["+", "−", "0"], "zoom, fit"],
];

function legend() {
  const line = (picture, text) => make("div", { class: "line" }, picture, make("span", { text }));
  const column = (title, lines) => lines.length ? [make("div", {}, make("h2", { text: title }), ...lines)] : [];
  const form = (kind, ...more) => svg("svg", { viewBox: "-2 -2 32 20", class: kind }, ...more, svg("path", { class: "shape", d: shape(kind, 26, 14) }));
  const forms = [
    line(form("activity"), "run, task, order or job"), line(form("entity"), "data, code or service"),
    line(form("agent"), "person or program"),
  ];
  if (items.some((_, index) => isGroup(index))) {
    forms.push(line(form("activity", svg("path", { class: "under", d: shape("activity", 26, 14), transform: "translate(3 3)" })), "folded: + shows what is in it"));
  }
  const ended = new Set(items.flatMap((item) => [item.outcome, item.within]));
  const signs = Object.keys(data.outcomes).filter((outcome) => ended.has(outcome)).map((outcome) =>
    line(svg("svg", { viewBox: "-13 -10 26 20" }, sign(outcome)), `${outcome}: ${data.outcomes[outcome]}`));
  const led = new Set(data.links.map(([, , type]) => data.types[type].kind));
  const arrow = (kind) => ["flow", "weak"].includes(kind) ? "M0 8H29m-6 -4l6 4l-6 4" : "M0 8H29";
  const lines = Object.keys(LINES).filter((kind) => led.has(kind)).map((kind) =>
    line(svg("svg", { viewBox: "0 0 30 16" }, svg("path", { class: `edge ${kind}`, d: arrow(kind) })), LINES[kind]));
  if (lines.length) lines.push(line(svg("svg", { viewBox: "0 0 30 16" }, svg("path", { class: "edge many", d: "M0 8H29" })), "several lines drawn as one"));
  const keys = KEYS.map(([names, text]) => make("p", {}, ...names.flatMap((name) => [make("kbd", { text: name }), " "]), text));
  const [hands] = column("Mouse and keys", [make("p", { text: "Drag to pan, scroll or pinch to zoom." }), ...keys]);
  hands.id = "keys";
  return [...column("Shapes", forms), ...column("How it ended", signs), ...column("Lines, from the origin to the result", lines), hands];
}
