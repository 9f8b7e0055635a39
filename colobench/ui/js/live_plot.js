// Bars for checkpoints, drawn as SVG: the phases of each pause on top of each other, and pages below.
//
// A frame says which columns its float32 data have, row by row for each column; the numbers of the
// first and last checkpoint that there is room for; and the colours.

const LEFT = 58;
const RIGHT = 8;
const PLOTS = [
  { label: "pause (ms)", height: 230, bottom: 6 },
  { label: "pages sent", height: 150, bottom: 36 },
];
const INK = "var(--jp-ui-font-color1, currentColor)";
// Bars as wide as this have room for an outline.
const OUTLINED = 9;
let patterns = 0;

const svg = (tag, attributes, ...children) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};

function readColumns({ columns, rows }, data) {
  const read = (name, i) => [name, new Float32Array(data, 4 * i * rows, rows)];
  return Object.fromEntries(columns.map(read));
}

// About `count` round numbers from 0 to `end`.
function ticks(end, count) {
  const rough = end / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((each) => each * power >= rough);
  const all = [];
  for (let i = 0; i * step <= end * 1.0001; i++) all.push(i * step);
  return all;
}

const say = (value) => value.toLocaleString("en", { maximumSignificantDigits: 3 });

const rectangle = (x, y, width, height) => `M${x} ${y}h${width}v${height}h${-width}z`;

// Diagonal lines over the colour of the phase that is no work of COLO's.
function makeHatch(colour) {
  const id = `colobench-hatch-${patterns++}`;
  const attributes = { id, width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" };
  const pattern = svg("pattern", attributes);
  pattern.append(svg("rect", { width: 5, height: 5, fill: colour }));
  pattern.append(svg("line", { y2: 5, stroke: COLOURS.hatch, "stroke-width": 3 }));
  return [svg("defs", {}, pattern), `url(#${id})`];
}

function makeLegend(phases) {
  const line = element("div", `display: flex; flex-wrap: wrap; gap: 2px 14px; padding-left: ${LEFT}px`);
  for (const [phase, colour] of Object.entries(phases)) {
    const entry = element("span", "display: inline-flex; align-items: center");
    const swatch = element("span", `width: 12px; height: 12px; margin-right: 5px; outline: 1px solid; background: ${colour}`);
    if (phase === "verify") {
      swatch.style.background = `repeating-linear-gradient(45deg, ${colour} 0 2px, ${COLOURS.hatch} 2px 4px)`;
    }
    entry.append(swatch, element("span", "", phase));
    line.append(entry);
  }
  return line;
}

// Grid lines, numbers at the side, and the label of the axis.
function drawAxis({ label, height, bottom }, width, end) {
  const base = height - bottom;
  const scale = (base - 8) / end;
  const axis = svg("g", {});
  for (const value of ticks(end, 4)) {
    const y = base - value * scale;
    axis.append(svg("line", { x1: LEFT, x2: width - RIGHT, y1: y, y2: y, stroke: INK, "stroke-opacity": 0.2 }));
    axis.append(svg("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end", fill: INK }, say(value)));
  }
  const turned = `translate(12 ${base / 2}) rotate(-90)`;
  axis.append(svg("text", { transform: turned, "text-anchor": "middle", fill: INK }, label));
  return [axis, base, scale];
}

function drawPauses(frame, columns, width, place, hatch) {
  const all = svg("svg", { width, height: PLOTS[0].height });
  const [axis, base, scale] = drawAxis(PLOTS[0], width, 1.05 * Math.max(...columns.pause, 0) || 1);
  all.append(hatch[0], axis);
  const tops = new Float32Array(frame.rows).fill(base);
  for (const [phase, colour] of Object.entries(frame.phases)) {
    let path = "";
    columns[phase].forEach((value, i) => {
      tops[i] -= value * scale;
      path += rectangle(place.left(i), tops[i], place.width, value * scale);
    });
    const fill = phase === "verify" ? hatch[1] : colour;
    const outline = place.width >= OUTLINED ? { stroke: INK, "stroke-width": 1 } : {};
    all.append(svg("path", { d: path, fill, "data-phase": phase, ...outline }));
  }
  return all;
}

