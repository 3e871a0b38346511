// Python in a worker, so that the page stays responsive.  A module: everything it loads lies beside it.
// The page (live.js) sends {id, name, args}; the answer is {id, value} or {id, error}.
import { loadPyodide } from "./pyodide.mjs";

const here = new URL("./", import.meta.url).href;
let kernel, python;

const doing = {
  async begin({ page, interrupt }) {
    const archive = fetch(here + "python.zip");
    python = await loadPyodide({ indexURL: here, checkAPIVersion: true });
    python.setStdin({ error: true });  // input() says at once that nobody can answer
    const answer = await archive;
    if (!answer.ok) throw new Error(`python.zip: ${answer.status}`);
    python.unpackArchive(await answer.arrayBuffer(), "zip", { extractDir: "/seambook" });
    python.runPython("import sys; sys.path.insert(0, '/seambook')");
    kernel = python.pyimport("seambook_kernel");
    if (interrupt) python.setInterruptBuffer(interrupt);
    return kernel.begin("/seambook", page);
  },
  run({ source, printed }) { return JSON.parse(kernel.run(source, printed)); },
  call({ name, args }) { return JSON.parse(kernel.call(name, JSON.stringify(args))); },
  write({ path, bytes }) {
    const folder = path.slice(0, path.lastIndexOf("/"));
    if (folder) python.FS.mkdirTree(folder);
    python.FS.writeFile(path, new Uint8Array(bytes));
  },
};

let before = Promise.resolve();  // one thing after the other, also where a step waits
onmessage = ({ data: { id, name, args } }) => {
  before = before.then(async () => {
    try {
      postMessage({ id, value: await doing[name](args) });
    } catch (error) {
      postMessage({ id, error: String(error?.message ?? error) });
    }
  });
};
