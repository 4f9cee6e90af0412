/* The details of the chosen thing: everything on record about it, and its relations to others. */

const LISTED = 100;
const AMISS = new Set(data.amiss);
const relationsOf = items.map(() => []);
data.relations.forEach((relation) => {
  relationsOf[relation[0]].push([relation, 0]);
  relationsOf[relation[1]].push([relation, 1]);
});

function make(name, options = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(options)) {
    if (key === "text") made.textContent = value; else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/* Make a line of a list that leads to a thing. */
function entry(index, choose) {
  const item = items[index];
  const button = make("button", { type: "button", class: "entry", title: item.id ?? item.title },
    icon(item), make("span", { text: item.title }),
    make("span", { class: "aside", text: members[index].length === 1 ? items[members[index][0]].title : item.note }));
  button.addEventListener("click", () => choose(index));
  return make("li", {}, button);
}

function list(title, indices, choose) {
  const lines = indices.slice(0, LISTED).map((index) => entry(index, choose));
  if (indices.length > LISTED) lines.push(make("li", { class: "kind", text: `and ${indices.length - LISTED} more` }));
  return [make("h3", { text: indices.length > 1 ? `${title} (${indices.length})` : title }), make("ul", {}, ...lines)];
}

function moment(text) {
  const time = new Date(text);
  return Number.isNaN(time.valueOf()) ? text : time.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

function valueOf(value) {
  if (value === null || typeof value !== "object") return document.createTextNode(String(value));
  const text = JSON.stringify(value, null, 2);
  if (text.length <= 400) return make("pre", { text });
  const count = Array.isArray(value) ? value.length : Object.keys(value).length;
  return make("details", {}, make("summary", { text: `${count} ${Array.isArray(value) ? "values" : "entries"}` }), make("pre", { text }));
}

function told(index, choose, close) {
  const item = items[index];
  const closing = make("button", { type: "button", class: "close", "aria-label": "Close details", text: "×" });
  closing.addEventListener("click", close);
  const parts = [closing, make("h2", { text: item.title }), make("p", { class: "kind", text: data.meanings[item.type] ?? item.type })];
  const { outcome: _, cause, ...attributes } = item.attributes ?? {};
  if (item.outcome) {
    parts.push(make("p", { class: "end" }, icon(item), document.createTextNode(`${item.outcome}: ${data.outcomes[item.outcome]}`)));
  }
  if (cause) parts.push(make("p", { class: "cause", text: String(cause) }));
  const facts = make("dl");
  const tell = (name, value) => facts.append(make("dt", { text: name }), make("dd", {}, value));
  if (item.id) tell("id", make("code", { text: item.id }));
  tell("type", document.createTextNode(item.note));
  if (item.time) tell(item.kind === "activity" ? "began" : "since", make("time", { datetime: item.time, text: moment(item.time) }));
  if (item.ended) tell("ended", make("time", { datetime: item.ended, text: moment(item.ended) }));
  for (const [name, value] of Object.entries(attributes)) tell(name.replaceAll("_", " "), valueOf(value));
  parts.push(facts);
  const amiss = items.flatMap((each, other) => AMISS.has(each.outcome) && around(other).includes(index) ? [other] : []);
  if (amiss.length) parts.push(...list("Did not end well", amiss, choose));
  if (!item.id) parts.push(...list("Contains", members[index], choose));
  const ends = new Map();
  for (const [[source, target, type, role], side] of relationsOf[index]) {
    const word = data.types[type].words[side] + (role ? ` as ${role}` : "");
    if (!ends.has(word)) ends.set(word, []);
    ends.get(word).push(side === 0 ? target : source);
  }
  for (const [word, indices] of ends) parts.push(...list(word, indices, choose));
  return parts;
}
