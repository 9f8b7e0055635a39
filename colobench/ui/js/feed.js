// Common part of all views: access to their feeds, and sentences for a page and a kernel that are out
// of touch.
//
// COLOURS are the palette's; `read_module` of feed.py puts them in front of this file.
//
// A view's model has constants alone; `_feed` refers to the model that has the rest: see feed.py.

const element = (tag, style, text = "") =>
  Object.assign(document.createElement(tag), { style, textContent: text });

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

// A model by reference. A page that is being opened may make it later than its referrer.
async function findModel(manager, reference, ended) {
  while (!ended()) {
    const found = reference();
    const id = found?.model_id ?? String(found).replace("IPY_MODEL_", "");
    try {
      const model = await manager.get_model(id);
      if (model) return model;
    } catch {
      // Not yet.
    }
    await pause(250);
  }
  return null;
}

async function decompress(format, data) {
  const stream = new Blob([data]).stream().pipeThrough(new DecompressionStream(format));
  return new Response(stream).arrayBuffer();
}

// The frame, and its data as an ArrayBuffer of its own.
async function readFrame(feed) {
  const frame = feed.get("frame");
  const { buffer, byteOffset, byteLength } = frame.data ?? new DataView(new ArrayBuffer(0));
  const data = buffer.slice(byteOffset, byteOffset + byteLength);
  return [frame, frame.deflated ? await decompress("deflate", data) : data];
}

// -- Contact between page and kernel -----------------------------------------------------------------

const LIMIT_MS = 3000;
const PING_MS = 1000;
const TICK_MS = 500;
// A page that nobody sees says that it is still there.
const HIDDEN_PING_MS = 10000;
// Less than LIMIT_MS, so that mending is tried before a sentence is shown.
const MEND_MS = 2000;
// A page that was busy could not listen: a longer pause between two ticks is its own.
const LONGEST_TICK_MS = 1000;

const WORDS = {
  ended: "The kernel that made this has ended or was restarted: run its cell again.",
  silent: "Out of touch: nothing has come from the kernel for 3 s. What is shown here is old; it goes on when the connection is back.",
  busy: "The kernel is busy with a cell: what you press or choose here is done after it.",
  deaf: "Out of touch: the kernel does not hear this page, so buttons and sliders do nothing. What is shown goes on. To mend it, restart the kernel and run the cells again.",
  unanswered: "Out of touch: the kernel has not answered for 3 s. It is busy, or cannot be reached.",
};

