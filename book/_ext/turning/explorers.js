/* Turns the explorers of a page: see seamref/show/explorers.py for what they declare, and precomputed.py for answers.

   Without this script an explorer is a table of its settings, their answer, and a few further turns.  With it the
   settings become controls.  Answers come from a script beside the page that was written when the book was built
   (data-turns).  Python is asked (window.seambook.live) where a number is typed that was not computed, and for the
   explorers of cells that a reader has run in the page. */
(function () {
  "use strict";
  const book = (window.seambook = window.seambook || {});
  book.turns = book.turns || {};
  let made = 0;

  function element(name, attributes, ...inner) {
    const e = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (value === true) e.setAttribute(key, "");
      else if (value !== false && value !== undefined) e.setAttribute(key, value);
    }
    e.append(...inner);
    return e;
  }

  /* ---- where answers come from: a function from marks to a promise of HTML */

  const scripts = {};

  function loaded(address) {
    scripts[address] ||= new Promise((done, failed) => {
      document.head.append(Object.assign(element("script"), {
        src: address, onload: done,
        onerror: () => failed(Object.assign(new Error(`the answers of this explorer are missing: ${address}`), { missing: true })),
      }));
    });
    return scripts[address];
  }

  const withPython = () => Boolean(book.live && book.live.available);

  async function python(name, key, marks, names) {
    try {
      const html = await book.live.call(name, [key, Object.fromEntries(marks.map((mark, i) => [names[i], mark]))]);
      return await book.live.call("seambook_kernel:written", [html]);  // with the links of every page
    } catch (error) {  // the last line of a traceback says what is wrong
      const line = String(error.message || error).trim().split("\n").pop();
      throw new Error(line.replace(/^[\w.]*SeamrefError: /, ""));
    }
  }

  function beforehand(key, address, names) {
    return async marks => {
      if (marks.some(mark => typeof mark === "object")) {
        return python("seamref.show.precomputed:answer", key, marks, names);
      }
      await loaded(address);
      const data = book.turns[key];
      const place = marks.reduce((sum, mark, i) => sum * data.sizes[i] + mark, 0);
      return data.answers[data.number[place]].map(piece => data.pieces[piece]).join("");
    };
  }

  const afterwards = (key, names) => marks => python("seamref.show.explorers:turn", key, marks, names);

  /* ---- controls */

  function control(declared, id) {
    const { label, choices, kind } = declared;
    if (kind === "tick") {
      const box = element("input", { type: "checkbox", id });
      return {
        shown: element("div", { class: "seam-control seam-tick" }, element("label", { for: id }, box, " " + label)),
        get: () => (choices.indexOf(box.checked ? "yes" : "no")),
        set: mark => { box.checked = choices[mark] === "yes"; },
      };
    }
    if (kind === "few") {
      const buttons = choices.map((choice, i) => element("input", { type: "radio", name: id, id: `${id}-${i}` }));
      const labels = buttons.map((b, i) => element("label", { for: b.id }, b, " " + choices[i]));
      return {
        shown: element("fieldset", { class: "seam-control seam-few" }, element("legend", {}, label), ...labels),
        get: () => buttons.findIndex(b => b.checked),
        set: mark => { buttons[mark].checked = true; },
      };
    }
    if (kind === "number" && withPython()) return typed(declared, id);
    const list = element("select", { id }, ...choices.map(choice => element("option", {}, choice)));
    return {
      shown: element("div", { class: "seam-control" }, element("label", { for: id }, label), list),
      get: () => list.selectedIndex,
      set: mark => { list.selectedIndex = mark; },
    };
  }

  /* A list of numbers, and a field for any other: that one Python answers. */
  function typed({ label, choices, least, most }, id) {
    const other = element("option", {}, "another ...");
    const list = element("select", { id }, ...choices.map(choice => element("option", {}, choice)), other);
    const field = element("input", {
      type: "number", min: least, max: most, step: 1, required: true, "aria-label": `${label}, ${least} to ${most}`,
    });
    const show = () => { field.hidden = list.selectedIndex < choices.length; };
    list.addEventListener("change", () => {
      show();
      if (!field.hidden) field.focus();
    });
    show();
    return {
      shown: element("div", { class: "seam-control" }, element("label", { for: id }, label),
        element("div", { class: "seam-number" }, list, field)),
      get: () => {
        if (field.hidden) return list.selectedIndex;
        if (!field.checkValidity()) return null;
        const offered = choices.indexOf(String(field.valueAsNumber));
        return offered < 0 ? { value: field.valueAsNumber } : offered;
      },
      set: mark => { list.selectedIndex = mark; show(); },
      wrong: () => `${label}: a whole number from ${least} to ${most} is wanted`,
    };
  }

  /* ---- one explorer */

  function upgrade(box) {
    const declared = JSON.parse(box.dataset.declared);
    const address = box.dataset.turns;
    // Neither answers beside the page nor a cell that ran: it stays a table.
    if (!address && !(withPython() && box.closest(".cell")?.dataset.live)) return;
    box.dataset.ready = address ? "beforehand" : "python";
    const names = declared.controls.map(one => one.name);
    const ask = address ? beforehand(declared.key, address, names) : afterwards(declared.key, names);
    const before = [box.querySelector(".seam-settings"), ...box.querySelectorAll(".seam-turned")];
    const answer = box.querySelector(".seam-answer");
    const first = declared.controls.map(one => one.set);
    const id = `seam-turn-${++made}`;
    const controls = declared.controls.map((one, i) => control(one, `${id}-${i}`));
    const said = element("p", { class: "seam-said", role: "status" });
    const put = marks => controls.forEach((one, i) => one.set(marks[i]));

    const says = changes => Object.entries(changes).map(([name, mark]) => {
      const one = declared.controls[names.indexOf(name)];
      return `${one.label} = ${one.choices[mark]}`;
    }).join(", ");
    const button = (words, marks) => {
      const b = element("button", { type: "button" }, words);
      b.addEventListener("click", () => { put(marks); turned(); });
      return b;
    };
    const presets = element("p", { class: "seam-presets" }, "See also: ",
      ...declared.also.map(changes => button(says(changes), first.map((mark, i) => changes[names[i]] ?? mark))),
      button("as at first", first));
    const form = element("form", { class: "seam-turn" },
      element("fieldset", {}, element("legend", {}, declared.title), ...controls.map(one => one.shown)), presets);

    /* The last setting counts: while an answer is on its way, only one further question waits. */
    let busy = false, waiting = false;

    function tell(words, state) {
      said.dataset.state = state;
      said.textContent = words;
    }

    /* Nothing is said of what is there at once; what takes longer says so, and how long it has taken. */
    function working() {
      const began = performance.now();
      const clock = element("span", { "aria-hidden": "true" });  // to be seen, not to be heard every second
      const tick = () => {
        const seconds = Math.floor((performance.now() - began) / 1000);
        const what = book.live && book.live.state === "starting" ? "loading Python ..." : "working ...";
        answer.setAttribute("aria-busy", "true");
        if (said.firstChild?.nodeValue !== what) tell(what, "busy");
        clock.textContent = seconds < 2 ? "" : ` ${seconds} s`;
        said.append(clock);
      };
      let timer = setTimeout(() => { tick(); timer = setInterval(tick, 1000); }, 150);
      return () => { clearInterval(timer); clearTimeout(timer); answer.removeAttribute("aria-busy"); };
    }

    async function turned() {
      box.dataset.turned = "";  // printed from now on as it stands; before, with all its further turns
      if (busy) { waiting = true; return; }
      busy = true;
      do {
        waiting = false;
        const marks = controls.map(one => one.get());
        const wrong = controls.find((one, i) => marks[i] === null);
        if (wrong) {
          answer.replaceChildren();
          tell(wrong.wrong(), "asked");
          continue;
        }
        const done = working();
        try {
          const html = await ask(marks);
          if (!waiting) {
            answer.innerHTML = html;
            const line = answer.querySelector("p, caption");
            tell(line ? line.textContent : "The answer has changed.", "answered");
          }
        } catch (error) {  // the old answer must not stand beside the new setting
          answer.replaceChildren();
          tell(String(error.message || error), "failed");
          if (error.missing) withdraw();
        } finally {
          done();
        }
      } while (waiting);
      busy = false;
    }

    function withdraw() {  // without answers there are no controls: the table comes back
      form.remove();
      before.forEach(e => { if (e) e.hidden = false; });
      answer.innerHTML = shownFirst;
    }

    const shownFirst = answer.innerHTML;
    form.addEventListener("submit", event => event.preventDefault());
    form.addEventListener("change", turned);
    before.forEach(e => { if (e) e.hidden = true; });
    put(first);
    box.prepend(form);
    answer.before(said);
    if (address) nearby(box, () => loaded(address).catch(() => undefined));
  }

  /* The answers are fetched when a reader comes near, not by every page view. */
  function nearby(box, act) {
    if (!("IntersectionObserver" in window)) return act();
    const eye = new IntersectionObserver(seen => {
      if (seen.some(one => one.isIntersecting)) { eye.disconnect(); act(); }
    }, { rootMargin: "600px" });
    eye.observe(box);
  }

  book.explorers = function (root) {
    for (const box of (root || document).querySelectorAll(".seam-explorer[data-declared]:not([data-ready])")) upgrade(box);
  };

  function begin() {
    book.explorers();
    // Cells that run in the page bring explorers of their own.
    new MutationObserver(changes => {
      if (changes.some(change => change.addedNodes.length)) book.explorers();
    }).observe(document.querySelector("article") || document.body, { childList: true, subtree: true });
  }
  // The page's Python (live.js) is another script of the page: both are there when the document is.
  if (document.readyState === "complete") begin();
  else document.addEventListener("DOMContentLoaded", begin);
})();
