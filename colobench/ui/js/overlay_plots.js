// Runs over each other, in as many plots as are chosen, drawn as SVG.
//
// A frame has the runs with their names and colours, the plots with their axes and curves, and the
// means of phases. Its float32 data have x and then y of each curve, plot by plot.

const HEIGHT = 250;
const MARGIN = { left: 56, right: 12, top: 8, bottom: 40 };
// Less than this makes no sense of a logarithmic axis that has one value.
const DECADE = 1.25;
const DASHES = ["", "6 3", "2 3", "8 3 2 3", "1 2"];
const PREDICTED = "5 4";
const SIZE = 2.2;
// Pixels of a file per pixel of a page.
const SCALE = 2;

const MARKERS = [
  (x, y, r) => `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`,
  (x, y, r) => rectangle(x - r, y - r, 2 * r, 2 * r),
  (x, y, r) => `M${x} ${y - 1.3 * r}l${1.3 * r} ${2.3 * r}h${-2.6 * r}z`,
  (x, y, r) => `M${x} ${y - 1.5 * r}l${1.5 * r} ${1.5 * r}l${-1.5 * r} ${1.5 * r}l${-1.5 * r} ${-1.5 * r}z`,
];
const markerOf = (number) => MARKERS[number % MARKERS.length];

function readCurves(plots, data) {
  let offset = 0;
  const read = (rows) => {
    const values = new Float32Array(data, offset, rows);
    offset += values.byteLength;
    return values;
  };
  return plots.map((plot) => ({
    ...plot,
    curves: plot.curves.map((curve) => ({ ...curve, x: read(curve.rows), y: read(curve.rows) })),
  }));
}

