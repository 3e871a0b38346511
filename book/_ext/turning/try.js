/* The command line in the page: seamref.cli's own main, run by the page's Python (window.seambook.live).

   Without Python the page keeps its table of commands, and says in one line how they can be run here. */
(function () {
  "use strict";
  const box = document.querySelector(".seam-try");
  if (!box) return;
  const LIMIT = 64 << 20;  // bytes of a file that a command reads (seamref/commands/_files.py)
  const ON_FILES = ["inspect", "verify", "blob check", "doctor", "explain"];
  const MEANS = {
    0: "", 1: "the answer is no", 2: "bad input", 3: "stopped before the end", 70: "a mistake in seamref itself",
    130: "interrupted",
  };
  // What the session needs to say which files there are and to give one back.
  const HELPERS = `
def seam_files():
    import os
    return {e.name: e.stat().st_size for e in os.scandir(".") if e.is_file()}


def seam_file(name):
    import base64
    with open(name, "rb") as file:
        return base64.b64encode(file.read()).decode()
`;

  function element(name, attributes, ...inner) {
    const e = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (key.startsWith("on")) e.addEventListener(key.slice(2), value);
      else if (value === true) e.setAttribute(key, "");
      else if (value !== false && value !== undefined) e.setAttribute(key, value);
    }
    e.append(...inner);
    return e;
  }

  const button = (words, onclick, more) =>
    element("button", { type: "button", class: "seam-button", onclick, ...more }, words);

  function sized(bytes) {
    return bytes < 2048 ? `${bytes} bytes` : bytes < 2 << 20 ? `${Math.round(bytes / 1024)} KiB` : `${(bytes / (1 << 20)).toFixed(1)} MiB`;
  }

  /* ---- words of a command, as a shell would split them */

  class Unclear extends Error {}

  function words(line) {
    const found = [];
    let word = null, quote = "";
    for (let i = 0; i < line.length; i++) {
      const c = line[i];
      if (quote) {
        if (c === quote) quote = "";
        else if (c === "\\" && quote === '"' && '"\\$`'.includes(line[i + 1] || " ")) word += line[++i];
        else word += c;
      } else if (c === "'" || c === '"') {
        quote = c;
        word ??= "";
      } else if (c === "\\" && i + 1 < line.length) {
        word = (word ?? "") + line[++i];
      } else if (/\s/.test(c)) {
        if (word !== null) found.push(word);
        word = null;
      } else if ("|<>;&`".includes(c)) {
        throw new Unclear(`${c} is for a shell, and a page is none: one command at a time, with files by name (or in quotes)`);
      } else {
        word = (word ?? "") + c;
      }
    }
    if (quote) throw new Unclear(`the quote ${quote} is not closed`);
    if (word !== null) found.push(word);
    return found;
  }

  function typed(line) {
    let found = words(line.replace(/^\s*\$\s+/, ""));
    if (/^python3?$/.test(found[0]) && found[1] === "-m" && found[2] === "seamref") found = found.slice(3);
    else if (found[0] === "seamref") found = found.slice(1);
    if (found.includes("-")) throw new Unclear("- is standard input, and a page has none: choose a file, or paste one below");
    // What looks at the machine it runs on would look at an empty one.
    const named = found.slice(1).some(word => !word.startsWith("-"));
    if (found[0] === "doctor" && (found.includes("--collect") || !(named || found.includes("-h") || found.includes("--help")))) {
      throw new Unclear("doctor without a file looks at the machine it runs on, and a page cannot: choose a file, or paste a log below");
    }
    return found;
  }

  const quoted = word => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replace(/'/g, `'\\''`)}'`);

  /* ---- what the page shows */

  const live = window.seambook && window.seambook.live;
  const rows = [...box.querySelectorAll("tbody tr")];
  if (!live || !live.available) {
    const how = live
      ? ["Commands run in this page when the book is served: say ", element("code", {}, "make serve"), ", or ",
        element("code", {}, "python3 -m http.server"), " in the book's folder."]
      : ["This copy of the book was built without Python for its pages: the commands run at a shell."];
    box.before(element("p", { class: "seam-try-how" }, ...how));
    return;
  }

  const said = element("p", { class: "seam-try-said", role: "status" });
  const input = element("input", {
    id: "seam-try-line", type: "text", autocomplete: "off", autocapitalize: "off", spellcheck: "false",
    "aria-describedby": "seam-try-hint", onkeydown: earlier,
  });
  const runs = element("button", { type: "submit", class: "seam-button" }, "Run");
  const stops = button("Stop", stop, { hidden: true });
  const form = element("form", { class: "seam-try-form", onsubmit: event => { event.preventDefault(); submit(); } },
    element("label", { for: input.id }, "seamref"), input, runs, stops);
  const hint = element("p", { id: "seam-try-hint", class: "seam-try-hint" },
    "Enter runs it; the arrow keys up and down bring back what was typed before. The first command loads Python.");
  const files = element("ul", { class: "seam-try-files" });
  const chooser = element("input", { id: "seam-try-choose", type: "file", multiple: true, onchange: () => take(chooser.files) });
  const paste = element("textarea", { id: "seam-try-paste", rows: 4, spellcheck: "false" });
  const drop = element("div", { class: "seam-try-drop" },
    element("p", {}, element("label", { for: chooser.id }, "Choose files, or drop them here: "), chooser),
    element("p", { class: "seam-try-hint" }, "They are copied into this page's memory and never leave this machine."),
    files,
    element("details", {}, element("summary", {}, "Paste a log instead"),
      element("label", { for: paste.id }, "Lines of dmesg or journalctl, register values, anything that text can be"), paste,
      element("p", {}, button("Ask the doctor", () => pasted("doctor")), " ", button("Explain each line", () => pasted("explain")))));
  const results = element("div", { class: "seam-try-results" });
  const title = element("h2", { class: "seam-try-title", hidden: true }, "Answers");
  box.before(form, hint, said, title, results, drop);

  for (const row of rows) {
    const code = row.querySelector("code");
    const line = code.textContent;
    row.append(element("td", {}, button("Run", () => put(line, true), { "aria-label": `Run ${line}` })));
  }
  box.querySelector("thead tr").append(element("td"));

  /* ---- files: the page keeps them too, because a session that had to be ended has lost them */

  const held = new Map();  // name -> {bytes, where: the session that has it, own: made by a command}
  let session = 0;
  document.addEventListener("seambook-live", event => { if (event.detail.state === "off") session++; });
  for (const one of document.querySelectorAll(".seam-try-file")) {
    const text = one.querySelector("pre").textContent;
    held.set(one.dataset.name, { bytes: new TextEncoder().encode(text), given: true });
  }
  list();

  async function take(chosen) {
    let first = "";
    for (const file of [...chosen]) {
      if (file.size > LIMIT) { tell(`${file.name}: ${sized(file.size)}, at most ${sized(LIMIT)} are read`, "failed"); continue; }
      try {
        held.set(file.name, { bytes: new Uint8Array(await file.arrayBuffer()) });
        first ||= file.name;
      } catch (error) {
        tell(`${file.name} cannot be read: ${error.message}`, "failed");
      }
    }
    chooser.value = "";
    list();
    if (first) {
      tell(`${first} is here (${sized(held.get(first).bytes.length)}). Choose a command for it.`, "answered");
      [...files.querySelectorAll("button")].find(b => b.dataset.file === first)?.focus();
    }
  }

  function pasted(command) {
    if (!paste.value.trim()) { tell("nothing is pasted yet", "failed"); paste.focus(); return; }
    const text = paste.value.endsWith("\n") ? paste.value : paste.value + "\n";
    held.set("pasted.txt", { bytes: new TextEncoder().encode(text) });
    list();
    put(`${command} pasted.txt`, true);
  }

  function list() {
    files.replaceChildren(...[...held].filter(([, one]) => !one.given).map(([name, one]) => element("li", {},
      element("span", { class: "seam-try-name" }, name), ` ${sized(one.size ?? one.bytes.length)} `,
      ...ON_FILES.map(command => button(command, () => put(`${command} ${quoted(name)}`, true),
        { "data-file": name, "aria-label": `${command} ${name}` })),
      ...(one.made ? [button("Save", () => save(name), { "aria-label": `Save ${name}` })] : []))));
  }

  async function write() {
    for (const [name, one] of held) {
      if (one.made && one.where !== session) { held.delete(name); continue; }  // a command made it, and it is gone
      if (one.where === session || one.made) continue;
      await live.write(name, one.bytes);
      one.where = session;
    }
    if (write.ready !== session) {
      await live.run(HELPERS);
      write.known = await live.call("seam_files", []);
      write.ready = session;
    }
  }

  async function made() {
    const now = await live.call("seam_files", []);
    for (const [name, size] of Object.entries(now)) {
      if (!(name in write.known) && !(held.has(name) && !held.get(name).made)) {
        held.set(name, { size, made: true, where: session });
      }
    }
    for (const [name, one] of held) if (one.made && !(name in now)) held.delete(name);
    list();
  }

  async function save(name) {
    const text = atob(await live.call("seam_file", [name]));
    const bytes = Uint8Array.from(text, c => c.charCodeAt(0));
    const link = element("a", { href: URL.createObjectURL(new Blob([bytes])), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  for (const name of ["dragenter", "dragover"]) {
    drop.addEventListener(name, event => { event.preventDefault(); drop.classList.add("seam-over"); });
  }
  drop.addEventListener("dragleave", event => { if (!drop.contains(event.relatedTarget)) drop.classList.remove("seam-over"); });
  drop.addEventListener("drop", event => {
    event.preventDefault();
    drop.classList.remove("seam-over");
    take(event.dataTransfer.files);
  });

  /* ---- history */

  const history = [];
  let at = 0;

  function earlier(event) {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step || !history.length) return;
    const to = Math.min(Math.max(at + step, 0), history.length);
    event.preventDefault();
    at = to;
    input.value = history[at] ?? "";
    input.setSelectionRange(input.value.length, input.value.length);
  }

  /* ---- running */

  let busy = false, stopped = false;

  function tell(text, state) {
    said.dataset.state = state;
    said.textContent = text;
  }

  function put(line, run) {
    input.value = line.replace(/^seamref /, "");
    if (run) submit();
  }

  function stop() {
    stopped = true;
    if (live.interrupt() === "lost") tell("Stopped. Python is started anew for the next command.", "failed");
  }

  function working(line) {
    const began = performance.now();
    const clock = element("span", { "aria-hidden": "true" });
    const tick = () => {
      const what = live.state === "starting" ? "Python is being loaded, once ..." : `${line} is running ...`;
      if (said.firstChild?.nodeValue !== what) tell(what, "busy");
      clock.textContent = ` ${Math.floor((performance.now() - began) / 1000)} s`;
      said.append(clock);
    };
    tick();
    const timer = setInterval(tick, 500);
    return () => { clearInterval(timer); return (performance.now() - began) / 1000; };
  }

  async function submit() {
    if (busy) { tell("one command at a time: stop the one that runs, or wait", "busy"); return; }
    const line = input.value.trim().replace(/^seamref\s+/, "");
    if (!line) { tell("type a command, such as --help", "failed"); return; }
    if (history.at(-1) !== line) history.push(line);
    at = history.length;
    let asked;
    try {
      asked = typed(line);
    } catch (error) {
      if (!(error instanceof Unclear)) throw error;
      tell(error.message, "failed");
      return;
    }
    busy = true;
    stopped = false;
    stops.hidden = false;
    runs.setAttribute("aria-disabled", "true");
    const done = working(`seamref ${asked[0]}`);
    try {
      await live.start();
      await write();
      const began = performance.now();
      const got = await live.command(...asked);
      const seconds = (performance.now() - began) / 1000;
      done();
      show(line, got, seconds);
      await made();
    } catch (error) {
      done();
      if (!stopped && !error.stopped) tell(`not run: ${String(error.message).trim().split("\n").pop()}`, "failed");
      else tell("Stopped. Python is started anew for the next command; files that were chosen are still here.", "failed");
      list();
    } finally {
      busy = false;
      stops.hidden = true;
      runs.removeAttribute("aria-disabled");
    }
  }

  function show(line, { status, out, err }, seconds) {
    const means = MEANS[status];
    const ends = `exit code ${status}${means ? `: ${means}` : ""}, ${seconds.toFixed(1)} s`;
    const name = `seamref ${line}`;
    const text = (words, kind) => element("pre", { class: `seam-try-${kind}`, tabindex: 0, role: "group",
      "aria-label": kind === "out" ? `Output of ${name}` : `Complaint of ${name}` }, words);
    for (const old of results.children) old.open = false;
    const one = element("details", { class: "seam-try-result", open: true, "data-status": status },
      element("summary", {}, element("code", {}, `$ ${name}`), " ", element("span", {}, ends)),
      ...(out ? [text(out, "out")] : []), ...(err ? [text(err, "err")] : []),
      ...(out || err ? [] : [element("p", { class: "seam-try-hint" }, "It printed nothing.")]),
      button("Remove", () => { one.remove(); title.hidden = !results.children.length; input.focus(); }, { "aria-label": `Remove ${name}` }));
    results.prepend(one);
    title.hidden = false;
    tell(`seamref ${line.split(/\s/)[0]}: ${ends}. The answer is below.`, status > 1 ? "failed" : "answered");
    const { top } = form.getBoundingClientRect();  // a button further down asked: the answer is up here
    if (top < 0 || top > window.innerHeight * 0.75) form.scrollIntoView({ block: "start" });
  }
})();
