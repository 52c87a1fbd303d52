// Python in a worker: the page stays alive whatever the reader's code does, and can end it. Told what to do by live.js.
import { loadPyodide } from "./pyodide/pyodide.mjs";

const here = new URL("./", import.meta.url);
const say = (message) => self.postMessage(message);

// What is loaded passes here, so that the page can show how much has come.
const ask = self.fetch.bind(self);
let loaded = 0;
self.fetch = async (...request) => {
  const answer = await ask(...request);
  if (!answer.ok || !answer.body) return answer;
  const counting = new TransformStream({
    transform(part, on) {
      loaded += part.byteLength;
      say({ loaded });
      on.enqueue(part);
    },
  });
  return new Response(answer.body.pipeThrough(counting), { status: answer.status, headers: answer.headers });
};

async function start() {
  const files = await (await ask(new URL("files.json", here))).json();
  say({ total: files.total });
  const python = await loadPyodide({ indexURL: new URL("pyodide/", here).href });
  await python.loadPackage(new URL(files.numpy, here).href, { checkIntegrity: false });
  const library = await (await self.fetch(new URL(files.npattn, here))).arrayBuffer();
  say({ stage: "starting npattn" });
  python.unpackArchive(library, "zip", { extractDir: "/lib/npattn_site" });
  python.runPython("import sys; sys.path.insert(0, '/lib/npattn_site')");
  for (const file of ["page.py", "look.py", "draw.py"]) python.runPython(await (await ask(new URL(file, here))).text());
  return python;
}

const ready = start();
ready.then(() => say({ ready: true }), (error) => say({ failed: String(error) }));

self.onmessage = async ({ data }) => {
  const python = await ready;
  const printed = [];
  python.setStdout({ batched: (line) => printed.length < 200 && printed.push(line) });
  python.setStderr({ batched: (line) => printed.length < 200 && printed.push(line) });
  try {
    if (data.file) {
      const content = await (await self.fetch(new URL(data.file, here))).arrayBuffer();
      python.FS.writeFile(`/${data.file}`, new Uint8Array(content));
      return say({ id: data.id, result: data.file });
    }
    const call = python.globals.get(data.call);
    const result = JSON.parse(call(...data.arguments));
    call.destroy();
    say({ id: data.id, result, printed: printed.join("\n") });
  } catch (error) {
    say({ id: data.id, error: String(error.message || error), printed: printed.join("\n") });
  }
};
