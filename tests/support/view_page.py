"""A page with views' own modules and the state of their feeds, without Jupyter around them.

The page has what a notebook's has: models with `get` and `on`, a manager that finds models, and the
theme's colours as custom properties.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from feeds import frame_of

_HEAD = '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>views</title>'
#: Style sheets with the colours of JupyterLab's themes.
_STYLES = {
    "light": """:root { --jp-layout-color1: #ffffff; --jp-cell-editor-background: #f5f5f5; }
        :root { --jp-ui-font-color1: rgba(0, 0, 0, 0.87); --jp-ui-font-color2: #616161; }
        body { background: #ffffff; color: #000000; font: 13px sans-serif; margin: 8px; }""",
    "dark": """:root { --jp-layout-color1: #111111; --jp-cell-editor-background: #212121; }
        :root { --jp-ui-font-color1: #ffffff; --jp-ui-font-color2: #bdbdbd; }
        body { background: #111111; color: #ffffff; font: 13px sans-serif; margin: 8px; }""",
}
_SCRIPT = """
const bytes = (text) => Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
const decode = (text) => new DataView(bytes(text).buffer);
class Model {
  constructor(values) { this.values = values; this.comm_live = true; }
  get(name) { return this.values[name]; }
  on() {}
  off() {}
  set(name, value) { this.values[name] = value; }
  save_changes() {}
  send() {}
}
const drawn = new Model({ values: [] });
const contact = { rests: true, busy: false, heard: {} };
const views = VIEWS;
const library = LIBRARY && new Model({ ...LIBRARY, data: decode(LIBRARY.data) });
for (const { name, esm, values, frame } of views) {
  frame.data = decode(frame.data);
  const feed = new Model({ frame, contact, library: "library" });
  const models = { library, drawn, feed };
  const manager = { get_model: async (id) => models[id] };
  const model = new Model({ ...values, _feed: "feed", _drawn: "drawn" });
  model.widget_manager = manager;
  const el = document.body.appendChild(document.createElement("section"));
  el.dataset.view = name;
  const url = URL.createObjectURL(new Blob([esm], { type: "text/javascript" }));
  const { default: view } = await import(url);
  view.render({ model, el });
}
document.body.dataset.ready = "yes";
"""


def page_of(views: Mapping[str, Any], theme: str = "light") -> str:
    """Write the page of some views, by their names."""
    described, library = [], None
    for name, view in views.items():
        frame = dict(frame_of(view))
        frame["data"] = base64.b64encode(frame["data"]).decode()
        values = {
            trait: getattr(view, trait)
            for trait in view.trait_names(sync=True)
            if trait in ("_height", "_figure")
        }
        described.append({"name": name, "esm": str(view._esm), "values": values, "frame": frame})
        if view.feed.library is not None:
            found = view.feed.library
            data = base64.b64encode(found.data).decode()
            library = {"name": found.name, "version": found.version, "data": data}
    script = _SCRIPT.replace("LIBRARY", json.dumps(library)).replace(
        "VIEWS", json.dumps(described).replace("</", "<\\/")
    )
    return (
        f"{_HEAD}<style>{_STYLES[theme]}</style></head><body><script type=module>{script}</script>"
    )
