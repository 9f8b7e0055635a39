// A bokeh figure that is fed row by row, and tells the kernel nothing but that it is there.
//
// Messages: {table, columns, first, end, rollover} and the rows' values as float64, column by column.
// With `first` null they are all there is; else they follow what ended there, or something was
// missed and is asked for. Or {range, start, end}: what an axis shows from now on.

function loadBokeh({ url, text }) {
  if (window.Bokeh) return Promise.resolve(window.Bokeh);
  window.colobenchBokeh ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.onload = () => resolve(window.Bokeh);
    script.onerror = () => {
      window.colobenchBokeh = undefined;
      reject(new Error(`BokehJS did not come from ${url}; offline, set COLOBENCH_OFFLINE=1`));
    };
    script.src = url || URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
    document.head.append(script);
  });
  return window.colobenchBokeh;
}

function readColumns(names, { buffer, byteOffset, byteLength }) {
  // Float64Array wants an aligned offset, which a message's buffer does not have.
  const values = new Float64Array(buffer.slice(byteOffset, byteOffset + byteLength));
  const rows = values.length / names.length;
  const column = (name, i) => [name, Array.from(values.subarray(i * rows, (i + 1) * rows))];
  return Object.fromEntries(names.map(column));
}

function append(table, columns, rollover) {
  for (const [name, values] of Object.entries(columns)) {
    table.columns[name] = (table.columns[name] ?? []).concat(values).slice(-rollover);
  }
}

export default () => {
  // Kept here as well as in the figures, for those that are opened later.
  const tables = new Map();
  const ranges = new Map();
  const figures = new Set();
  const models = (name) => [...figures].map((figure) => figure.get_model_by_name(name));

  function receiveRange({ range: name, start, end }) {
    ranges.set(name, { start, end });
    models(name).forEach((range) => range.setv({ start, end }));
    return true;
  }

  function receiveRows({ table: name, columns: names, first, rollover, end }, buffer) {
    const columns = readColumns(names, buffer);
    const table = tables.get(name);
    if (first === null) {
      tables.set(name, { columns, end });
      models(name).forEach((source) => (source.data = { ...columns }));
    } else if (table?.end === first) {
      append(table, columns, rollover);
      table.end = end;
      models(name).forEach((source) => source.stream(columns, rollover));
    } else {
      return false;
    }
    return true;
  }

  return {
    initialize({ model }) {
      model.on("msg:custom", (message, buffers) => {
        const done = message.range ? receiveRange(message) : receiveRows(message, buffers[0]);
        if (!done) model.send({ send: "everything" });
      });
      model.send({ send: "everything" });
    },
    async render({ model, el }) {
      let views;
      const target = el.appendChild(document.createElement("div"));
      try {
        const Bokeh = await loadBokeh(model.get("_bokehjs"));
        views = await Bokeh.embed.embed_item(model.get("_figure"), target);
      } catch (error) {
        target.textContent = error.message;
        return;
      }
      const figure = views.roots[0].model.document;
      tables.forEach(({ columns }, name) => {
        figure.get_model_by_name(name).data = { ...columns };
      });
      ranges.forEach((range, name) => figure.get_model_by_name(name).setv(range));
      figures.add(figure);
      return () => {
        figures.delete(figure);
        figure.clear();
      };
    },
  };
};
