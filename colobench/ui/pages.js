// RAM as a grid of pages, a square for each; page_map.js and page_sets.js say of which colour.

const COLD = [128, 138, 150, 40];

const bit = (bitmap, page) =>
  page >> 3 < bitmap.byteLength && (bitmap.getUint8(page >> 3) >> (page & 7)) & 1;

const countPages = (blocks) => Math.max(...blocks.map((block) => block.first_page + block.pages));

const element = (tag, style, text = "") =>
  Object.assign(document.createElement(tag), { style, textContent: text });

const makeBox = () => element("div", "font-size: 12px; color: #6b7684; padding: 4px 8px; min-width: 0");

// A line of colours and their texts, and the elements of the texts.
function legend(entries) {
  const line = element("div", "display: flex; flex-wrap: wrap; gap: 2px 16px; margin-bottom: 4px");
  const texts = entries.map(([colour, text]) => {
    const [red, green, blue, alpha] = colour;
    const background = `rgba(${red}, ${green}, ${blue}, ${alpha / 255})`;
    const swatch = `width: 10px; height: 10px; margin-right: 5px; background: ${background}`;
    const entry = element("span", "display: inline-flex; align-items: center");
    const label = element("span", "", text);
    entry.append(element("span", swatch), label);
    line.append(entry);
    return label;
  });
  return [line, texts];
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

function pointedAt({ offsetX, offsetY }, { name, pages }, canvas, size) {
  const columns = canvas.width / size;
  const page = Math.floor(offsetY / size) * columns + Math.floor(offsetX / size);
  return page < pages ? `${name}, page ${page}` : "";
}

// Puts a grid for each block into a box; gives what draws them, false as long as there is no room.
function makeGrids(blocks, box, height) {
  const pages = countPages(blocks);
  const grids = blocks.map((block) => {
    const canvas = element("canvas", "display: block");
    const row = element("div", "margin-bottom: 4px");
    row.append(element("div", "line-height: 1.6", `${block.name}: ${block.pages.toLocaleString()} pages`));
    row.append(canvas);
    box.append(row);
    return { block, canvas };
  });
  return (colourOf) => {
    const width = grids[0].canvas.parentElement.clientWidth;
    if (!width) return false;
    const size = squareSize(pages, width, height);
    for (const { block, canvas } of grids) {
      paint(canvas, block, size, colourOf);
      canvas.onmousemove = (event) => (canvas.title = pointedAt(event, block, canvas, size));
    }
    return true;
  };
}

// Draws whenever the box gets another size; gives what ends that.
function redrawOnResize(box, redraw) {
  const resizes = new ResizeObserver(redraw);
  resizes.observe(box);
  return () => resizes.disconnect();
}
