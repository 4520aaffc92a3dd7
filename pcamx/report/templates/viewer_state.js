// What is known of the films, what is chosen, and the address that says so.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const MOST_CHOICES = 40;  // a fact of more different values is shown, not chosen by
const ERRORS = ["right", "missed", "false alarm"];
const films = data.paths.map((_, i) => i);

const state = { film: null, find: "", facts: {}, error: "", network: data.start[0], map: data.start[1],
  sort: "", down: false, overlay: true, outlines: true };
let shown = films;  // indices of the films chosen, in order

const network = () => data.networks[state.network];
const map = () => network() && network().maps[state.map];
const probability = (i) => network() ? network().probability[i] : null;

function errorOf(i) {  // by the network chosen; "" where label or probability is unknown
  const label = data.facts.label && data.facts.label[i], p = probability(i);
  if (!label || p === null || p === undefined) return "";
  const called = p > data.calledFrom ? "abnormal" : "normal";
  if (called === label) return "right";
  return label === "abnormal" ? "missed" : "false alarm";
}

function sorts() {  // title > the number that films are sorted by
  const found = { "probability": probability };
  if (data.facts.label) {
    found["distance from the label"] = (i) => probability(i) === null ? null
      : Math.abs((data.facts.label[i] === "abnormal" ? 1 : 0) - probability(i));
  }
  for (const [title, values] of Object.entries(map() ? map().columns : {})) {
    found[title] = (i) => values[i];
  }
  return found;
}

function choose() {
  const text = state.find.toLowerCase();
  const wanted = Object.entries(state.facts).filter(([, value]) => value !== "");
  shown = films.filter((i) =>
    (!text || data.paths[i].toLowerCase().includes(text))
    && wanted.every(([name, value]) => data.facts[name][i] === value)
    && (!state.error || errorOf(i) === state.error));
  const value = sorts()[state.sort];
  if (value) {
    const turn = state.down ? -1 : 1;
    const known = (x) => x !== null && x !== undefined;
    shown.sort((a, b) => {  // what has no number comes last, whichever way
      const x = value(a), y = value(b);
      if (!known(x) || !known(y)) return known(y) - known(x) || a - b;
      return turn * (x - y) || a - b;
    });
  } else if (state.down) shown.reverse();
}

function address() {
  const params = new URLSearchParams();
  if (state.film !== null) params.set("film", data.paths[state.film]);
  if (state.find) params.set("find", state.find);
  for (const [name, value] of Object.entries(state.facts)) if (value) params.set(name, value);
  if (state.error) params.set("error", state.error);
  if (network()) params.set("network", network().title);
  if (map()) params.set("map", map().title);
  if (state.sort) params.set("sort", state.sort);
  for (const key of ["down", "overlay", "outlines"]) params.set(key, state[key] ? "1" : "0");
  return params.toString();
}

function readAddress() {  // what the address does not say stays as it is
  const params = new URLSearchParams(location.hash.slice(1));
  const at = data.paths.indexOf(params.get("film"));
  state.film = at < 0 ? null : at;
  state.find = params.get("find") || "";
  state.facts = {};
  for (const name of Object.keys(data.facts)) {
    if (params.get(name)) state.facts[name] = params.get(name);
  }
  state.error = ERRORS.includes(params.get("error")) ? params.get("error") : "";
  if (params.has("network")) {
    state.network = Math.max(0, data.networks.findIndex((n) => n.title === params.get("network")));
  }
  if (params.has("map") && network()) {
    state.map = Math.max(0, network().maps.findIndex((m) => m.title === params.get("map")));
  }
  state.sort = Object.hasOwn(sorts(), params.get("sort")) ? params.get("sort") : "";
  for (const key of ["down", "overlay", "outlines"]) {
    if (params.has(key)) state[key] = params.get(key) === "1";
  }
}

let written = null;
function writeAddress(step = false) {  // a step is what the browser's back button undoes
  written = address();
  if (step) location.hash = written;
  else location.replace(`#${written}`);
}

// The form.
function option(select, text, value) {
  select.append(new Option(text, value));
}

function fillForm() {
  const choices = Object.entries(data.facts)
    .map(([name, values]) => [name, [...new Set(values)].filter((v) => v !== "").sort()])
    .filter(([, values]) => values.length > 1 && values.length <= MOST_CHOICES);
  if (data.facts.label && data.networks.length) choices.push(["error", ERRORS]);
  for (const [name, values] of choices) {
    const label = document.createElement("label"), select = document.createElement("select");
    select.dataset.fact = name;
    option(select, "all", "");
    for (const value of values) option(select, value, value);
    label.append(`${name} `, select);
    byId("filters").append(label);
  }
  data.networks.forEach((n, k) => option(byId("network"), n.title, k));
}

function showForm() {
  byId("find").value = state.find;
  for (const select of byId("filters").querySelectorAll("select")) {
    const name = select.dataset.fact;
    select.value = name === "error" ? state.error : state.facts[name] || "";
  }
  byId("network").value = state.network;
  byId("map").replaceChildren();
  (network() ? network().maps : []).forEach((m, k) => option(byId("map"), m.title, k));
  byId("map").value = state.map;
  byId("sort").replaceChildren();
  option(byId("sort"), "order of the set", "");
  for (const title of Object.keys(sorts())) option(byId("sort"), title, title);
  byId("sort").value = state.sort;
  byId("direction").textContent = state.down ? "↓" : "↑";
  byId("direction").setAttribute("aria-pressed", state.down);
  byId("overlay").checked = state.overlay;
  byId("outlines").checked = state.outlines;
}
