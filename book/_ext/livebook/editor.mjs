// The editor of a live cell: CodeMirror 6 with Python's syntax and nothing that a short cell does not need.
// Bundled by esbuild into one file; see live.py.
import { defaultKeymap, history, historyKeymap } from "@codemirror/commands";
import { python } from "@codemirror/lang-python";
import { bracketMatching, indentUnit, syntaxHighlighting } from "@codemirror/language";
import { EditorState, Prec } from "@codemirror/state";
import { EditorView, drawSelection, highlightSpecialChars, keymap } from "@codemirror/view";
import { classHighlighter } from "@lezer/highlight";

// Tab is not taken: it leads on to the Run button, as everywhere on the page. Colours are the book's (live.css).
export function editor(parent, { text, label, run, changed }) {
  const view = new EditorView({
    parent,
    state: EditorState.create({
      doc: text,
      extensions: [
        Prec.highest(keymap.of(["Shift-Enter", "Mod-Enter"].map(key => ({ key, run: () => { run(); return true; } })))),
        history(),
        drawSelection(),
        highlightSpecialChars(),
        bracketMatching(),
        EditorView.lineWrapping,  // nothing to scroll sideways, also on a phone
        indentUnit.of("    "),
        python(),
        syntaxHighlighting(classHighlighter),
        keymap.of([...defaultKeymap, ...historyKeymap]),
        EditorView.contentAttributes.of({ "aria-label": label, spellcheck: "false", autocapitalize: "off" }),
        EditorView.updateListener.of(update => { if (update.docChanged) changed(); }),
      ],
    }),
  });
  return {
    get text() { return view.state.doc.toString(); },
    set text(doc) { view.dispatch({ changes: { from: 0, to: view.state.doc.length, insert: doc } }); },
    focus() { view.focus(); },
  };
}
