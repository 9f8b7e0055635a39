// RAM as a grid of pages, a square for each; page_map.js and page_sets.js say of which colour.
// disk_map.js has grids of sectors: a block says what its squares are, if they are no pages.

const bit = (bitmap, page) => page >> 3 < bitmap.length && (bitmap[page >> 3] >> (page & 7)) & 1;

const countPages = (blocks) => Math.max(...blocks.map((block) => block.first_page + block.pages));

const countUnits = ({ pages, unit = "page", size = "" }) =>
  `${pages.toLocaleString("en")} ${unit}s${size && ` of ${size}`}`;

const makeBox = () =>
  element("div", "font-size: 12px; color: var(--jp-ui-font-color1, inherit); padding: 4px 8px; min-width: 0");

// Red, green, blue and opacity, each from 0 to 255, of #rrggbb or #rrggbbaa.
const readColour = (text) => text.slice(1).padEnd(8, "f").match(/../g).map((part) => parseInt(part, 16));

const COLD = readColour(COLOURS.cold);

// A line of colours and their texts.
function makeLegend(entries) {
  const line = element("div", "display: flex; flex-wrap: wrap; gap: 2px 16px; margin-bottom: 4px");
  for (const [colour, text] of entries) {
    const [red, green, blue, alpha] = colour;
    const background = `rgba(${red}, ${green}, ${blue}, ${alpha / 255})`;
    const swatch = `width: 10px; height: 10px; margin-right: 5px; background: ${background}; outline: 1px solid`;
    const entry = element("span", "display: inline-flex; align-items: center");
    entry.append(element("span", swatch), element("span", "", text));
    line.append(entry);
  }
  return line;
}

// The largest squares with which that many pages fit into width and height.
function squareSize(pages, width, height) {
  let size = Math.max(1, Math.floor(Math.sqrt((width * height) / pages)));
  while (size > 1 && Math.ceil(pages / Math.floor(width / size)) * size > height) size--;
  return size;
}

function paint(canvas, { first_page: first, pages: count }, size, colourOf) {
  const columns = Math.floor(canvas.parentElement.clientWidth / size);
  const rows = Math.ceil(count / columns);
  const image = new ImageData(columns, rows);
  for (let page = 0; page < count; page++) image.data.set(colourOf(first + page), 4 * page);
  const small = new OffscreenCanvas(columns, rows);
  small.getContext("2d").putImageData(image, 0, 0);
  Object.assign(canvas, { width: columns * size, height: rows * size });
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  if (size > 3) {
    // A line between the squares.
    for (let x = size - 1; x < canvas.width; x += size) context.clearRect(x, 0, 1, canvas.height);
    for (let y = size - 1; y < canvas.height; y += size) context.clearRect(0, y, canvas.width, 1);
  }
}

// Lets one point at pages, with the pointer or with the arrow keys; a line says which it is.
function makePointer(canvas, line, { name, pages, first_page: first, unit = "page" }) {
  let page = 0;
  const grid = { size: 1, columns: 1, describe: () => "" };
  const say = () => {
    const described = grid.describe(first + page);
    canvas.title = line.textContent = `${name}, ${unit} ${page}${described && `: ${described}`}`;
  };
  canvas.tabIndex = 0;
  canvas.onmousemove = ({ offsetX, offsetY }) => {
    const found = Math.floor(offsetY / grid.size) * grid.columns + Math.floor(offsetX / grid.size);
    if (found < pages) {
      page = found;
      say();
    }
  };
  canvas.onmouseleave = canvas.onblur = () => (line.textContent = "\u00a0");
  takeKeys(canvas, (key) => {
    const { columns } = grid;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    const step = { ...steps, Home: -page, End: pages - 1 - page }[key];
    if (step === undefined) return false;
    if (page + step >= 0 && page + step < pages) page += step;
    say();
    return true;
  });
  return grid;
}

// Puts a grid for each block into a box; returns a function that draws them, and gives false without
// room.
function makeGrids(blocks, box, height) {
  const pages = countPages(blocks);
  const line = element("div", "line-height: 1.6", "\u00a0");
  line.setAttribute("role", "status");
  const grids = blocks.map((block) => {
    const canvas = element("canvas", "display: block");
    canvas.setAttribute("role", "img");
    const row = element("div", "margin-bottom: 4px");
    row.append(element("div", "line-height: 1.6", `${block.name}: ${countUnits(block)}`));
    row.append(canvas);
    box.append(row);
    return { block, canvas, grid: makePointer(canvas, line, block) };
  });
  box.append(line);
  return (colourOf, sentence, describe) => {
    const width = grids[0].canvas.parentElement.clientWidth;
    if (!width) return false;
    const size = squareSize(pages, width, height);
    for (const { block, canvas, grid } of grids) {
      paint(canvas, block, size, colourOf);
      canvas.setAttribute("aria-label", `${block.name}, ${countUnits(block)}. ${sentence}`);
      Object.assign(grid, { size, columns: canvas.width / size, describe });
    }
    return true;
  };
}

// Follows a feed whose frames have blocks, and draws whenever there is a frame or another width.
// `render` gets box, frame and data, and returns the painter for the function that it gets.
function followPages(context, height, show) {
  return follow(context, (outer, { ends }) => {
    const box = outer.appendChild(makeBox());
    const head = box.appendChild(element("div", ""));
    const body = box.appendChild(element("div", ""));
    let blocks = "";
    let redraw = () => {};
    let draw;
    const resizes = new ResizeObserver(() => redraw());
    resizes.observe(box);
    ends.push(() => resizes.disconnect());
    return (frame, data) => {
      if (!frame.blocks) return;
      if (JSON.stringify(frame.blocks) !== blocks) {
        blocks = JSON.stringify(frame.blocks);
        body.replaceChildren();
        draw = makeGrids(frame.blocks, body, height);
      }
      const [entries, colourOf, sentence, describe] = show(frame, data);
      head.replaceChildren(...entries);
      redraw = () => {
        if (draw(colourOf, sentence, describe)) box.dataset.frame = frame.number;
      };
      redraw();
    };
  });
}
