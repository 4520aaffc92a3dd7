// One film, as large as the window, and what ties form, grid and film together.
const view = { zoom: 1, x: 0, y: 0, window: 255, level: 127.5 };

function openFilm(i) {
  const step = state.film === null;
  state.film = i;
  showFilm(true);
  writeAddress(step);
}

function closeFilm() {
  const place = shown.indexOf(state.film);
  state.film = null;
  showFilm(false);
  writeAddress();
  if (place >= 0) focusPlace(place);
}

function showFilm(anew) {
  const i = state.film;
  byId("film").hidden = i === null;
  if (i === null) return;
  if (anew) {
    byId("picture").src = picture(i, "film");
    resetView();
    byId("stage").focus();
  }
  byId("name").textContent = data.paths[i];
  const place = shown.indexOf(i);
  byId("place").textContent = place < 0 ? "not among the films chosen"
    : `${place + 1} of ${shown.length}`;
  byId("previous").disabled = place <= 0;
  byId("next").disabled = place < 0 || place >= shown.length - 1;
  showFacts(i);
  showMap();
}

function showMap() {
  const { naturalWidth: width, naturalHeight: height } = byId("picture");
  byId("heatmap").style.display = state.overlay ? "" : "none";
  byId("heatmap").style.opacity = byId("opacity").value;
  if (state.overlay && width) drawMap(byId("heatmap"), state.film, width, height);
  byId("lines").style.display = state.outlines ? "" : "none";
  outlines(byId("lines"), state.film);
}

function showFacts(i) {
  const list = byId("facts"), error = errorOf(i);
  list.replaceChildren();
  const add = (name, value, bad = false) => {
    const term = document.createElement("dt"), text = document.createElement("dd");
    term.textContent = name;
    text.textContent = value;
    if (bad) text.className = "bad";
    list.append(term, text);
  };
  const head = (text) => {
    const term = document.createElement("dt");
    term.className = "head";
    term.textContent = text;
    list.append(term);
  };
  for (const [name, values] of Object.entries(data.facts)) if (values[i]) add(name, values[i]);
  head("P(abnormal)");
  for (const n of data.networks) {
    const p = n.probability[i];
    if (p !== null) add(n.title, p.toFixed(3), n === network() && error && error !== "right");
  }
  if (!map()) return;
  head(`${map().title} of ${network().title}`);
  for (const [title, values] of Object.entries(map().columns)) {
    if (values[i] !== null && values[i] !== undefined) add(title, number(values[i]));
  }
}

// Zoom, window and level.
function resetView() {
  Object.assign(view, { zoom: 1, x: 0, y: 0, window: 255, level: 127.5 });
  place();
}

function place() {
  const stage = byId("stage"), image = byId("picture"), layer = byId("layer");
  const { naturalWidth: width, naturalHeight: height } = image;
  if (width) {
    const scale = view.zoom * Math.min(stage.clientWidth / width, stage.clientHeight / height);
    const left = (stage.clientWidth - width * scale) / 2 + view.x;
    const top = (stage.clientHeight - height * scale) / 2 + view.y;
    layer.style.width = `${width * scale}px`;
    layer.style.height = `${height * scale}px`;
    layer.style.transform = `translate(${left}px, ${top}px)`;
  }
  const slope = 255 / view.window, start = 0.5 - slope * view.level / 255;
  for (const channel of document.querySelectorAll("#window feComponentTransfer > *")) {
    channel.setAttribute("slope", slope);
    channel.setAttribute("intercept", start);
  }
  byId("readout").textContent = `window ${Math.round(view.window)}, level `
    + `${Math.round(view.level)}, zoom ${view.zoom.toFixed(1)}`;
}

function zoomBy(factor, atX, atY) {  // what lies under the pointer stays there
  const stage = byId("stage");
  const zoom = Math.min(Math.max(view.zoom * factor, 0.5), 40), ratio = zoom / view.zoom;
  const x = (atX ?? stage.clientWidth / 2) - stage.clientWidth / 2;
  const y = (atY ?? stage.clientHeight / 2) - stage.clientHeight / 2;
  view.x = x - (x - view.x) * ratio;
  view.y = y - (y - view.y) * ratio;
  view.zoom = zoom;
  place();
}