// Gives an element keys of its own: `press` gets a key, and says whether it is one. The notebook
// around has arrow keys, too, and Notebook 7 takes them before the element does unless it is told.
function takeKeys(node, press) {
  node.dataset.lmSuppressShortcuts = "true";
  node.onkeydown = (event) => {
    if (!press(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
  };
}

class PageContact {
  constructor(manager) {
    this.manager = manager;
    this.page = Math.random().toString(36).slice(2);
    this.views = new Map();
    this.pings = this.waitsFrom = this.pinged = 0;
    this.silent = this.unheard = this.sincePing = 0;
    this.waits = this.busy = this.missed = this.touched = this.mended = false;
    this.then = performance.now();
    setInterval(() => this.tick(), TICK_MS);
    window.addEventListener("pagehide", () => this.leave());
    for (const event of ["pointerdown", "keydown"]) {
      document.addEventListener(event, (each) => this.touch(each), { capture: true, passive: true });
    }
  }

  // Call a function with a sentence, "" if all is well; returns a function that ends this.
  join(feed, say) {
    const entry = { feed, say };
    this.views.set(entry, () => this.hear(feed));
    feed.on("change:contact", this.views.get(entry));
    if (!this.waits) this.ping();
    return () => {
      feed.off("change:contact", this.views.get(entry));
      this.views.delete(entry);
    };
  }

  feeds() {
    return [...this.views.keys()].map(({ feed }) => feed);
  }

  hear(feed) {
    const { busy, heard } = feed.get("contact");
    if (this.silent >= LIMIT_MS) this.missed = true;
    this.silent = 0;
    this.busy = busy;
    if ((heard[this.page] ?? 0) >= this.waitsFrom) {
      this.waits = false;
      this.unheard = 0;
    }
    if (this.missed && !this.waits) this.ping();
    this.say();
  }

  touch({ target }) {
    if (!target?.closest?.(".jupyter-widgets")) return;
    this.touched = true;
    if (!this.waits && this.sincePing >= PING_MS) this.ping();
  }

  livingFeed() {
    return this.feeds().findLast(({ comm_live: alive }) => alive !== false);
  }

  // The kernel may end what nobody watches; if this gets lost, it waits for pings in vain.
  leave() {
    try {
      this.livingFeed()?.send({ page: this.page, ping: this.pings, leaves: true });
    } catch {
      // There is no connection any more.
    }
  }

  ping() {
    const feed = this.livingFeed();
    if (!feed) return;
    this.pings++;
    this.pinged = performance.now();
    if (!this.waits) this.waitsFrom = this.pings;
    this.waits = true;
    this.sincePing = 0;
    const { page, touched, missed } = this;
    this.touched = this.missed = false;
    try {
      feed.send({ page, ping: this.pings, touched, missed });
    } catch (error) {
      console.warn("colobench: a ping could not be sent", error);
    }
  }

  tick() {
    const now = performance.now();
    const passed = Math.min(now - this.then, LONGEST_TICK_MS);
    this.then = now;
    if (!this.views.size) return;
    const expecting = this.feeds().some((feed) => feed.get("contact").rests === false);
    // A hidden page is called rarely.
    if (document.hidden) {
      if (expecting && now - this.pinged >= HIDDEN_PING_MS) this.ping();
      return;
    }
    this.silent = expecting ? this.silent + passed : 0;
    this.sincePing += passed;
    if (this.waits) this.unheard += passed;
    // Also from a kernel that rests, which a press would never wake.
    if (!this.busy && this.unheard >= MEND_MS) this.leaveSubshell();
    const due = this.waits ? Math.max(LIMIT_MS, this.unheard / 2) : PING_MS;
    if ((this.waits || expecting || this.touched) && this.sincePing >= due) this.ping();
    this.say(expecting);
  }

  // JupyterLab 4.4 and later may send to a subshell of the kernel that it has ended already, for
  // ever ("Unknown subshell_id"): a page that was reloaded while it was being opened does.
  leaveSubshell() {
    const kernel = this.manager.kernel;
    if (this.mended || !kernel || !("commsOverSubshells" in kernel)) return;
    this.mended = true;
    console.warn("colobench: the kernel does not hear this page; trying without a subshell");
    kernel.commsOverSubshells = "disabled";
    // As soon as that is done.
    setTimeout(() => this.ping(), TICK_MS);
  }

  say(expecting = true) {
    for (const { feed, say } of this.views.keys()) say(this.words(feed, expecting));
  }

  words(feed, expecting) {
    if (feed.comm_live === false) return WORDS.ended;
    if (this.silent >= LIMIT_MS) return WORDS.silent;
    if (this.unheard < LIMIT_MS) return "";
    if (this.busy) return WORDS.busy;
    return expecting ? WORDS.deaf : WORDS.unanswered;
  }
}

// One for each kernel that a page shows views of: a manager of widgets belongs to one.
function contactOf(manager) {
  const contacts = (globalThis.colobenchContacts ??= new WeakMap());
  if (!contacts.has(manager)) contacts.set(manager, new PageContact(manager));
  return contacts.get(manager);
}

// -- Following a feed --------------------------------------------------------------------------------

const WORDS_STYLE =
  `padding: 4px 10px; margin: 2px 0; border-left: 4px solid ${COLOURS.contact}; font-size: 13px; ` +
  "line-height: 1.5; color: var(--jp-ui-font-color1, inherit)";

// Shows a sentence, unless there is none, or the panel around shows it. A view without buttons goes
// on while the kernel is busy.
function showWords(words, el, text, ofPanel) {
  const apart = text !== WORDS.busy && !el.closest(".colobench-panel");
  const shown = ofPanel || apart ? text : "";
  if (words.textContent !== shown) words.textContent = shown;
  words.hidden = !shown;
}

// Draws each new frame of a view. `begin` gets a box and returns a function that draws frame and
// data into it. Returns a function that ends the drawing.
function follow({ model, el }, begin, ofPanel = false) {
  const words = el.appendChild(element("div", WORDS_STYLE));
  words.setAttribute("role", "status");
  words.className = "colobench-words";
  words.hidden = true;
  const broken = el.appendChild(element("div", WORDS_STYLE));
  broken.setAttribute("role", "alert");
  broken.hidden = true;
  const box = el.appendChild(element("div", "min-width: 0"));
  const ends = [];
  let ended = false;

  function complain(error) {
    console.error(error);
    broken.textContent = `This cannot be shown: ${error.message}`;
    broken.hidden = false;
  }

  async function run() {
    const feed = await findModel(model.widget_manager, () => model.get("_feed"), () => ended);
    if (!feed) return;
    const say = (text) => showWords(words, el, text, ofPanel);
    ends.push(contactOf(model.widget_manager).join(feed, say));
    const draw = await begin(box, { feed, ended: () => ended, ends });
    if (ended || !draw) return;
    let drawing = false;
    let again = true;
    const redraw = async () => {
      again = true;
      // A page that is slower than the kernel skips frames.
      if (drawing) return;
      drawing = true;
      try {
        while (again && !ended) {
          again = false;
          draw(...(await readFrame(feed)));
          broken.hidden = true;
          await pause(0);
        }
      } catch (error) {
        // The next frame may be drawn again.
        complain(error);
      } finally {
        drawing = false;
      }
    };
    feed.on("change:frame", redraw);
    ends.push(() => feed.off("change:frame", redraw));
    await redraw();
  }

  run().catch(complain);
  return () => {
    ended = true;
    ends.forEach((end) => end());
  };
}
