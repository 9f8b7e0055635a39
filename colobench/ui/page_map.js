// The pages that checkpoints send: bright if the last one sent it, then fading.
//
// `_frame` is {number, pages, fade, before, last}: the last checkpoint's number, count and bitmap,
// and the union of the bitmaps of those between it and the frame before. Number 0 begins anew.

const HEIGHT = 240;
const BRIGHT = [74, 134, 216, 255];
const WARM = [224, 130, 69, 255];

const colour = (heat) =>
  heat === 1 ? BRIGHT : COLD.map((cold, i) => cold + heat * (WARM[i] - cold));

function warm(heat, { number, fade, before, last }) {
  if (number === 0) heat.fill(0);
  for (let page = 0; page < heat.length; page++) {
    if (bit(last, page)) heat[page] = 1;
    else heat[page] = bit(before, page) ? fade : heat[page] * fade;
  }
}

export default () => {
  let heat = new Float32Array();
  const views = new Set();

  function take(model) {
    const pages = countPages(model.get("_blocks"));
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
      const box = el.appendChild(makeBox());
      const [line, [newest]] = legend([
        [BRIGHT, ""],
        [WARM, "sent before, fading"],
        [COLD, "not sent lately"],
      ]);
      box.append(line);
      const draw = makeGrids(model.get("_blocks"), box, HEIGHT);

      function redraw() {
        const { number, pages } = model.get("_frame");
        newest.textContent = number
          ? `sent by checkpoint ${number}: ${pages.toLocaleString()} pages`
          : "sent by the last checkpoint";
        if (draw((page) => colour(heat[page]))) box.dataset.checkpoint = number;
      }

      views.add(redraw);
      const end = redrawOnResize(box, redraw);
      return () => {
        end();
        views.delete(redraw);
      };
    },
  };
};
