// The chapters in JupyterLab (make lab): their few MyST constructs, and links that lead from chapter to chapter.
//
// A prebuilt extension of JupyterLab, written by hand: the object at the end is what its loader asks for.  It rewrites
// Markdown before JupyterLab's own parser sees it, so that it needs no particular version of either.  tools/lab.py puts
// the facts in: what each citation says and where it leads, where each label and each clause stands.
(() => {
"use strict";
const facts = /* facts */ { cites: {}, labels: {}, titles: {}, pages: {}, anchors: {} };

const escaped = text => text.replace(/[&<>"]/g, one => `&#${one.charCodeAt(0)};`);

// ---------------------------------------------------------------- Markdown

const FENCE = /^( {0,3})(`{3,}|:{3,})\s*(?:\{([\w:.-]+)\}\s*(.*)|.*)$/;
const OPTION = /^:[\w-]+:.*$/;

function inline(text) {
  // Code stays as it is, but for the roles that stand before it.
  const parts = /\{([\w:.-]+)\}`([^`]*)`|(`+)(?:(?!\3)[^])*\3|(\[?)\]\(([\w-]+)\)/g;
  return text.replace(parts, (whole, role, said, code, empty, label) => {
    if (role === "cite") return facts.cites[said] ?? escaped(`[${said}]`);
    if (role) return role === "ref" || role === "numref" || role === "doc" ? linked(said) : `*${said}*`;
    const path = facts.labels[label];
    if (path) return `${empty ? `[${facts.titles[path]}` : ""}](${address(label)})`;
    return whole;
  });
}

function linked(said) {
  const [, words, target] = /^(.*?)\s*<(.*)>$/.exec(said) ?? [null, said, said];
  return `[${words}](${address(target)})`;
}

// Where a label stands, or a page by its name: an address that only the listener below understands.
function address(label) {
  const path = facts.labels[label];
  if (!path) return label;
  const page = path.replace(/\.\w+$/, "");
  return `/seambook/${page}.html${page.endsWith(`/${label}`) || page === label ? "" : `#${label}`}`;
}

const rows = (lines, drawn) => lines.filter(line => line.trim()).map(line => {
  const at = line.indexOf(": ");
  return at < 0 ? `- ${drawn(line.trim())}` : `- ${drawn(line.slice(0, at).trim())}: ${inline(line.slice(at + 2))}`;
});

const directives = {
  glossary: (_, lines) => lines.map(line => !line.trim() ? "" : /^\s/.test(line) ? `${inline(line.trim())}\n`
    : `**${line}**  `),
  reading: (_, lines) => rows(lines, page => `[${page}](/seambook/${page}.html)`),
  "source-files": (_, lines) => rows(lines, name => `\`${name}\``),
  literalinclude: title => [`[${title}](${title})`],
};

function boxed(name, title, lines) {
  const words = name === "admonition" ? title : name[0].toUpperCase() + name.slice(1) + (title ? `: ${title}` : "");
  return [`> **${words}**`, ">", ...plain(lines).map(line => `> ${line}`)];
}

function plain(lines) {
  const made = [];
  for (let at = 0; at < lines.length; at++) {
    const label = /^\(([\w.-]+)\)=\s*$/.exec(lines[at]);
    if (label) { made.push(`<a id="${escaped(label[1])}"></a>`, ""); continue; }
    const fence = FENCE.exec(lines[at]);
    if (!fence) { made.push(lines[at]); continue; }
    const [, , marks, name, title] = fence;
    let end = at + 1;
    while (end < lines.length && !(lines[end].trim().startsWith(marks) && /^[`:]+$/.test(lines[end].trim()))) end++;
    const inside = lines.slice(at + 1, end);
    if (name) {
      while (inside.length && OPTION.test(inside[0])) inside.shift();
      made.push("", ...(directives[name] ?? ((t, l) => boxed(name, t, l)))(title.trim(), inside), "");
    } else if (marks[0] === "`") {
      made.push(...lines.slice(at, end + 1));
    } else {
      made.push("", ...plain(inside), "");
    }
    at = end;
  }
  return made;
}

// Paragraph by paragraph outside code, so that a lone backquote spoils no more than its own.
function translated(source) {
  let code = false;
  const parts = plain(source.split("\n")).join("\n").split(/(\n\s*\n|^ {0,3}```.*$)/m);
  return parts.map(part => {
    if (/^ {0,3}```/.test(part)) { code = !code; return part; }
    return code ? part : inline(part);
  }).join("");
}

// ---------------------------------------------------------------- links of outputs

// Where a link of the rendered book, PAGE.html#ANCHOR, leads in the folder of the chapters.
function place(href, from) {
  const { pathname, hash } = new URL(href, `http://x/book/${from}`);
  const anchor = decodeURIComponent(hash.slice(1));
  if (facts.anchors[anchor]) return { path: facts.anchors[anchor][0], id: facts.anchors[anchor][1] };
  if (href.startsWith("#")) return { path: from, id: anchor };
  const path = facts.pages[pathname.slice(1).replace(/\.html$/, "")];
  return path ? { path, id: anchor } : null;
}

// JupyterLab makes a link to a file of it, BASE/files/PATH?...#ANCHOR.
function written(link) {
  const href = link.getAttribute("href");
  const own = /\/seambook\/([^?#]*)/.exec(href);
  if (own) return `/book/${own[1]}${link.hash}`;
  if (!/^([a-z][a-z\d+.-]*:|\/)/i.test(href)) return href;  // in a widget it stands as it was written
  const url = new URL(link.href);
  const at = url.origin === location.origin ? url.pathname.indexOf("/files/") : -1;
  return at < 0 ? "" : `/book/${url.pathname.slice(at + 7)}${url.hash}`;
}

// An anchor of the rendered book: an id (which JupyterLab keeps aside, where it trusts no HTML), or a heading by its words.
function anchored(id, node) {
  const slug = text => text.toLowerCase().replace(/[^\w\s-]/g, "").trim().replace(/\s+/g, "-");
  return node?.querySelector(`[id="${CSS.escape(id)}"], [data-jupyter-id="${CSS.escape(id)}"]`)
    ?? [...node?.querySelectorAll(":is(h1, h2, h3, h4)") ?? []].find(one => slug(one.textContent.replace("¶", "")) === id);
}

function arrive(id, node, tries = 300) {
  const found = anchored(id, node);
  if (found) {
    for (let up = found.parentElement; up && up !== node; up = up.parentElement) if (up.tagName === "DETAILS") up.open = true;
    found.scrollIntoView({ block: "center" });
    found.setAttribute("tabindex", "-1");
    found.focus({ preventScroll: true });
  }
  if (tries > 0 && !found) setTimeout(() => arrive(id, node, tries - 1), 100);
}

function activate(app, parser) {
  const before = parser.render.bind(parser);
  parser.render = source => before(translated(source));
  document.addEventListener("click", event => {
    const link = event.target.closest?.(".jp-OutputArea a[href], .jp-RenderedMarkdown a[href]");
    if (!link || event.ctrlKey || event.metaKey || event.button) return;
    const panel = link.closest(".jp-NotebookPanel, .jp-MarkdownViewer, .jp-Document");
    const from = [...app.shell.widgets("main")].find(one => one.node === panel)?.context?.path;
    const href = written(link);
    if (!from || !/\.html(#|$)|^#/.test(href)) return;
    const to = place(href, from);
    if (!to) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    app.commands.execute("docmanager:open", { path: to.path }).then(widget => {
      if (to.id) arrive(to.id, (widget ?? app.shell.currentWidget)?.node);
    });
  }, true);
}

let shared;
(window._JUPYTERLAB ??= {}).seambook = {
  init(scope) { shared = scope; },
  async get() {
    const [newest] = Object.values(shared["@jupyterlab/rendermime"]);
    const { IMarkdownParser } = (await newest.get())();
    const plugin = { id: "seambook:plugin", autoStart: true, requires: [IMarkdownParser], activate };
    return () => ({ __esModule: true, default: [plugin], translated, place });
  },
};
})();
