// The grid: only the cells in view exist, so that thousands of films cost no more than a screen.
const CELL = 168, CAPTION = 24, GAP = 12;
const cells = new Map();  // place in `shown` > element
let columns = 1;

const picture = (i, ending) => `${data.folder}/${data.stems[i].split("/")
  .map(encodeURIComponent).join("/")}${data.endings[ending]}`;

const strips = new Map();  // film > image of all its maps; the oldest go
function strip(i) {
  let image = strips.get(i);
  if (!image) {
    image = new Image();
    image.src = picture(i, "maps");
    strips.set(i, image);
    if (strips.size > 300) strips.delete(strips.keys().next().value);
  }
  return image;
}

const tiles = Math.max(0, ...data.networks.flatMap((n) => n.maps)
  .map((m) => m.tile === null ? 0 : m.tile + 1));

async function drawMap(canvas, i, width, height) {  // the film's own part of the strip
  const tile = map() ? map().tile : null;
  const wanted = canvas.wanted = {};
  canvas.width = width;
  canvas.height = height;
  if (tile === null) return;
  const image = strip(i);
  try { await image.decode(); } catch { return; }
  if (canvas.wanted !== wanted) return;  // another map was chosen meanwhile
  const high = image.naturalHeight / tiles;
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, tile * high, image.naturalWidth, high, 0, 0, width, height);
}

function outlines(svg, i) {
  svg.setAttribute("viewBox", `0 0 ${data.scale} ${data.scale}`);
  svg.replaceChildren();
  for (const [kind, rings] of [["mark", data.marks[i]], ["candidate", data.candidates[i]]]) {
    for (const points of rings || []) {
      const pairs = [];
      for (let k = 0; k < points.length; k += 2) pairs.push(`${points[k]} ${points[k + 1]}`);
      for (const name of ["halo", kind]) {
        const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
        path.setAttribute("class", name);
        path.setAttribute("d", `M${pairs.join("L")}Z`);
        svg.append(path);
      }
    }
  }
}

function makeCell(place) {
  const i = shown[place], cell = document.createElement("button");
  cell.type = "button";
  cell.className = "cell";
  cell.setAttribute("role", "option");
  cell.title = data.paths[i];
  cell.style.left = `${GAP + (place % columns) * (CELL + GAP)}px`;
  cell.style.top = `${GAP + Math.floor(place / columns) * (CELL + CAPTION + GAP)}px`;
  cell.style.width = `${CELL}px`;
  const thumb = document.createElement("span"), fit = document.createElement("span");
  thumb.className = "thumb";
  thumb.style.height = `${CELL}px`;
  fit.className = "fit";
  const image = new Image();
  image.alt = "";
  image.addEventListener("load", () => {
    const scale = CELL / Math.max(image.naturalWidth, image.naturalHeight);
    fit.style.width = `${image.naturalWidth * scale}px`;
    fit.style.height = `${image.naturalHeight * scale}px`;
  });
  image.src = picture(i, "small");
  fit.append(image);
  if (state.overlay) {
    const canvas = document.createElement("canvas");
    canvas.style.opacity = byId("opacity").value;
    fit.append(canvas);
    drawMap(canvas, i, CELL, CELL);
  }
  if (state.outlines) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("preserveAspectRatio", "none");
    outlines(svg, i);
    fit.append(svg);
  }
  thumb.append(fit);
  cell.append(thumb, caption(i));
  cell.addEventListener("click", () => openFilm(i));
  return cell;
}

function caption(i) {
  const line = document.createElement("span"), p = probability(i), error = errorOf(i);
  line.className = "caption";
  if (p !== null && p !== undefined) line.append(`P ${p.toFixed(2)} `);
  if (error && error !== "right") {
    const bad = document.createElement("span");
    bad.className = "bad";
    bad.textContent = error;
    line.append(bad, " ");
  }
  const value = Object.hasOwn(sorts(), state.sort) && state.sort !== "probability"
    ? sorts()[state.sort](i) : null;
  if (value !== null && value !== undefined) line.append(`${state.sort} ${number(value)} `);
  line.append(data.facts.part && data.facts.part[i] || data.paths[i].split("/").pop());
  return line;
}

const number = (value) => Number.isInteger(value) ? String(value)
  : Math.abs(value) < 999.5 ? value.toPrecision(3) : value.toFixed(0);

function showGrid(anew = true) {
  if (anew) {
    for (const cell of cells.values()) cell.remove();
    cells.clear();
  }
  const scroller = byId("scroller");
  columns = Math.max(1, Math.floor((scroller.clientWidth - GAP) / (CELL + GAP)));
  const row = CELL + CAPTION + GAP, rows = Math.ceil(shown.length / columns);
  byId("grid").style.height = `${rows * row + GAP}px`;
  const first = Math.max(0, Math.floor(scroller.scrollTop / row) - 1) * columns;
  const end = Math.min(shown.length,
    (Math.ceil((scroller.scrollTop + scroller.clientHeight) / row) + 1) * columns);
  for (const [place, cell] of cells) {
    if (place < first || place >= end) {
      cell.remove();
      cells.delete(place);
    }
  }
  for (let place = first; place < end; place++) {
    if (!cells.has(place)) {
      cells.set(place, makeCell(place));
      byId("grid").append(cells.get(place));
    }
  }
  byId("count").textContent = shown.length === films.length ? `${films.length} films`
    : `${shown.length} of ${films.length} films`;
}

function focusPlace(place) {
  place = Math.min(Math.max(place, 0), shown.length - 1);
  if (place < 0) return;
  const scroller = byId("scroller"), row = CELL + CAPTION + GAP;
  const top = Math.floor(place / columns) * row;
  if (top < scroller.scrollTop) scroller.scrollTop = top;
  const below = top + row + GAP - scroller.clientHeight;
  if (below > scroller.scrollTop) scroller.scrollTop = below;
  showGrid(false);
  cells.get(place).focus();
}

byId("grid").addEventListener("keydown", (event) => {
  const found = [...cells].find(([, cell]) => cell === document.activeElement);
  if (!found || event.ctrlKey || event.altKey || event.metaKey) return;
  const moves = { ArrowLeft: found[0] - 1, ArrowRight: found[0] + 1, ArrowUp: found[0] - columns,
    ArrowDown: found[0] + columns, Home: 0, End: shown.length - 1 };
  if (event.key in moves) {
    event.preventDefault();
    focusPlace(moves[event.key]);
  }
});
