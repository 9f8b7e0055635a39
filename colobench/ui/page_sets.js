// Sets of pages, each of its own colour; a page is of the first set that has it.
//
// `_sets` is a list of {name, colour, pages, bitmap}, `_rest` the name of all other pages.

export default () => ({
  render({ model, el }) {
    const box = el.appendChild(makeBox());
    const title = box.appendChild(element("div", "font-weight: 600; line-height: 1.6"));
    const line = box.appendChild(element("div", ""));
    const draw = makeGrids(model.get("_blocks"), box, model.get("_height"));

    function redraw() {
      const sets = model.get("_sets");
      title.textContent = model.get("_title");
      const entries = sets.map(({ name, colour, pages }) => [colour, `${name}: ${pages.toLocaleString()}`]);
      line.replaceChildren(legend([...entries, [COLD, model.get("_rest")]])[0]);
      draw((page) => sets.find(({ bitmap }) => bit(bitmap, page))?.colour ?? COLD);
    }

    model.on("change:_sets", redraw);
    model.on("change:_title", redraw);
    const end = redrawOnResize(box, redraw);
    return () => {
      end();
      model.off("change:_sets", redraw);
      model.off("change:_title", redraw);
    };
  },
});
