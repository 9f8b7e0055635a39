"""A page follows a feed on after a frame that it could not draw, and says that it could not."""

from __future__ import annotations

from javascript import evaluate

FOLLOW = """(async () => {
  class Element {
    constructor() { this.children = []; this.hidden = false; this.textContent = ""; }
    appendChild(child) { this.children.push(child); return child; }
    setAttribute() {}
    closest() { return null; }
  }
  globalThis.document = { createElement: () => new Element(), addEventListener() {}, hidden: true };
  globalThis.window = { addEventListener() {} };
  console.error = () => {};
  const feed = {
    frame: {},
    heard: {},
    get(name) {
      return name === "frame" ? this.frame : { rests: true, busy: false, heard: {} };
    },
    on(name, hear) { this.heard[name] = hear; },
    off() {},
    send() {},
    async show(number) {
      this.frame = { number };
      this.heard["change:frame"]();
      while (!tried.includes(number)) await pause(1);
      await pause(1);
    },
  };
  const model = { get: () => "feed", widget_manager: { get_model: async () => feed } };
  const el = new Element();
  const drawn = [];
  const tried = [];
  const begin = () => (frame) => {
    tried.push(frame.number);
    if (frame.number < 0) throw new Error("no such number");
    drawn.push(frame.number ?? 0);
  };
  follow({ model, el }, begin);
  while (!feed.heard["change:frame"] || !drawn.length) await pause(1);
  const told = [];
  const tell = () => {
    const shown = el.children.filter(({ hidden, textContent }) => !hidden && textContent);
    told.push(shown.map(({ textContent }) => textContent).join());
  };
  for (const number of [1, -1, 2]) {
    await feed.show(number);
    tell();
  }
  return [drawn, told];
})()"""


def test_a_frame_that_cannot_be_drawn_is_told_and_the_next_one_is_drawn():
    drawn, told = evaluate(FOLLOW)
    assert drawn == [0, 1, 2]
    assert told == ["", "This cannot be shown: no such number", ""]
