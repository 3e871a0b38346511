// Compiles Python sources with the very Python that pages run, so that no reader waits for it.  Run by live.py:
//   node compile.mjs FOLDER-OF-PYODIDE GIVEN.zip MADE.zip
// GIVEN.zip has sources under the names that they have in the page's file system; MADE.zip has, under the same names,
// their code as a .pyc that is taken without a look at the source (PEP 552, unchecked), and in cache-tag the Python.
import { readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, given, made] = process.argv.slice(2).map(path => resolve(path));
const { loadPyodide } = await import(pathToFileURL(`${folder}/pyodide.mjs`).href);
// Without columns: they would be a fifth of the code, for marks below the lines of a traceback.
const python = await loadPyodide({ indexURL: `${folder}/`, env: { HOME: "/", PYTHONNODEBUGRANGES: "1" } });
python.FS.writeFile("/given.zip", readFileSync(given));
python.runPython(`
import importlib.util, marshal, sys, zipfile

with zipfile.ZipFile("/given.zip") as given, zipfile.ZipFile("/made.zip", "w") as made:
    made.writestr("cache-tag", sys.implementation.cache_tag)
    for name in given.namelist():
        source = given.read(name)
        code = compile(source, "/" + name, "exec", dont_inherit=True)
        head = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + importlib.util.source_hash(source)
        made.writestr(name, head + marshal.dumps(code))
`);
writeFileSync(made, python.FS.readFile("/made.zip"));
process.exit(0);
