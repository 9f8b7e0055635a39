// A curve that a reader draws, with the mouse or with the arrow keys, and the measured one beside it.
//
// A frame has the places x, the names of the axes, the upper end of y, the curves' colours, the
// measured values or null, and whether drawing has ended. What is drawn is in a model of its own,
// `_drawn`, which the kernel reads.

const WIDTH = 560;
const HEIGHT = 250;
const SIDES = { left: 78, right: 16, top: 12, bottom: 44 };
const STEP = 0.02;

function svg(name, attributes = {}, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

const short = (value) =>
  value >= 1e6 ? `${+(value / 1e6).toPrecision(3)} M` : value.toLocaleString(undefined, { maximumSignificantDigits: 4 });

class CurvePlot {
  constructor(box, drawn) {
    this.drawn = drawn;
    this.root = svg("svg", {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      style:
        `width: 100%; max-width: ${WIDTH}px; touch-action: none; cursor: crosshair; font: 12px sans-serif; ` +
        "color: var(--jp-ui-font-color1, inherit)",
    });
    box.append(this.root);
    this.dragged = null;
    this.root.addEventListener("pointerdown", (event) => this.begin(event));
    this.root.addEventListener("pointermove", (event) => this.drag(event));
    for (const end of ["pointerup", "pointercancel"]) {
      this.root.addEventListener(end, () => this.end());
    }
  }

  place(x) {
    const { x: places } = this.frame;
    const [first, last] = [places[0], places[places.length - 1]];
    return SIDES.left + ((x - first) / (last - first)) * (WIDTH - SIDES.left - SIDES.right);
  }

  height(y) {
    return HEIGHT - SIDES.bottom - (y / this.frame.y_most) * (HEIGHT - SIDES.top - SIDES.bottom);
  }

  // The place and the value under the pointer.
  under({ clientX, clientY }) {
    const { left, top, width, height } = this.root.getBoundingClientRect();
    const x = ((clientX - left) / width) * WIDTH;
    const y = ((clientY - top) / height) * HEIGHT;
    const away = this.frame.x.map((each) => Math.abs(this.place(each) - x));
    const share = (HEIGHT - SIDES.bottom - y) / (HEIGHT - SIDES.top - SIDES.bottom);
    const value = Math.min(1, Math.max(0, share)) * this.frame.y_most;
    return [away.indexOf(Math.min(...away)), value];
  }

  begin(event) {
    if (this.frame.ended) return;
    this.root.setPointerCapture(event.pointerId);
    this.dragged = this.under(event);
    this.set(...this.dragged);
  }

  drag(event) {
    if (!this.dragged) return;
    const [from, before] = this.dragged;
    const [to, value] = (this.dragged = this.under(event));
    // A quick pointer skips places.
    for (let at = Math.min(from, to); at <= Math.max(from, to); at++) {
      const share = from === to ? 1 : (at - from) / (to - from);
      this.set(at, before + share * (value - before));
    }
  }

  end() {
    if (!this.dragged) return;
    this.dragged = null;
    this.drawn.save_changes();
  }

  set(index, value) {
    const values = this.values();
    values[index] = Math.round(value * 1000) / 1000;
    this.drawn.set("values", values);
    this.draw();
  }

  values() {
    const values = [...this.drawn.get("values")];
    while (values.length < this.frame.x.length) values.push(null);
    return values;
  }

  press(key, index) {
    const way = { ArrowUp: 1, ArrowDown: -1, PageUp: 5, PageDown: -5 }[key];
    if (!way || this.frame.ended) return false;
    const most = this.frame.y_most;
    const value = (this.values()[index] ?? 0) + way * STEP * most;
    this.set(index, Math.min(most, Math.max(0, value)));
    this.drawn.save_changes();
    this.root.querySelectorAll("[role=slider]")[index]?.focus();
    return true;
  }

  axes() {
    const { x, x_name: xName, y_name: yName, y_most: most } = this.frame;
    const [left, bottom] = [SIDES.left, HEIGHT - SIDES.bottom];
    const line = { stroke: "currentColor", "stroke-opacity": 0.5 };
    const parts = [
      svg("line", { ...line, x1: left, x2: WIDTH - SIDES.right, y1: bottom, y2: bottom }),
      svg("line", { ...line, x1: left, x2: left, y1: SIDES.top, y2: bottom }),
      svg("text", { x: (left + WIDTH) / 2, y: HEIGHT - 8, "text-anchor": "middle", fill: "currentColor" }, xName),
      svg(
        "text",
        { transform: `translate(14 ${(SIDES.top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle", fill: "currentColor" },
        yName,
      ),
    ];
    // Labels keep clear of the handles of values that are 0.
    for (const each of x) {
      const at = { x: this.place(each), y: bottom + 20, "text-anchor": "middle", fill: "currentColor" };
      parts.push(svg("text", at, short(each)));
    }
    for (const share of [0, 0.5, 1]) {
      const at = { x: left - 10, y: this.height(share * most) + 4, "text-anchor": "end", fill: "currentColor" };
      parts.push(svg("text", at, short(share * most)));
    }
    return parts;
  }

  line(values, colour, dashes) {
    const known = this.frame.x.map((x, at) => [x, values[at]]).filter(([, y]) => y !== null && y !== undefined);
    const points = known.map(([x, y]) => `${this.place(x)},${this.height(Math.min(y, this.frame.y_most))}`).join(" ");
    return svg("polyline", { points, fill: "none", stroke: colour, "stroke-width": 2, "stroke-dasharray": dashes });
  }

  handle(index, value, colour) {
    const { x, x_name: xName, y_name: yName, y_most: most, ended } = this.frame;
    const circle = svg("circle", {
      cx: this.place(x[index]),
      cy: this.height(value ?? 0),
      r: 6,
      fill: value === null ? "transparent" : colour,
      stroke: colour,
      "stroke-width": 2,
      role: "slider",
      tabindex: ended ? -1 : 0,
      "aria-label": `${yName} at ${short(x[index])} ${xName}`,
      "aria-orientation": "vertical",
      "aria-valuemin": 0,
      "aria-valuemax": most,
      "aria-valuenow": value ?? 0,
      "aria-disabled": String(ended),
    });
    takeKeys(circle, (key) => this.press(key, index));
    return circle;
  }

  draw(frame = this.frame) {
    this.frame = frame;
    const values = this.values();
    const { measured, guess_colour: own, measured_colour: found } = frame;
    const parts = [...this.axes(), this.line(values, own, "7 4")];
    if (measured) {
      parts.push(this.line(measured, found, ""));
      frame.x.forEach((x, at) =>
        parts.push(
          svg("rect", { x: this.place(x) - 4, y: this.height(Math.min(measured[at], frame.y_most)) - 4, width: 8, height: 8, fill: found }),
        ),
      );
    }
    parts.push(...values.map((value, index) => this.handle(index, value, own)));
    this.root.replaceChildren(...parts);
  }
}

export default {
  render: (context) =>
    follow(context, async (box, { feed, ended, ends }) => {
      const { model } = context;
      const drawn = await findModel(model.widget_manager, () => model.get("_drawn"), ended);
      if (!drawn) return null;
      const plot = new CurvePlot(box, drawn);
      const redraw = () => plot.frame && !plot.dragged && plot.draw();
      drawn.on("change:values", redraw);
      ends.push(() => drawn.off("change:values", redraw));
      return (frame) => frame.x && plot.draw(frame);
    }),
};
