/* Turns the explorers of a page: see seamref/show/explorers.py for what they declare, and precomputed.py for answers.

   Without this script an explorer is a table of its settings, their answer, and a few further turns.  With it the
   settings become controls.  Answers come from a script beside the page that was written when the book was built
   (data-turns), or from Python where the explorer was made by a cell that ran in the page. */
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
        src: address, onload: done, onerror: () => failed(new Error("the answers of this explorer are missing: " + address)),
      }));
    });
    return scripts[address];
  }

  function beforehand(key, address) {
    return async function (marks) {
      await loaded(address);
      const data = book.turns[key];
      const place = marks.reduce((sum, mark, i) => sum * data.sizes[i] + mark, 0);
      return data.answers[data.number[place]].map(piece => data.pieces[piece]).join("");
    };
  }

  function byPython(key, names) {
    return marks => book.turn(key, Object.fromEntries(marks.map((mark, i) => [names[i], mark])));
  }

  /* ---- controls */

  function control(declared, live, id) {
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
    if (kind === "number" && live) {
      const list = element("datalist", { id: `${id}-l` }, ...choices.map(choice => element("option", { value: choice })));
      const field = element("input", {
        type: "number", id, min: declared.least, max: declared.most, step: 1, required: true, list: list.id,
      });
      const range = ` (${declared.least} to ${declared.most})`;
      return {
        shown: element("div", { class: "seam-control" }, element("label", { for: id }, label + range), field, list),
        get: () => (field.checkValidity() ? { value: field.valueAsNumber } : null),
        set: mark => { field.value = choices[mark]; },
        wrong: () => `${label}: a whole number from ${declared.least} to ${declared.most} is wanted`,
      };
    }
    const list = element("select", { id }, ...choices.map(choice => element("option", {}, choice)));
    return {
      shown: element("div", { class: "seam-control" }, element("label", { for: id }, label), list),
      get: () => list.selectedIndex,
      set: mark => { list.selectedIndex = mark; },
    };
  }

  /* ---- one explorer */

  function upgrade(box) {
    const declared = JSON.parse(box.dataset.declared);
    const address = box.dataset.turns;
    const live = !address;
    if (live && !book.turn) return;  // nothing can answer: it stays a table
    box.dataset.ready = live ? "python" : "beforehand";
    const names = declared.controls.map(one => one.name);
    const ask = live ? byPython(declared.key, names) : beforehand(declared.key, address);
    const before = [box.querySelector(".seam-settings"), ...box.querySelectorAll(".seam-turned")];
    const answer = box.querySelector(".seam-answer");
    const first = declared.controls.map(one => one.set);
    const id = `seam-turn-${++made}`;
    const controls = declared.controls.map((one, i) => control(one, live, `${id}-${i}`));
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

    async function turned() {
      if (busy) { waiting = true; return; }
      busy = true;
      do {
        waiting = false;
        const marks = controls.map(one => one.get());
        const wrong = controls.find((one, i) => marks[i] === null);
        if (wrong) {
          answer.replaceChildren();
          tell(wrong.wrong(), "failed");
          continue;
        }
        const slow = setTimeout(() => { answer.setAttribute("aria-busy", "true"); tell("working ...", "busy"); }, 150);
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
          if (!live) withdraw();
        } finally {
          clearTimeout(slow);
          answer.removeAttribute("aria-busy");
        }
      } while (waiting);
      busy = false;
    }

    function withdraw() {  // without answers there are no controls: the table comes back
      const words = said.textContent;
      form.remove();
      before.forEach(e => { if (e) e.hidden = false; });
      answer.innerHTML = shownFirst;
      said.textContent = words;
    }

    const shownFirst = answer.innerHTML;
    form.addEventListener("submit", event => event.preventDefault());
    form.addEventListener("change", turned);
    before.forEach(e => { if (e) e.hidden = true; });
    put(first);
    box.prepend(form);
    answer.before(said);
    if (!live) nearby(box, () => loaded(address).catch(() => undefined));
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
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})();
