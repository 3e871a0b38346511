// The page's Python, for every page of the book: window.seambook.live.  A plain script; needs live.py's files and http.
//
//   available           whether this page can run Python at all (never from file://)
//   state               "off", "starting", "ready" or "busy"; the event "seambook-live" on document says each change
//   python              "Python 3.14.2" once it has started
//   start()             load Python; a promise.  Everything below starts it by itself
//   run(source)         run a cell in the page's one session -> {outputs, failed, seconds, digest}; outputs as nbformat has
//                       them: {output_type: "stream" | "display_data" | "execute_result" | "error", ...}; "written" is
//                       their HTML with the book's links
//   call(name, args)    call "package.module:function" with a list (or an object: keywords) of plain values -> what it
//                       returns, if that is plain data, else {data: {"text/html": ..., "text/plain": ...}}
//   command(...words)   the command line: command("explain", "0x...") -> {status, out, err}
//   write(path, bytes)  put a file before the session (Uint8Array or ArrayBuffer); a relative path is the chapter's folder
//   interrupt()         stop what runs -> "kept" (KeyboardInterrupt, the session goes on) or "lost" (Python had to be ended;
//                       what waited is rejected, and the next call starts anew)
//   restart()           end Python; the next call starts anew
//   draw(outputs, box)  show outputs in an element, with the book's own styles
//   editor(box, options)  a promise of an editor in an element; options {text, label, run, changed} -> {text, focus()}
//
// The rest of the file is the chapters' cells.  Explorers and pages that build on the session use what is above only.
(() => {
"use strict";
const script = document.currentScript;
const base = new URL(script.dataset.live, script.src).href;
const told = JSON.parse(document.getElementById("seam-cells")?.textContent ?? "null");
const served = /^https?:$/.test(location.protocol);

// ---------------------------------------------------------------- the session

let worker, waiting, next = 0, starting, flag;

const live = {
  available: served && typeof Worker === "function" && typeof WebAssembly === "object",
  state: "off",
  python: "",
  start() {
    if (!live.available) return Promise.reject(new Error("the book is not served: say make serve"));
    return starting ??= begin();
  },
  run: (source, printed = "") => ask("run", { source, printed }),
  call: (name, args = []) => ask("call", { name, args }),
  command: (...words) => ask("call", { name: "seambook_kernel:command", args: words }),
  write: (path, bytes) => ask("write", { path, bytes }),
  interrupt() {
    if (!worker) return "kept";
    if (flag && live.state === "busy") { flag[0] = 2; return "kept"; }
    live.restart();
    return "lost";
  },
  restart() {
    worker?.terminate();
    const lost = waiting;
    worker = waiting = starting = flag = undefined;
    turn("off");
    lost?.forEach(one => one.no(Object.assign(new Error("stopped"), { stopped: true })));
  },
  draw(outputs, box) { box.replaceChildren(...outputs.map(drawn).filter(Boolean)); },
  async editor(box, options) { return (await import(base + "editor.js")).editor(box, options); },
};
(window.seambook ??= {}).live = live;

function turn(state) {
  if (live.state === state) return;
  live.state = state;
  document.dispatchEvent(new CustomEvent("seambook-live", { detail: { state } }));
}

function send(name, args) {
  const mine = waiting;
  return new Promise((yes, no) => {
    const id = next++;
    mine.set(id, { yes, no });
    worker.postMessage({ id, name, args });
  });
}

async function begin() {
  turn("starting");
  waiting = new Map();
  worker = new Worker(base + "worker.js", { type: "module" });
  const mine = waiting;
  worker.onmessage = ({ data: { id, value, error } }) => {
    const one = mine.get(id);
    mine.delete(id);
    if (mine === waiting && !mine.size) turn("ready");
    if (error === undefined) one?.yes(value); else one?.no(new Error(error));
  };
  worker.onerror = event => {
    const error = new Error(event.message || "Python's files could not be loaded");
    if (mine === waiting) live.restart();
    mine.forEach(one => one.no(error));
  };
  if (window.crossOriginIsolated) flag = new Uint8Array(new SharedArrayBuffer(1));
  try {
    live.python = await send("begin", { page: told?.page ?? "book/index", interrupt: flag });
  } catch (error) {
    if (mine === waiting) live.restart();
    throw error;
  }
}

async function ask(name, args) {
  await live.start();
  turn("busy");
  return send(name, args);
}

// ---------------------------------------------------------------- outputs

function el(tag, attributes = {}, ...inside) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made[name] = value;
    else if (value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...inside);
  return made;
}

const boxed = (kind, inner) => el("div", { class: `output ${kind} notranslate` },
  el("div", { class: "highlight" }, el("pre", {}, ...[inner].flat())));

function drawn(output) {
  switch (output.output_type) {
    case "stream": return boxed(`stream${output.name === "stderr" ? " stderr" : ""} highlight-myst-ansi`, output.text);
    case "error": return failed(output);
  }
  const data = output.data;
  const markup = output.written ?? data["text/html"] ?? data["image/svg+xml"];
  if (markup === undefined) return boxed("text_plain highlight-myst-ansi", data["text/plain"] ?? "");
  const box = el("div", { class: data["text/html"] === undefined ? "output svg" : "output text_html" });
  box.innerHTML = markup;
  return box;
}

// As the book prints it: what went wrong in one line.  The way to it is there for whoever wants it.
function failed({ ename, evalue, traceback }) {
  const box = boxed("traceback highlight-ipythontb",
    [el("span", { class: "ne" }, ename), evalue ? `: ${evalue}` : ""]);
  if (traceback?.length > 2) {
    box.append(el("details", { class: "seam-trace" }, el("summary", {}, "The way to it"),
      el("pre", { tabindex: "0" }, traceback.join("\n"))));
  }
  return box;
}

// ---------------------------------------------------------------- the chapter's cells

const heading = document.querySelector("article.bd-article h1");
if (!told || !heading) return;
const boxes = [...document.querySelectorAll("article.bd-article div.cell")]
  .filter(box => box.querySelector(":scope .cell_input pre"));
if (boxes.length !== told.cells.length) {
  console.error(`live: ${boxes.length} cells on the page, ${told.cells.length} in the chapter`);
  return;
}

const front = el("div", { class: "seam-live" });
heading.after(front);
if (!live.available) {
  front.append(el("p", {}, "The cells of this page can be run and changed when the book is served: say ",
    el("code", {}, "make serve"), ", or ", el("code", {}, "python3 -m http.server"), " in the book's folder."));
  return;
}

const said = el("span", { role: "status", class: "seam-live-said" });
const button = (text, label, onclick, more = {}) =>
  el("button", { type: "button", class: "seam-button", "aria-label": label, onclick, ...more }, text);
const begins = button("Make this page live", undefined, goLive);
let near;  // whoever rests on it will press it: Python is on its way by then
begins.onpointerenter = () => { near = setTimeout(() => live.start().catch(() => {}), 150); };
begins.onpointerleave = () => clearTimeout(near);
front.append(el("p", {}, begins, " ", said));
said.textContent = "Then its cells can be run and changed, in this browser alone.";

let cells = [];

class Cell {
  constructor(box, facts, number) {
    Object.assign(this, { box, facts, number, ran: undefined });
    this.input = box.querySelector(".cell_input");
    this.pre = this.input.querySelector("pre");
    this.printedText = this.pre.textContent.replace(/\n$/, "");
    this.output = box.querySelector(".cell_output");
    this.printed = this.output ? [...this.output.childNodes] : [];
  }

  async equip() {
    const fold = this.input.closest("details");
    if (fold && !this.box.classList.contains("tag_hide-cell")) fold.open = true;  // a solution stays to be asked for
    this.state = el("span", { class: "seam-cell-state" });
    this.tools = el("div", { class: "seam-cell-tools", role: "group", "aria-label": `Cell ${this.number}` });
    this.input.after(this.tools);
    if (this.facts.needs) {
      this.tools.append(this.state);
      this.say(`Not run here: it needs ${this.facts.needs}. The printed output stands.`);
      return;
    }
    this.runs = button("Run", `Run cell ${this.number}`, () => request(this), { title: "Shift+Enter" });
    this.above = button("Run all above", `Run all above cell ${this.number}`, () => requestAbove(this));
    this.above.hidden = this.number === 1;
    this.stops = button("Stop", `Stop cell ${this.number}`, stop);
    this.stops.hidden = true;
    this.resets = button("Reset", `Reset cell ${this.number}`, () => this.reset());
    this.resets.hidden = true;
    this.tools.append(this.runs, this.stops, this.above, this.resets, this.state);
    const place = el("div", { class: "seam-editor" });
    const shown = this.pre.closest(".cell_input > *") ?? this.pre;
    shown.hidden = true;
    this.input.append(place);
    this.editor = await live.editor(place, {
      text: this.printedText, label: `Code of cell ${this.number}`, run: () => request(this),
      changed: () => { this.resets.hidden = false; if (this.ran !== undefined) this.say("changed"); },
    });
  }

  get text() { return this.editor.text; }
  say(text) { this.state.textContent = text; }

  busy(text) {
    const began = performance.now();
    const show = () => {
      const seconds = Math.floor((performance.now() - began) / 1000);
      this.say(seconds < 1 ? text : `${text} ${seconds} s`);
    };
    show();
    this.box.classList.add("seam-busy");
    this.box.setAttribute("aria-busy", "true");
    this.stops.hidden = false;
    const clock = setInterval(show, 500);
    return () => {
      clearInterval(clock);
      this.box.classList.remove("seam-busy");
      this.box.removeAttribute("aria-busy");
      const held = document.activeElement === this.stops;
      this.stops.hidden = true;
      if (held) this.runs.focus();
    };
  }

  show(nodes) {
    if (!this.output) {
      this.output = el("div", { class: "cell_output docutils container" });
      this.tools.after(this.output);
    }
    this.output.replaceChildren(...nodes);
    for (const one of this.output.querySelectorAll("[id]:not(svg *)")) {  // what the page has already keeps its address
      if (document.querySelectorAll(`[id="${CSS.escape(one.id)}"]`).length > 1) one.removeAttribute("id");
    }
  }

  async run() {
    const text = this.text;
    const done = this.busy(live.state === "off" || live.state === "starting" ? "loading Python ..." : "running ...");
    this.box.dataset.live = "busy";
    try {
      await live.start();
      const got = await live.run(text, this.facts.digest);
      const same = got.digest === this.facts.digest;
      this.show(same ? this.printed : got.outputs.map(drawn).filter(Boolean));
      this.ran = text;
      const result = same ? "same" : got.failed ? "failed" : "other";
      this.box.dataset.live = result;
      const seconds = `${got.seconds.toFixed(2)} s`;
      this.say(same ? `as printed, ${seconds}` : got.failed ? `failed after ${seconds}`
        : text === this.printedText ? `other than printed, ${seconds}` : `ran, ${seconds}`);
      this.resets.hidden = same && text === this.printedText;
      announce(`Cell ${this.number}: ${this.state.textContent}.`);
      return !got.failed || Boolean(this.facts.fails);
    } catch (error) {
      delete this.box.dataset.live;
      this.say(error.stopped ? "stopped" : `not run: ${error.message}`);
      if (error.stopped) return false;  // whoever stopped it has said what that means
      announce(`Cell ${this.number}: ${this.state.textContent}.`);
      this.box.dataset.live = "failed";
      return false;
    } finally {
      done();
    }
  }

  reset() {
    this.editor.text = this.printedText;
    if (this.output) this.output.replaceChildren(...this.printed);
    this.say(this.ran === undefined ? "" : "as printed; what it did in the session stays");
    if (this.ran !== this.printedText) this.ran = undefined;
    delete this.box.dataset.live;
    this.runs.focus();
    this.resets.hidden = true;
  }
}

function announce(text) { said.textContent = text; }

// What is asked for runs in order, one cell at a time; Stop and a failure empty the queue.
let order = Promise.resolve(), turnNumber = 0;

function inOrder(pick) {
  const mine = turnNumber;
  order = order.then(async () => {
    for (const cell of pick()) {
      if (mine !== turnNumber) return;
      if (!await cell.run()) { turnNumber++; return; }
    }
  });
  return order;
}

const runnable = () => cells.filter(cell => !cell.facts.needs);
const before = last => runnable().filter(cell => cell.number < last.number);
// A cell after those above it that have not run as they stand now.
const request = last => inOrder(() => [...before(last).filter(cell => cell.ran !== cell.text), last]);
const requestAbove = last => inOrder(() => before(last));

function stop() {
  turnNumber++;
  if (live.interrupt() === "lost") {
    cells.forEach(cell => { cell.ran = undefined; });
    announce("Stopped. Python had to be started anew: it no longer knows what ran before.");
  }
}

function startOver() {
  turnNumber++;
  live.restart();
  for (const cell of runnable()) {
    cell.ran = undefined;
    cell.reset();
    cell.say("");
  }
  allButton.focus();
  announce("All cells are as printed, and Python is started anew when one is run.");
}

let allButton;

async function goLive() {
  begins.setAttribute("aria-disabled", "true");
  begins.onclick = null;
  announce("loading Python ...");
  live.start().catch(() => {});  // a cell that is run says what went wrong
  try {
    cells = boxes.map((box, at) => new Cell(box, told.cells[at], at + 1));
    await Promise.all(cells.map(cell => cell.equip()));
  } catch (error) {
    announce(`The page cannot be made live: ${error.message}`);
    return;
  }
  allButton = button("Run all cells", undefined, () => inOrder(runnable));
  begins.replaceWith(allButton, " ", button("Start over", undefined, startOver));
  allButton.focus();
  document.documentElement.classList.add("seam-is-live");
  live.start().then(
    () => announce(`${live.python} is ready. Shift+Enter runs the cell that is being edited.`),
    error => announce(`Python could not be loaded: ${error.message}`));
}

live.cells = () => cells;
})();
