// Sets of pages, each of its own colour; a page is of the first set that has it.
//
// A frame has title, the sets' names, colours, pages and bytes, and the name of the rest; its
// data are the sets' bitmaps, one after the other.

function show({ title, sets, rest }, data) {
  let offset = 0;
  const found = sets.map(({ name, colour, pages, bytes }) => {
    const bitmap = new Uint8Array(data, offset, bytes);
    offset += bytes;
    return { bitmap, colour: readColour(colour), name, text: `${name}: ${pages.toLocaleString()}` };
  });
  const setOf = (page) => found.find(({ bitmap }) => bit(bitmap, page));
  const entries = [...found.map(({ colour, text }) => [colour, text]), [COLD, rest]];
  const head = [element("div", "font-weight: 600; line-height: 1.6", title), makeLegend(entries)];
  const sentence = [title, ...found.map(({ text }) => text)].filter(Boolean).join(". ");
  return [head, (page) => setOf(page)?.colour ?? COLD, sentence, (page) => setOf(page)?.name ?? rest];
}

export default {
  render: (context) => followPages(context, context.model.get("_height"), show),
};
