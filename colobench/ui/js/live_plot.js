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
// Bars as wide as this have room for an outline.
const OUTLINED = 9;

function readColumns({ columns, rows }, data) {
  const read = (name, i) => [name, new Float32Array(data, 4 * i * rows, rows)];
  return Object.fromEntries(columns.map(read));
}

function makeLegend(phases, fills) {
  const line = element("div", `display: flex; flex-wrap: wrap; gap: 2px 14px; padding-left: ${LEFT}px`);
  for (const [phase, colour] of Object.entries(phases)) {
    const entry = element("span", "display: inline-flex; align-items: center");
    const swatch = svg("svg", { width: 12, height: 12, style: "margin-right: 5px; outline: 1px solid" });
    swatch.append(svg("rect", { width: 12, height: 12, fill: fills[phase] ?? colour }));
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

function drawPauses(frame, columns, width, place, fills) {
  const all = svg("svg", { width, height: PLOTS[0].height });
  const [axis, base, scale] = drawAxis(PLOTS[0], width, 1.05 * Math.max(...columns.pause, 0) || 1);
  all.append(axis);
  const tops = new Float32Array(frame.rows).fill(base);
  for (const [phase, colour] of Object.entries(frame.phases)) {
    let path = "";
    columns[phase].forEach((value, i) => {
      tops[i] -= value * scale;
      path += rectangle(place.left(i), tops[i], place.width, value * scale);
    });
    const fill = fills[phase] ?? colour;
    const outline = place.width >= OUTLINED ? { stroke: INK, "stroke-width": 1 } : {};
    all.append(svg("path", { d: path, fill, "data-phase": phase, ...outline }));
  }
  if (!frame.rows) all.append(sayEmpty("There is no checkpoint yet.", (LEFT + width - RIGHT) / 2, base / 2));
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
  takeKeys(picture, (key) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
    if (!step || !shown.frame?.rows) return false;
    const { number } = shown.columns;
    const [first, last] = [number[0], number[number.length - 1]];
    chosen = chosen === null ? last : Math.min(last, Math.max(first, chosen + step));
    say();
    return true;
  });
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
  let hatches;
  let redraw = () => {};
  const resizes = new ResizeObserver(() => redraw());
  resizes.observe(picture);
  ends.push(() => resizes.disconnect());
  return (frame, data) => {
    if (!frame.columns) return;
    const columns = readColumns(frame, data);
    if (!hatches) {
      hatches = makeHatches(frame.phases, frame.hatches);
      // Not displayed at all, an SVG's patterns do not count.
      const defined = svg("svg", { width: 0, height: 0, style: "position: absolute", "aria-hidden": "true" });
      defined.append(hatches[0]);
      box.append(defined);
    }
    legend.replaceChildren(makeLegend(frame.phases, hatches[1]));
    redraw = () => {
      const width = picture.clientWidth;
      if (!width) return;
      const place = places(frame, columns.number, width);
      picture.replaceChildren(
        drawPauses(frame, columns, width, place, hatches[1]),
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