function drawPages(frame, columns, width, place) {
  const [{ height, bottom }] = PLOTS.slice(1);
  const all = svg("svg", { width, height });
  const [axis, base, scale] = drawAxis(PLOTS[1], width, 1.05 * Math.max(...columns.pages, 0) || 1);
  let path = "";
  columns.pages.forEach((value, i) => {
    path += rectangle(place.left(i), base - value * scale, place.width, value * scale);
  });
  all.append(axis, svg("path", { d: path, fill: frame.pages_colour }));
  const step = Math.max(1, ticks(frame.last - frame.first + 1, width / 90)[1]);
  for (let number = Math.ceil(frame.first / step) * step; number <= frame.last; number += step) {
    const attributes = { x: place.centre(number), y: base + 14, "text-anchor": "middle", fill: INK };
    all.append(svg("text", attributes, say(number)));
  }
  const middle = { x: (LEFT + width - RIGHT) / 2, y: height - bottom + 30, "text-anchor": "middle", fill: INK };
  all.append(svg("text", middle, "checkpoint"));
  return all;
}

// Where the bars of a frame are.
function places({ first, last }, numbers, width) {
  const slot = (width - LEFT - RIGHT) / (last - first + 1);
  const centre = (number) => LEFT + (number - first + 0.5) * slot;
  const bar = 0.86 * slot;
  const left = (i) => centre(numbers[i]) - bar / 2;
  const at = (x) => Math.floor((x - LEFT) / slot) + first;
  return { width: bar, centre, left, at };
}

function describeBar({ phases }, columns, i) {
  const parts = Object.keys(phases)
    .filter((phase) => columns[phase][i] > 0)
    .map((phase) => `${phase} ${columns[phase][i].toFixed(3)}`);
  const pages = `${columns.pages[i].toLocaleString("en")} pages`;
  return `Checkpoint ${columns.number[i]}: ${pages}, pause ${columns.pause[i].toFixed(2)} ms = ${parts.join(" + ")}.`;
}

function describeAll({ rows }, columns) {
  if (!rows) return "Pause and pages of each checkpoint; there is none yet.";
  const sorted = [...columns.pause].sort((a, b) => a - b);
  return (
    `Pause and pages of checkpoints ${columns.number[0]} to ${columns.number[rows - 1]}: ` +
    `median pause ${sorted[rows >> 1].toFixed(2)} ms, longest ${sorted[rows - 1].toFixed(2)} ms.`
  );
}

// Lets one look at a bar, with the pointer or with the arrow keys.
function makePointer(picture, line) {
  let chosen = null;
  const shown = { frame: null };
  const say = () => {
    const i = shown.frame ? shown.columns.number.indexOf(chosen) : -1;
    line.textContent = i < 0 ? "\u00a0" : describeBar(shown.frame, shown.columns, i);
  };
  picture.onpointermove = ({ clientX }) => {
    if (!shown.frame) return;
    chosen = shown.place.at(clientX - picture.getBoundingClientRect().left);
    say();
  };
  picture.onpointerleave = picture.onblur = () => {
    chosen = null;
    say();
  };
  picture.onkeydown = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !shown.frame?.rows) return;
    event.preventDefault();
    // The notebook around has arrow keys, too.
    event.stopPropagation();
    const { number } = shown.columns;
    const [first, last] = [number[0], number[number.length - 1]];
    chosen = chosen === null ? last : Math.min(last, Math.max(first, chosen + step));
    say();
  };
  return (frame, columns, place) => {
    Object.assign(shown, { frame, columns, place });
    say();
  };
}

function begin(box, { ends }) {
  box.style = `font-size: 12px; line-height: 1.5; min-width: 0; color: ${INK}`;
  const legend = box.appendChild(element("div", ""));
  const picture = box.appendChild(element("div", "overflow: hidden"));
  picture.setAttribute("role", "img");
  picture.tabIndex = 0;
  const line = box.appendChild(element("div", "padding: 0 8px; min-height: 1.5em", "\u00a0"));
  line.setAttribute("role", "status");
  const point = makePointer(picture, line);
  let hatch;
  let redraw = () => {};
  const resizes = new ResizeObserver(() => redraw());
  resizes.observe(picture);
  ends.push(() => resizes.disconnect());
  return (frame, data) => {
    if (!frame.columns) return;
    const columns = readColumns(frame, data);
    legend.replaceChildren(makeLegend(frame.phases));
    hatch ??= makeHatch(frame.phases.verify);
    redraw = () => {
      const width = picture.clientWidth;
      if (!width) return;
      const place = places(frame, columns.number, width);
      picture.replaceChildren(
        drawPauses(frame, columns, width, place, hatch),
        drawPages(frame, columns, width, place),
      );
      picture.setAttribute("aria-label", describeAll(frame, columns));
      box.dataset.rows = frame.rows;
      box.dataset.last = frame.rows ? columns.number[frame.rows - 1] : 0;
      point(frame, columns, place);
    };
    redraw();
  };
}

export default { render: (context) => follow(context, begin) };
