// All settings as a form, group by group; what does not go together is disabled, with the reason.
//
// A frame has the groups with their fields: see settings_form.py. A choice goes to the kernel as a
// message of the feed, and comes back as the next frame.

const CSS = `
.colobench-form { color: var(--jp-ui-font-color1, inherit); font-size: 13px; line-height: 1.4; }
.colobench-form details { border: 1px solid color-mix(in srgb, currentColor 25%, transparent); border-radius: 4px; margin: 4px 0; padding: 2px 10px; }
.colobench-form summary { cursor: pointer; padding: 4px 0; font-weight: 600; }
.colobench-form summary small { font-weight: 400; opacity: 0.85; }
.colobench-form .fields { display: grid; gap: 6px 16px; padding: 4px 0 8px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 200px), 1fr)); }
.colobench-form .field { min-width: 0; }
.colobench-form label { display: block; overflow-wrap: anywhere; }
.colobench-form .changed > label { font-weight: 600; }
.colobench-form .refused > label, .colobench-form .refused > small { opacity: 0.65; }
.colobench-form select, .colobench-form input:not([type=checkbox]) { box-sizing: border-box; width: 100%; min-height: 26px; padding: 2px 4px; font: inherit; color: inherit; background: var(--jp-cell-editor-background, transparent); border: 1px solid color-mix(in srgb, currentColor 45%, transparent); border-radius: 3px; }
.colobench-form select:disabled, .colobench-form input:disabled { opacity: 0.6; }
.colobench-form option { color: var(--jp-ui-font-color1, CanvasText); background: var(--jp-layout-color1, Canvas); }
.colobench-form small { display: block; font-size: 11px; overflow-wrap: anywhere; }
.colobench-form .error { border-left: 3px solid var(--colobench-bad); padding-left: 5px; }
`;
const OTHER = "other …";

function makeControl(field, send) {
  const control = field.kind === "choice" ? element("select", "") : element("input", "");
  if (field.kind === "flag") control.type = "checkbox";
  if (field.kind === "number") control.inputMode = "decimal";
  control.onchange = () => {
    if (field.kind === "flag") send(control.checked ? "on" : "off");
    else send(control.value);
  };
  return control;
}

function makeField(field, tell) {
  const box = element("div", "");
  box.className = "field";
  box.dataset.setting = field.name;
  const id = `colobench-${Math.random().toString(36).slice(2)}`;
  const label = box.appendChild(element("label", "", field.unit ? `${field.name} (${field.unit})` : field.name));
  label.htmlFor = id;
  label.title = field.help;
  const send = (text) => tell({ setting: field.name, text });
  const control = makeControl(field, (text) => {
    if (text !== OTHER) return send(text);
    other.hidden = false;
    other.focus();
  });
  control.id = id;
  if (field.kind === "flag") {
    control.style.margin = "0 6px 0 0";
    label.prepend(control);
  } else box.append(control);
  const other = element("input", "margin-top: 3px");
  other.hidden = true;
  other.setAttribute("aria-label", `${field.name}: another value`);
  other.onchange = () => send(other.value);
  if (field.is_open) box.append(other);
  const words = box.appendChild(element("small", ""));
  words.id = `${id}-words`;
  control.setAttribute("aria-describedby", words.id);
  return { box, control, other, words };
}

function fillChoice({ control, other }, field) {
  const texts = field.options.map(({ text }) => text);
  if (field.empty) texts.unshift("");
  const shown = [...texts];
  if (!shown.includes(field.text)) shown.push(field.text);
  if (field.is_open) shown.push(OTHER);
  const options = shown.map((text) => {
    const made = element("option", "", text || `(${field.empty})`);
    made.value = text;
    const refused = field.options.find((option) => option.text === text)?.refused;
    if (refused && text !== field.text) {
      made.disabled = true;
      made.title = refused;
    }
    return made;
  });
  control.replaceChildren(...options);
  control.value = field.text;
  if (document.activeElement !== other) {
    other.hidden = !field.is_open || texts.includes(field.text);
    other.value = field.text;
  }
}

// Words below a field: its error, or why it or some of its choices cannot be chosen.
function wordsOf(field) {
  if (field.error) return field.error;
  if (field.refused) return field.refused;
  const reasons = new Map();
  for (const { text, refused } of field.options) {
    if (refused && text !== field.text) reasons.set(refused, [...(reasons.get(refused) ?? []), text]);
  }
  return reasons.size ? `not ${[...reasons.values()].flat().join(", ")}: see why` : "";
}

function fillField(made, field) {
  const { box, control, words } = made;
  box.className = ["field", field.refused && "refused", field.changed && "changed"].filter(Boolean).join(" ");
  if (field.kind === "choice") fillChoice(made, field);
  else if (field.kind === "flag") control.checked = field.text === "on";
  else if (document.activeElement !== control) control.value = field.text;
  if (field.kind !== "choice" && field.kind !== "flag") control.placeholder = field.empty;
  control.disabled = Boolean(field.refused);
  control.title = field.refused || field.help;
  const found = wordsOf(field);
  const reasons = [...new Set(field.options.map(({ refused }) => refused).filter(Boolean))];
  words.className = field.error ? "error" : "";
  if (!field.error && !field.refused && reasons.length) {
    const [before] = found.split(": see why");
    const all = element("details", "border: 0; margin: 0; padding: 0");
    const head = all.appendChild(element("summary", "font-weight: 400; padding: 0; font-size: 11px", `${before}: why?`));
    head.setAttribute("aria-label", `${field.name}: ${before}, why?`);
    for (const reason of reasons) all.append(element("small", "padding-left: 12px", reason));
    const open = words.querySelector("details")?.open;
    words.replaceChildren(all);
    all.open = Boolean(open);
  } else words.textContent = found;
}

function begin(box, { feed }) {
  const style = box.appendChild(document.createElement("style"));
  style.textContent = CSS;
  const form = box.appendChild(element("div", ""));
  form.className = "colobench-form";
  const groups = new Map();
  const fields = new Map();
  const tell = (message) => feed.send(message);
  const groupOf = (group) => {
    if (!groups.has(group.title)) {
      const details = form.appendChild(element("details", ""));
      details.open = group.open;
      const summary = details.appendChild(element("summary", "", group.title));
      const changed = summary.appendChild(element("small", ""));
      const grid = details.appendChild(element("div", ""));
      grid.className = "fields";
      groups.set(group.title, { changed, grid });
    }
    return groups.get(group.title);
  };
  return (frame) => {
    if (!frame.groups) return;
    form.style.setProperty("--colobench-bad", frame.bad);
    for (const group of frame.groups) {
      const { changed, grid } = groupOf(group);
      for (const field of group.fields) {
        if (!fields.has(field.name)) {
          fields.set(field.name, makeField(field, tell));
          grid.append(fields.get(field.name).box);
        }
        fillField(fields.get(field.name), field);
      }
      const names = group.fields.filter((field) => field.changed).map(({ name, text, empty }) => `${name} ${text || empty}`);
      changed.textContent = names.length ? ` ${names.join(", ")}` : "";
    }
    box.dataset.fields = fields.size;
    box.dataset.form = frame.number;
  };
}

export default { render: (context) => follow(context, begin) };
