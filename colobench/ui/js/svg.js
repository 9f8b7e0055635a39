// Helpers of plots that are drawn as SVG.

const INK = "var(--jp-ui-font-color1, currentColor)";

let patterns = 0;

const svg = (tag, attributes, ...children) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};

// About `count` round numbers from 0 to `end`; none if that is not above 0.
function ticks(end, count) {
  if (!(end > 0 && end < Infinity)) return [];
  const rough = end / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((each) => each * power >= rough);
  const all = [];
  for (let i = 0; i * step <= end * 1.0001; i++) all.push(i * step);
  return all;
}

const say = (value) => value.toLocaleString("en", { maximumSignificantDigits: 3 });

// Words in the middle of a plot that has nothing to show.
const sayEmpty = (words, x, y) =>
  svg("text", { x, y, "text-anchor": "middle", fill: INK, "data-empty": "" }, words);

const rectangle = (x, y, width, height) => `M${x} ${y}h${width}v${height}h${-width}z`;

// What lies over the colour of a phase, by the names of the palette's hatches.
const HATCHES = {
  right_diagonal_line: () => [svg("line", { y2: 5, "stroke-width": 3 })],
  cross: () => [svg("line", { y2: 5, "stroke-width": 2 }), svg("line", { x2: 5, "stroke-width": 2 })],
  dot: () => [svg("circle", { cx: 2.5, cy: 2.5, r: 1.2, fill: COLOURS.hatch })],
};

// A pattern, and its reference, for each phase that has a hatch.
function makeHatches(phases, hatches) {
  const definitions = svg("defs", {});
  const fills = Object.entries(hatches).map(([phase, name]) => {
    const id = `colobench-hatch-${patterns++}`;
    const turned = name === "dot" ? {} : { patternTransform: "rotate(45)" };
    const pattern = svg("pattern", { id, width: 5, height: 5, patternUnits: "userSpaceOnUse", ...turned });
    pattern.append(svg("rect", { width: 5, height: 5, fill: phases[phase] }));
    pattern.append(svg("g", { stroke: COLOURS.hatch }, ...HATCHES[name]()));
    definitions.append(pattern);
    return [phase, `url(#${id})`];
  });
  return [definitions, Object.fromEntries(fills)];
}

