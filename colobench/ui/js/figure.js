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
  return (frame, data) => {
    for (const [name, columns] of readTables({ tables: [], ...frame }, data)) {
      figure.get_model_by_name(name).data = columns;
    }
    for (const [name, [start, end]] of Object.entries(frame.ranges ?? {})) {
      figure.get_model_by_name(name).setv({ start, end });
    }
    const rows = (frame.tables ?? []).map((table) => table.rows);
    box.dataset.rows = Math.max(0, ...rows);
    box.dataset.figure = frame.number;
  };
}

export default {
  render: (context) => follow(context, (box, way) => begin(box, way, context.model)),
};