byId("picture").addEventListener("load", () => {
  if (state.film === null) return;  // closed before it came
  place();
  showMap();
});
byId("stage").tabIndex = -1;
byId("stage").addEventListener("wheel", (event) => {
  event.preventDefault();
  const box = byId("stage").getBoundingClientRect();
  zoomBy(Math.exp(-event.deltaY / 400), event.clientX - box.left, event.clientY - box.top);
}, { passive: false });
byId("stage").addEventListener("pointerdown", (event) => {
  event.preventDefault();
  byId("stage").setPointerCapture(event.pointerId);
});
byId("stage").addEventListener("pointermove", (event) => {
  if (!event.buttons) return;
  if (event.shiftKey || event.buttons & 4) {
    view.x += event.movementX;
    view.y += event.movementY;
  } else {
    view.window = Math.min(Math.max(view.window + event.movementX, 2), 1020);
    view.level = Math.min(Math.max(view.level + event.movementY / 2, -255), 510);
  }
  place();
});
byId("stage").addEventListener("dblclick", resetView);
byId("restore").addEventListener("click", resetView);
byId("opacity").addEventListener("input", () => update({ overlay: true }));
byId("previous").addEventListener("click", () => move(-1));
byId("next").addEventListener("click", () => move(1));
byId("close").addEventListener("click", closeFilm);

function move(by) {
  const to = shown[shown.indexOf(state.film) + by];
  if (shown.includes(state.film) && to !== undefined) openFilm(to);
}

// Everything that is chosen passes here.
function update(change) {
  Object.assign(state, change);
  if (state.map >= (network() ? network().maps.length : 0)) state.map = 0;
  if (!Object.hasOwn(sorts(), state.sort)) state.sort = "";
  refresh();
  writeAddress();
}

function refresh(anew = false) {
  choose();
  showForm();
  showGrid();
  showFilm(anew);
}

function nextMap() {
  if (network()) update({ map: (state.map + 1) % network().maps.length, overlay: true });
}

const KEYS = {
  ArrowLeft: () => move(-1), ArrowRight: () => move(1), Escape: closeFilm,
  "+": () => zoomBy(1.25), "-": () => zoomBy(0.8), 0: resetView, m: nextMap,
  n: () => update({ network: (state.network + 1) % data.networks.length }),
  o: () => update({ overlay: !state.overlay }), k: () => update({ outlines: !state.outlines }),
  "[": () => setOpacity(-0.1), "]": () => setOpacity(0.1),
};

function setOpacity(by) {
  byId("opacity").value = Number(byId("opacity").value) + by;
  update({ overlay: true });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const typing = event.target.matches("input[type=search], input[type=range], select");
  if (state.film === null) {
    if (event.key === "/" && !typing) {
      event.preventDefault();
      byId("find").focus();
    } else if (["m", "n", "o", "k"].includes(event.key) && !typing) KEYS[event.key]();
  } else if (event.key in KEYS && (!typing || event.key === "Escape")) {
    event.preventDefault();
    KEYS[event.key]();
  }
});

byId("choose").addEventListener("submit", (event) => event.preventDefault());
byId("choose").addEventListener("reset", () => update({ find: "", facts: {}, error: "", sort: "",
  down: false }));
byId("find").addEventListener("input", () => update({ find: byId("find").value }));
byId("network").addEventListener("change", () => update({ network: +byId("network").value }));
byId("map").addEventListener("change", () => update({ map: +byId("map").value, overlay: true }));
byId("sort").addEventListener("change", () => update({ sort: byId("sort").value }));
byId("direction").addEventListener("click", () => update({ down: !state.down }));
for (const id of ["overlay", "outlines"]) {
  byId(id).addEventListener("change", () => update({ [id]: byId(id).checked }));
}
byId("filters").addEventListener("change", (event) => {
  const { dataset: { fact }, value } = event.target;
  update(fact === "error" ? { error: value } : { facts: { ...state.facts, [fact]: value } });
});
byId("scroller").addEventListener("scroll", () => showGrid(false));
window.addEventListener("resize", () => { showGrid(); place(); });
window.addEventListener("hashchange", () => {
  if (location.hash.slice(1) === written) return;
  written = location.hash.slice(1);
  readAddress();
  refresh(true);
});

fillForm();
readAddress();
refresh(true);