function rangeOf(curves, axis, isLog) {
  let low = Infinity;
  let high = -Infinity;
  for (const curve of curves) {
    for (const value of curve[axis]) {
      if (isLog && !(value > 0)) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  if (low > high) return isLog ? [0.1, 10] : [0, 1];
  if (isLog) return [low / DECADE, high * DECADE];
  const from = Math.min(0, low);
  const to = Math.max(0, high);
  return [from, to > from ? to + 0.05 * (to - from) : 1];
}

function ticksOf([low, high], isLog, count) {
  if (!isLog) {
    const step = ticks(high - low, count)[1];
    const all = [];
    if (!step) return all;
    for (let i = Math.ceil(low / step); i * step <= high; i++) all.push(i * step);
    return all;
  }
  const all = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    all.push(...[1, 2, 5].map((each) => each * 10 ** power));
  }
  const inside = all.filter((each) => each >= low && each <= high);
  // One tick says nothing of what is between it and the ends.
  if (inside.length < 3) return ticksOf([low, high], false, count);
  const decades = inside.filter((each) => Math.abs(Math.log10(each) - Math.round(Math.log10(each))) < 1e-9);
  return inside.length > count && decades.length > 1 ? decades : inside;
}

// A function from values to pixels.
function scale([low, high], from, to, isLog) {
  const map = isLog ? Math.log10 : (value) => value;
  const factor = (to - from) / (map(high) - map(low));
  return (value) => from + (map(value) - map(low)) * factor;
}

const text = (x, y, words, attributes = {}) => svg("text", { x, y, fill: INK, ...attributes }, words);

function drawAxes(plot, width, [xs, ys], [place, raise]) {
  const base = HEIGHT - MARGIN.bottom;
  const axes = svg("g", {});
  for (const value of ticksOf(ys, plot.y_log, 6)) {
    const y = raise(value);
    axes.append(svg("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y, stroke: INK, "stroke-opacity": 0.2 }));
    axes.append(text(MARGIN.left - 6, y + 4, say(value), { "text-anchor": "end" }));
  }
  for (const value of ticksOf(xs, plot.x_log, Math.max(2, width / 80))) {
    axes.append(svg("line", { x1: place(value), x2: place(value), y1: base, y2: base + 4, stroke: INK }));
    axes.append(text(place(value), base + 17, say(value), { "text-anchor": "middle" }));
  }
  axes.append(svg("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: base, y2: base, stroke: INK, "stroke-opacity": 0.6 }));
  axes.append(text((MARGIN.left + width - MARGIN.right) / 2, HEIGHT - 6, plot.x_label, { "text-anchor": "middle" }));
  const turned = `translate(12 ${(MARGIN.top + base) / 2}) rotate(-90)`;
  axes.append(svg("text", { transform: turned, "text-anchor": "middle", fill: INK }, plot.y_label));
  return axes;
}

function drawCurve(curve, run, number, [place, raise]) {
  const mark = markerOf(run.number);
  if (curve.style === "dots") {
    let path = "";
    curve.x.forEach((x, i) => (path += mark(place(x), raise(curve.y[i]), SIZE)));
    return svg("path", { d: path, fill: run.colour, "fill-opacity": 0.7 });
  }
  let path = "";
  curve.x.forEach((x, i) => (path += `${i ? "L" : "M"}${place(x).toFixed(1)} ${raise(curve.y[i]).toFixed(1)}`));
  const dash = curve.style === "predicted" ? PREDICTED : curve.label ? DASHES[number % DASHES.length] : "";
  // A line of one point is a dot.
  if (curve.x.length === 1) path += "h0";
  const line = svg("path", { d: path, fill: "none", "stroke-linecap": curve.x.length === 1 ? "round" : "butt", stroke: run.colour, "stroke-width": curve.x.length === 1 ? 5 : 2, "stroke-dasharray": dash });
  const last = curve.x.length - 1;
  if (!curve.label || last < 0) return line;
  const name = text(place(curve.x[last]) - 2, raise(curve.y[last]) - 4, curve.label, { "text-anchor": "end", "font-size": 11 });
  return svg("g", {}, line, name);
}

// Why nothing is drawn.
const emptyWords = (runs) => (runs.length ? "The runs that are shown have none of this." : "No run is shown.");

function drawPlot(plot, runs, width) {
  const { curves } = plot;
  const ranges = [rangeOf(curves, "x", plot.x_log), rangeOf(curves, "y", plot.y_log)];
  const base = HEIGHT - MARGIN.bottom;
  const scales = [
    scale(ranges[0], MARGIN.left, width - MARGIN.right, plot.x_log),
    scale(ranges[1], base, MARGIN.top, plot.y_log),
  ];
  const all = svg("svg", { width, height: HEIGHT }, drawAxes(plot, width, ranges, scales));
  const seen = {};
  for (const curve of curves) {
    const run = runs.find(({ number }) => number === curve.run);
    seen[curve.run] = (seen[curve.run] ?? -1) + 1;
    all.append(drawCurve(curve, run, seen[curve.run], scales));
  }
  const middle = (MARGIN.left + width - MARGIN.right) / 2;
  if (!curves.some(({ rows }) => rows)) all.append(sayEmpty(emptyWords(runs), middle, HEIGHT / 2));
  return all;
}

// A bar for each run, of the means of its phases.
function drawPhases({ runs, means, phases, hatches }, width) {
  const drawn = runs.filter(({ number }) => means[number]);
  const total = ({ number }) => Object.values(means[number]).reduce((a, b) => a + b, 0);
  const end = 1.05 * Math.max(0, ...drawn.map(total)) || 1;
  const row = Math.min(44, (HEIGHT - MARGIN.top - MARGIN.bottom) / Math.max(1, drawn.length));
  const bottom = MARGIN.top + row * Math.max(1, drawn.length);
  const place = scale([0, end], 12, width - MARGIN.right, false);
  const all = svg("svg", { width, height: bottom + MARGIN.bottom });
  const [defined, fills] = makeHatches(phases, hatches);
  all.append(defined);
  drawn.forEach((run, i) => {
    const y = MARGIN.top + i * row;
    all.append(svg("path", { d: markerOf(run.number)(6, y + 7, 4), fill: run.colour, stroke: INK }));
    all.append(text(14, y + 11, `${run.name}: ${say(total(run))} ms`, { "font-size": 11 }));
    let at = 0;
    for (const [phase, mean] of Object.entries(means[run.number])) {
      const fill = fills[phase] ?? phases[phase];
      const d = rectangle(place(at), y + 15, place(at + mean) - place(at), Math.max(6, row - 20));
      if (mean > 0) all.append(svg("path", { d, fill, stroke: INK, "stroke-width": 0.5, "data-phase": phase }));
      at += mean;
    }
  });
  for (const value of ticksOf([0, end], false, Math.max(2, width / 80))) {
    all.append(svg("line", { x1: place(value), x2: place(value), y1: MARGIN.top, y2: bottom, stroke: INK, "stroke-opacity": 0.2 }));
    all.append(text(place(value), bottom + 15, say(value), { "text-anchor": "middle" }));
  }
  all.append(text(width / 2, bottom + 32, "mean pause (ms)", { "text-anchor": "middle" }));
  if (!drawn.length) all.append(sayEmpty(emptyWords(runs), width / 2, MARGIN.top + row / 2));
  return all;
}

function makeLegend({ runs, phases, hatches }, hasPhases) {
  const line = element("div", "display: flex; flex-wrap: wrap; gap: 2px 16px; padding: 4px 2px");
  for (const run of runs) {
    const entry = element("span", "display: inline-flex; align-items: center; overflow-wrap: anywhere");
    const swatch = svg("svg", { width: 18, height: 16, "aria-hidden": "true", style: "flex: none; margin-right: 4px" });
    swatch.append(svg("path", { d: markerOf(run.number)(9, 8, 5), fill: run.colour, stroke: INK }));
    entry.append(swatch, element("span", "", run.name));
    line.append(entry);
  }
  if (!hasPhases) return line;
  const below = element("div", "display: flex; flex-wrap: wrap; gap: 2px 12px; padding: 0 2px 4px; font-size: 11px");
  const [defined, fills] = makeHatches(phases, hatches);
  // Not displayed at all, an SVG's patterns do not count.
  const definitions = svg("svg", { width: 0, height: 0, style: "position: absolute", "aria-hidden": "true" }, defined);
  below.append(definitions, element("span", "", "phases:"));
  for (const [phase, colour] of Object.entries(phases)) {
    const entry = element("span", "display: inline-flex; align-items: center");
    const swatch = svg("svg", { width: 11, height: 11, style: "margin-right: 4px; outline: 1px solid", "aria-hidden": "true" });
    swatch.append(svg("rect", { width: 11, height: 11, fill: fills[phase] ?? colour }));
    entry.append(swatch, element("span", "", phase));
    below.append(entry);
  }
  const both = element("div", "");
  both.append(line, below);
  return both;
}

function describe(plot, { runs, means }) {
  const words = runs.map((run) => {
    if (plot.name === "phases") return `${run.name}: ${means[run.number] ? "drawn" : "no checkpoint yet"}`;
    const own = plot.curves.filter((curve) => curve.run === run.number && curve.style !== "predicted");
    const last = own.map(({ y, label }) => (y.length ? `${label} ${say(y[y.length - 1])}`.trim() : "")).filter(Boolean);
    return `${run.name}: ${last.length ? `last value ${last.join(", ")}` : "nothing yet"}`;
  });
  return `${plot.title}. ${words.join("; ") || "No run is shown"}.`;
}

// One SVG with heading, legend and plot, in the colours that the page has now, as a file.
async function savePicture(plot, picture, runs) {
  const drawn = picture.querySelector("svg").cloneNode(true);
  const { color } = getComputedStyle(picture);
  const [width, height] = ["width", "height"].map((name) => Number(drawn.getAttribute(name)));
  const top = 26 + 18 * runs.length;
  const whole = svg("svg", { xmlns: "http://www.w3.org/2000/svg", width, height: height + top, "font-family": "sans-serif", "font-size": 12 });
  const page = getComputedStyle(document.body).backgroundColor;
  whole.append(svg("rect", { width, height: height + top, fill: page === "rgba(0, 0, 0, 0)" ? "white" : page }));
  whole.append(text(8, 18, plot.title, { "font-size": 14, "font-weight": "bold" }));
  runs.forEach((run, i) => {
    const y = 36 + 18 * i;
    whole.append(svg("path", { d: markerOf(run.number)(14, y - 4, 4), fill: run.colour }), text(26, y, run.name));
  });
  drawn.setAttribute("y", top);
  whole.append(drawn);
  const source = new XMLSerializer().serializeToString(whole).replaceAll(INK, color);
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(source)}`;
  await image.decode();
  const canvas = element("canvas", "");
  [canvas.width, canvas.height] = [SCALE * width, SCALE * (height + top)];
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  const link = element("a", "");
  [link.href, link.download] = [URL.createObjectURL(blob), `colobench-${plot.name}.png`];
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function makeCard(name) {
  const card = element("figure", "margin: 0; min-width: 0");
  const head = card.appendChild(element("figcaption", "display: flex; gap: 8px; align-items: baseline"));
  const title = head.appendChild(element("strong", "font-size: 13px"));
  const save = head.appendChild(element("button", "margin-left: auto; font-size: 11px; color: inherit; background: none; border: 1px solid; border-radius: 3px; cursor: pointer", "PNG"));
  const words = card.appendChild(element("div", "font-size: 11px; line-height: 1.4; opacity: 0.85"));
  const picture = card.appendChild(element("div", "overflow: hidden"));
  picture.setAttribute("role", "img");
  card.dataset.plot = name;
  return { card, title, save, words, picture };
}

function begin(box, { ends }) {
  box.style = `font-size: 12px; line-height: 1.5; min-width: 0; color: ${INK}`;
  const legend = box.appendChild(element("div", ""));
  const grid = box.appendChild(element("div", "display: grid; gap: 14px 18px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 360px), 1fr))"));
  const cards = new Map();
  let redraw = () => {};
  const resizes = new ResizeObserver(() => redraw());
  resizes.observe(grid);
  ends.push(() => resizes.disconnect());
  return (frame, data) => {
    if (!frame.plots) return;
    const plots = readCurves(frame.plots, data);
    const { runs } = frame;
    legend.replaceChildren(makeLegend(frame, plots.some(({ name }) => name === "phases")));
    for (const { name } of plots) if (!cards.has(name)) cards.set(name, makeCard(name));
    const wanted = plots.map(({ name }) => cards.get(name).card);
    if (wanted.length !== grid.childElementCount || wanted.some((card, i) => grid.children[i] !== card)) grid.replaceChildren(...wanted);
    redraw = () => {
      for (const plot of plots) {
        const { title, save, words, picture } = cards.get(plot.name);
        const width = picture.clientWidth;
        if (!width) continue;
        [title.textContent, words.textContent] = [plot.title, plot.text];
        picture.replaceChildren(plot.name === "phases" ? drawPhases(frame, width) : drawPlot(plot, runs, width));
        picture.setAttribute("aria-label", describe(plot, frame));
        save.setAttribute("aria-label", `Save “${plot.title}” as a PNG file`);
        save.onclick = () => savePicture(plot, picture, runs);
      }
      const points = (number) => Math.max(0, ...plots.flatMap(({ curves }) => curves.filter(({ run }) => run === number).map(({ rows }) => rows)));
      box.dataset.runs = JSON.stringify(Object.fromEntries(runs.map(({ number, rows }) => [number, rows])));
      box.dataset.points = JSON.stringify(Object.fromEntries(runs.map(({ number }) => [number, points(number)])));
    };
    redraw();
  };
}

export default { render: (context) => follow(context, begin) };
