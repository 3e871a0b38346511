// Python in a worker, so that the page stays responsive.  A module: everything it loads lies beside it.
// The page (live.js) sends {id, name, args}; the answer is {id, value} or {id, error}.
import { loadPyodide } from "./pyodide.mjs";

const here = new URL("./", import.meta.url).href;
const root = "/seambook/";
let kernel, python;

// What live.py packed: gzip of a length (4 bytes), an index of so many bytes, [[name, bytes], ...], and the contents.
async function packed(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${address}: ${answer.status}`);
  const open = answer.body.pipeThrough(new DecompressionStream("gzip"));
  const bytes = new Uint8Array(await new Response(open).arrayBuffer());
  let at = 4 + new DataView(bytes.buffer).getUint32(0);
  return JSON.parse(new TextDecoder().decode(bytes.subarray(4, at)))
    .map(([name, size]) => [name, bytes.subarray(at, at += size)]);
}

const doing = {
  async begin({ page, interrupt }) {
    const files = packed(here + "python.pack");
    python = await loadPyodide({ indexURL: here, stdLibURL: here + "stdlib.zip", checkAPIVersion: true });
    python.setStdin({ error: true });  // input() says at once that nobody can answer
    const made = new Set();
    for (const [name, bytes] of await files) {
      const folder = (root + name).slice(0, (root + name).lastIndexOf("/"));
      if (!made.has(folder)) python.FS.mkdirTree(folder);
      made.add(folder);
      python.FS.writeFile(root + name, bytes, { canOwn: true });
    }
    python.runPython(`import sys; sys.path.insert(0, "${root.slice(0, -1)}")`);
    kernel = python.pyimport("seambook_kernel");
    if (interrupt) python.setInterruptBuffer(interrupt);
    return kernel.begin(root.slice(0, -1), page);
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
