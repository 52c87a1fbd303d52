// The exercises of a page. Until a button is pressed nothing is asked for; then the editor, and Python in a worker.
(() => {
  const script = document.currentScript;
  const base = new URL(script.dataset.base ?? "./", script.src);

  // Its words in the language of the page, with the values put in for {0}, {1}, …
  const words = JSON.parse(document.getElementById("words")?.textContent ?? "{}");
  const said = (text, ...values) => (words[text] ?? text).replace(/\{(\d)\}/g, (_, n) => values[n]);

  // What the reader has done stays in this browser, where that may be.
  const keep = (key, value) => {
    try {
      if (value === null) localStorage.removeItem(`npattn.${key}`);
      else localStorage.setItem(`npattn.${key}`, value);
      return true;
    } catch {
      return false;
    }
  };
  const kept = (key) => {
    try {
      return localStorage.getItem(`npattn.${key}`);
    } catch {
      return null;
    }
  };

  const made = (tag, attributes = {}, ...inside) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...inside);
    return element;
  };
  const button = (text, act, attributes = {}) => {
    const element = made("button", { type: "button", class: "live-button", ...attributes }, text);
    element.addEventListener("click", act);
    return element;
  };

  // Python: one worker for the page. It can be ended at any moment; the next call starts another.
  const python = {
    worker: null,
    ready: null,
    waiting: new Map(),
    watchers: new Set(),
    total: 0,
    count: 0,
    tell(state) {
      for (const watch of this.watchers) watch(state);
    },
    start() {
      if (this.ready) return this.ready;
      this.ready = new Promise((resolve, reject) => {
        const fail = (why) => {
          this.stop(why);
          reject(new Error(why));
        };
        this.worker = new Worker(new URL("worker.js", base), { type: "module" });
        this.worker.onerror = (event) => fail(event.message || said("the worker could not be loaded"));
        this.worker.onmessage = ({ data }) => {
          if (data.total) this.total = data.total;
          if (data.loaded) this.tell({ loaded: data.loaded, total: this.total });
          if (data.stage) this.tell({ stage: data.stage });
          if (data.failed) fail(data.failed);
          if (data.ready) {
            this.tell({ ready: true });
            resolve();
          }
          if (data.id !== undefined) {
            const call = this.waiting.get(data.id);
            this.waiting.delete(data.id);
            if (call) call.resolve(data);
          }
        };
      });
      return this.ready;
    },
    async send(message) {
      await this.start();
      return new Promise((resolve, reject) => {
        const id = ++this.count;
        this.waiting.set(id, { resolve, reject });
        this.worker.postMessage({ id, ...message });
      });
    },
    call(name, ...given) {
      return this.send({ call: name, arguments: given });
    },
    stop(why) {
      if (this.worker) this.worker.terminate();
      this.worker = this.ready = null;
      for (const call of this.waiting.values()) call.reject(new Error(why));
      this.waiting.clear();
      this.tell({ stopped: true });
    },
  };


  // A verdict as the page shows it: npattn.exercises.judge has written every word of it.
  const table = (verdict, trial) => {
    const rows = verdict.rows.filter((row) => row.trial === trial);
    const body = made("tbody");
    for (const row of rows) {
      const line = made("tr", { class: row.wrong ? "is-wrong" : row.passed ? "is-right" : "" });
      for (const cell of row.cells) line.append(made("td", {}, cell));
      body.append(line);
      if (row.wrong) {
        const told = made("td", { colspan: verdict.head.length }, made("div", { class: "worst" }, row.wrong));
        if (row.cause) told.append(made("div", { class: "cause" }, made("strong", {}, said("Likely cause: ")), row.cause));
        body.append(made("tr", { class: "is-wrong why" }, told));
      }
    }
    const head = made("tr", {}, ...verdict.head.map((name) => made("th", {}, name)));
    return made("div", { class: "verdict-table" }, made("table", {}, made("caption", {}, trial), made("thead", {}, head), body));
  };

  const show = (place, verdict, printed) => {
    place.replaceChildren(made("p", { class: verdict.solved ? "summary solved" : "summary" }, verdict.summary));
    for (const trial of new Set(verdict.rows.map((row) => row.trial))) place.append(table(verdict, trial));
    for (const problem of verdict.problems) place.append(made("p", { class: "problem" }, problem.trim()));
    if (printed) place.append(made("p", { class: "printed" }, said("What your code printed:")), made("pre", {}, printed));
  };

  // For look.js, for the console, and for tests
  window.npattn = {
    call: (...given) => python.call(...given),
    file: (name) => python.send({ file: name }),
    watchers: python.watchers,
    made,
    button,
    said,
    show,
  };

  const mark = (section) => {
    section.querySelector(".exercise-mark").hidden = kept(`solved.${section.dataset.exercise}`) === null;
  };

  async function begin(section) {
    const name = section.dataset.exercise;
    const given = JSON.parse(section.querySelector("script[type='application/json']").textContent);
    const place = section.querySelector(".exercise-begin");
    const { makeEditor } = await import(new URL("editor.js", base));

    const bar = made("progress", { max: 1, value: 0, "aria-label": said("loading Python") });
    const stage = made("span", {}, said("loading Python"));
    const loading = made("div", { class: "loading" }, bar, stage);
    const verdict = made("div", { class: "verdict", role: "status", "aria-live": "polite" });
    const hints = made("ol", { class: "hints" });
    const field = made("div", { class: "field" });

    let running = false;
    const editor = makeEditor(
      field, kept(`text.${name}`) ?? given.start, `Python: ${given.title}`,
      (text) => {
        if (!keep(`text.${name}`, text)) stage.textContent = said("this browser does not keep what you write");
      },
      () => check(),
    );

    async function check() {
      if (running) return;
      running = true;
      checking.disabled = true;
      stopping.disabled = false;
      verdict.replaceChildren(made("p", { class: "summary" }, python.ready ? said("checking …") : said("starting Python …")));
      try {
        const answer = await python.call("check", name, editor.text());
        if (answer.error) throw new Error(answer.error);
        show(verdict, answer.result, answer.printed);
        if (answer.result.solved) {
          keep(`solved.${name}`, "1");
          mark(section);
        } else {
          const line = /^could not be run: line (\d+)/.exec(answer.result.summary);
          if (line) editor.goTo(Number(line[1]));
        }
      } catch (error) {
        verdict.replaceChildren(made("p", { class: "summary" }, error.message));
      }
      running = false;
      checking.disabled = false;
      stopping.disabled = true;
    }

    const checking = button(said("Check"), check, { title: "Ctrl-Enter" });
    const stopping = button(said("Stop"), () => python.stop(said("stopped: Check starts Python again")), { disabled: "" });
    let told = 0;
    const hinting = button(said("Hint {0} of {1}", 1, given.hints.length), () => {
      hints.append(made("li", {}, given.hints[told++]));
      const left = told < given.hints.length;
      hinting.textContent = left ? said("Hint {0} of {1}", told + 1, given.hints.length) : said("No more hints");
      hinting.disabled = !left;
      answering.disabled = left;
    });
    const answering = button(said("Answer"), () => {
      hints.after(made("details", { open: "", class: "fold" }, made("summary", {}, said("An answer")), made("pre", {}, given.answer)));
      answering.disabled = true;
    }, given.hints.length ? { disabled: "", title: said("after the last hint") } : {});
    const reset = button(said("Reset"), () => {
      editor.set(given.start);
      keep(`text.${name}`, null);
      verdict.replaceChildren();
      editor.focus();
    });

    python.watchers.add((state) => {
      if (state.total) {
        const megabytes = (bytes) => (bytes / 1e6).toFixed(1);
        bar.max = state.total;
        bar.value = Math.min(state.loaded, state.total);
        stage.textContent = said("loading Python: {0} of {1} MB", megabytes(bar.value), megabytes(state.total));
      }
      if (state.stage) stage.textContent = said("starting npattn");
      if (state.ready || state.stopped) loading.hidden = true;
      else loading.hidden = false;
    });

    const keys = made("p", { class: "keys" }, said("Ctrl-Enter checks, Tab leaves the editor. What you type stays in this browser."));
    const tools = made("div", { class: "tools" }, checking, stopping, hinting, answering, reset);
    place.replaceWith(field, keys, tools, loading, verdict, hints);
    if (python.worker && (await Promise.race([python.ready.then(() => true), Promise.resolve(false)]))) loading.hidden = true;
    editor.focus();
    python.start().catch((error) => {
      verdict.replaceChildren(made("p", { class: "summary" }, said("Python could not be loaded: {0}", error.message)));
    });
  }

  const asFile = location.protocol === "file:";
  for (const section of document.querySelectorAll("section.exercise")) {
    mark(section);
    const pressed = section.querySelector("[data-begin]");
    pressed.addEventListener("click", async () => {
      if (asFile) {
        const told = said("A page that is opened as a file may run nothing. In a terminal, in the project's folder, type ");
        const why = made("p", { class: "as-file", role: "status" }, told, made("code", {}, "npattn docs"));
        why.append(said(": it opens this site from your own machine, and there it runs."));
        section.querySelector(".as-file")?.remove();
        section.querySelector(".exercise-begin").after(why);
        return;
      }
      pressed.disabled = true;
      pressed.textContent = said("loading …");
      try {
        await begin(section);
      } catch (error) {
        pressed.disabled = false;
        pressed.textContent = said("could not be loaded ({0}); try again", error.message);
      }
    });
  }

  const rows = [...document.querySelectorAll("[data-progress]")];
  let solved = 0;
  for (const row of rows) {
    const done = kept(`solved.${row.dataset.progress}`) !== null;
    row.querySelector(".progress-mark").textContent = done ? said("✓ solved") : kept(`text.${row.dataset.progress}`) ? said("begun") : "";
    solved += done;
  }
  for (const told of document.querySelectorAll(".progress-told")) told.textContent = said("Solved in this browser: {0} of {1}.", solved, rows.length);
})();
