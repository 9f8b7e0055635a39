// The layers of a disk on both sides, a grid for each, a square for each sector.
//
// A frame has title, and the names and colours of what a square can be; its data are a byte for each
// square, which is a number of these. The first is the rest.

function show({ title, kinds }, data) {
  const squares = new Uint8Array(data);
  const colours = kinds.map(({ colour }, kind) => (kind ? readColour(colour) : COLD));
  const head = [element("div", "font-weight: 600; line-height: 1.6", title)];
  head.push(makeLegend(kinds.map(({ name }, kind) => [colours[kind], name])));
  return [head, (square) => colours[squares[square] ?? 0], `${title}.`, (square) => kinds[squares[square] ?? 0].name];
}

export default {
  render: (context) => followPages(context, context.model.get("_height"), show),
};
