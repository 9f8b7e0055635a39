// The pages that checkpoints send: bright if the last one sent it, then fading.
//
// A frame has the last checkpoint's number, how many pages that sent, and of each page its heat as a
// byte: 255 if it was sent just now.

const HEIGHT = 240;

function makeColours(bright, warm) {
  const mixed = (heat) => COLD.map((cold, i) => cold + (heat / 255) * (warm[i] - cold));
  return Array.from({ length: 256 }, (_, heat) => (heat === 255 ? bright : mixed(heat)));
}

function show({ checkpoint, pages, bright, warm }, data) {
  const heat = new Uint8Array(data);
  const colours = makeColours(readColour(bright), readColour(warm));
  const sent = checkpoint
    ? `sent by checkpoint ${checkpoint}: ${pages.toLocaleString()} pages`
    : "sent by the last checkpoint";
  const legend = makeLegend([
    [readColour(bright), sent],
    [readColour(warm), "sent before, fading"],
    [COLD, "not sent lately"],
  ]);
  const describe = (page) =>
    heat[page] === 255 ? "sent by the last checkpoint" : heat[page] ? "sent before" : "not sent lately";
  return [[legend], (page) => colours[heat[page] ?? 0], `Bright: ${sent}.`, describe];
}

export default { render: (context) => followPages(context, HEIGHT, show) };
