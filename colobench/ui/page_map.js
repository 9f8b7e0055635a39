// RAM as a grid of pages, a square for each: bright if the last checkpoint sent it, then fading.
//
// `_frame` is {number, pages, fade, before, last}: the last checkpoint's number, count and bitmap,
// and the union of the bitmaps of those between it and the frame before. Number 0 begins anew.

const HEIGHT = 240;
const BRIGHT = [74, 134, 216, 255];
const WARM = [224, 130, 69, 255];
const COLD = [128, 138, 150, 40];

const mix = (value) => COLD.map((cold, i) => cold + value * (WARM[i] - cold));

const bit = (bitmap, page) =>
  page >> 3 < bitmap.byteLength && (bitmap.getUint8(page >> 3) >> (page & 7)) & 1;

function warm(heat, { number, fade, before, last }) {
  if (number === 0) heat.fill(0);
  for (let page = 0; page < heat.length; page++) {
    if (bit(last, page)) heat[page] = 1;
    else heat[page] = bit(before, page) ? fade : heat[page] * fade;
  }
}

// The largest squares with which that many pages fit into width and height.
function squareSize(pages, width) {
  let size = Math.max(1, Math.floor(Math.sqrt((width * HEIGHT) / pages)));
  while (size > 1 && Math.ceil(pages / Math.floor(width / size)) * size > HEIGHT) size--;
  return size;
}

function draw(canvas, heat, size) {
  const columns = Math.floor(canvas.parentElement.clientWidth / size);
  const rows = Math.ceil(heat.length / columns);
  const image = new ImageData(columns, rows);
  heat.forEach((value, page) => {
    image.data.set(value === 1 ? BRIGHT : mix(value), 4 * page);
  });
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

const element = (tag, style, text = "") =>
  Object.assign(document.createElement(tag), { style, textContent: text });

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
  return [line, texts[0]];
}

function pointedAt({ offsetX, offsetY }, { name, pages }, canvas, size) {
  const columns = canvas.width / size;
  const page = Math.floor(offsetY / size) * columns + Math.floor(offsetX / size);
  return page < pages ? `${name}, page ${page}` : "";
}

export default () => {
  let heat = new Float32Array();
  const views = new Set();

  function take(model) {
    const blocks = model.get("_blocks");
    const pages = Math.max(...blocks.map((block) => block.first_page + block.pages));
    if (heat.length !== pages) heat = new Float32Array(pages);
    warm(heat, model.get("_frame"));
    views.forEach((redraw) => redraw());
  }

  return {
    initialize({ model }) {
      take(model);
      model.on("change:_frame", () => take(model));
    },
    render({ model, el }) {
      const box = element("div", "font-size: 12px; color: #6b7684; padding: 4px 8px; min-width: 0");
      const [line, newest] = legend([
        [BRIGHT, ""],
        [WARM, "sent before, fading"],
        [COLD, "not sent lately"],
      ]);
      box.append(line);
      el.append(box);
      const blocks = model.get("_blocks").map((block) => {
        const canvas = element("canvas", "display: block");
        const row = element("div", "margin-bottom: 4px");
        row.append(element("div", "line-height: 1.6", `${block.name}: ${block.pages.toLocaleString()} pages`));
        row.append(canvas);
        box.append(row);
        return { block, canvas };
      });

      function redraw() {
        const { number, pages } = model.get("_frame");
        newest.textContent = number
          ? `sent by checkpoint ${number}: ${pages.toLocaleString()} pages`
          : "sent by the last checkpoint";
        const width = blocks[0].canvas.parentElement.clientWidth;
        if (!width) return;
        const size = squareSize(heat.length, width);
        for (const { block, canvas } of blocks) {
          const { first_page: first, pages: count } = block;
          draw(canvas, heat.subarray(first, first + count), size);
          canvas.onmousemove = (event) => (canvas.title = pointedAt(event, block, canvas, size));
        }
        box.dataset.checkpoint = number;
      }

      views.add(redraw);
      const resizes = new ResizeObserver(redraw);
      resizes.observe(box);
      return () => {
        resizes.disconnect();
        views.delete(redraw);
      };
    },
  };
};
