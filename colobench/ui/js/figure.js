// A bokeh figure. A frame has its tables, one after another in float32, and the ranges of its axes.

// Loads the feed's library once for a page, for all figures that wait for it.
function loadLibrary(manager, feed, ended) {
  const libraries = (globalThis.colobenchLibraries ??= new Map());
  const load = async () => {
    const library = await findModel(manager, () => feed.get("library"), ended);
    if (!library) return null;
    const [name, version, data] = ["name", "version", "data"].map((each) => library.get(each));
    const loading = libraries.get(name + version) ?? runScript(data, name, version);
    libraries.set(name + version, loading);
    try {
      return await loading;
    } catch (error) {
      libraries.delete(name + version);
      throw error;
    }
  };
  return load();
}

async function runScript(data, name, version) {
  const text = await decompress("gzip", data);
  const script = document.createElement("script");
  const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
  await new Promise((done, fail) => {
    script.onload = done;
    script.onerror = () => fail(new Error(`${name} ${version} could not be run by this browser`));
    script.src = url;
    document.head.append(script);
  });
  URL.revokeObjectURL(url);
  const found = globalThis[name];
  return found[version] ?? found;
}

function readTables({ tables }, data) {
  let offset = 0;
  return tables.map(({ name, columns, rows }) => {
    const read = columns.map((column) => {
      const values = new Float32Array(data, offset, rows);
      offset += values.byteLength;
      return [column, Array.from(values)];
    });
    return [name, Object.fromEntries(read)];
  });
}

const TEXTS = ["axis_label_text_color", "major_label_text_color", "label_text_color"];

// Writes on a figure as the page does around it, on light and on dark.
function followColour(box, figure, ends) {
  box.style.color = "var(--jp-ui-font-color1, inherit)";
  const paint = () => {
    const { color } = getComputedStyle(box);
    for (const model of color ? figure.references() : []) {
      const texts = TEXTS.filter((name) => name in model.properties);
      model.setv(Object.fromEntries(texts.map((name) => [name, color])));
    }
  };
  // A page that changes its theme says so here.
  const themes = new MutationObserver(paint);
  themes.observe(document.body, { attributes: true });
  ends.push(() => themes.disconnect());
  paint();
}

// -- The figure in words and numbers, for readers who do not see it ------------------------------------

// Rows of a table that are written out; of more, evenly chosen ones are.
const WRITTEN = 20;

// The plots of a figure by the labels of their axes.
function describe(layout) {
  const label = ([axis]) => (typeof axis?.axis_label === "string" ? axis.axis_label : "");
  const plots = [...layout.references()].filter(({ type }) => type === "Figure");
  const named = plots.map(({ left, below }) => [label(left), label(below)].filter(Boolean).join(" against "));
  return `Plots: ${named.filter(Boolean).join("; ")}.`;
}

const writeNumber = (value) =>
  Number.isNaN(value) ? "" : value.toLocaleString("en", { maximumSignificantDigits: 4 });

function writeTable(name, columns) {
  const names = Object.keys(columns).filter((each) => columns[each].some((value) => !Number.isNaN(value)));
  const rows = names.length ? columns[names[0]].length : 0;
  const table = element("table", "border-collapse: collapse; margin: 4px 0; white-space: nowrap");
  table.append(element("caption", "text-align: left; font-weight: 600", name));
  const addRow = (tag, texts) => {
    const line = element("tr", "");
    line.append(...texts.map((text) => element(tag, "text-align: right; padding: 0 12px 0 0", text)));
    table.append(line);
  };
  addRow("th", names);
  const count = Math.min(rows, WRITTEN);
  for (let i = 0; i < count; i++) {
    const row = count > 1 ? Math.round((i * (rows - 1)) / (count - 1)) : 0;
    addRow("td", names.map((each) => writeNumber(columns[each][row])));
  }
  return table;
}

// A folded line below the figure, with its numbers as tables; they are written when it is opened.
function makeNumbers(box) {
  const folded = box.appendChild(element("details", "font-size: 12px; padding: 0 8px"));
  folded.append(element("summary", "cursor: pointer", "The numbers as a table"));
  const body = folded.appendChild(element("div", "overflow-x: auto"));
  let latest = [];
  const write = () => {
    if (!folded.open) return;
    const filled = latest.filter(([, columns]) => Object.values(columns)[0]?.length);
    body.replaceChildren(...filled.map(([name, columns]) => writeTable(name, columns)));
    if (!filled.length) body.append("There are none yet.");
  };
  folded.addEventListener("toggle", write);
  return (tables) => {
    latest = tables;
    write();
  };
}

const hasNumbers = (values) => values.some((value) => !Number.isNaN(value));

async function begin(box, { feed, ended, ends }, model) {
  const target = box.appendChild(element("div", "", "BokehJS is being loaded …"));
  const Bokeh = await loadLibrary(model.widget_manager, feed, ended);
  if (ended()) return null;
  target.textContent = "";
  const views = await Bokeh.embed.embed_item(model.get("_figure"), target);
  const layout = views.roots[0].model;
  const figure = layout.document;
  followColour(box, layout, ends);
  ends.push(() => figure.clear());
  target.setAttribute("role", "img");
  target.setAttribute("aria-label", describe(layout));
  const nothing = box.appendChild(element("div", "font-size: 12px; padding: 0 8px", "Nothing is measured yet."));
  nothing.hidden = true;
  const showNumbers = makeNumbers(box);
  return (frame, data) => {
    const tables = readTables({ tables: [], ...frame }, data);
    for (const [name, columns] of tables) figure.get_model_by_name(name).data = columns;
    showNumbers(tables);
    for (const [name, [start, end]] of Object.entries(frame.ranges ?? {})) {
      figure.get_model_by_name(name).setv({ start, end });
    }
    const rows = (frame.tables ?? []).map((table) => table.rows);
    box.dataset.rows = Math.max(0, ...rows);
    // A figure without tables has its data from the beginning.
    const isFilled = tables.some(([, columns]) => Object.values(columns).every(hasNumbers));
    nothing.hidden = isFilled || !tables.length;
    box.dataset.figure = frame.number;
  };
}

export default {
  render: (context) => follow(context, (box, way) => begin(box, way, context.model)),
};
