// Look inside: a block of 2×5×5 numbers that one changes; its gates, y and dx follow. And who reads which pixel.
(() => {
  const { made, button, said, show } = window.npattn;
  // what look.py calls things
  const given = {
    straight: said("straight"), "through the gate": said("through the gate"), "through the spatial gate": said("through the spatial gate"),
    "through the channel gate": said("through the channel gate"), "through both gates": said("through both gates"),
    "of the mean": said("of the mean"), "of the maximum": said("of the maximum"),
  };
  const SIDE = 5;
  const COUNT = 2 * SIDE * SIDE;

  // Blue below 0, red above; the number is there as well, for those who see no colours.
  const paint = (cell, value, most) => {
    const share = Math.min(Math.abs(value) / (most || 1), 1);
    cell.style.setProperty("--share", `${Math.round(75 * share)}%`);
    cell.style.setProperty("--tone", value < 0 ? "var(--fig-forward)" : "var(--fig-back)");
    cell.textContent = Math.abs(value) < 0.005 ? "0" : value.toFixed(Math.abs(value) < 9.95 ? 2 : 0).replace("-", "−");
  };
  const grid = (cells, label) => made("div", { class: "map", role: "group", "aria-label": label }, ...cells);
  const figure = (name, ...maps) => made("figure", { class: "maps" }, made("figcaption", {}, name), made("div", {}, ...maps));
  const halves = (cells, label) => [0, 1].map((c) => grid(cells.slice(c * 25, c * 25 + 25), `${label}, channel ${c}`));

  // Cells that are changed by dragging up and down, by the wheel's place on a keyboard, or by typing 0.
  const editable = (name, values, changed) => {
    const cells = values.map((value, i) => {
      const where = `${name} ${Math.floor(i / 25)}, ${Math.floor((i % 25) / SIDE)}, ${i % SIDE}`;
      const cell = made("button", { type: "button", class: "cell", role: "slider", "aria-label": where });
      const set = (next) => {
        values[i] = Math.max(-9, Math.min(9, Math.round(next * 100) / 100));
        paint(cell, values[i], 3);
        cell.setAttribute("aria-valuenow", values[i]);
      };
      set(value);
      let from = null;
      cell.addEventListener("pointerdown", (event) => {
        from = { y: event.clientY, value: values[i] };
        cell.setPointerCapture(event.pointerId);
      });
      cell.addEventListener("pointermove", (event) => {
        if (from === null) return;
        set(from.value + (from.y - event.clientY) / 30);
        changed();
      });
      for (const end of ["pointerup", "pointercancel"]) cell.addEventListener(end, () => (from = null));
      cell.addEventListener("keydown", (event) => {
        const step = { ArrowUp: 0.1, ArrowDown: -0.1, PageUp: 1, PageDown: -1 }[event.key];
        if (step === undefined && event.key !== "0") return;
        event.preventDefault();
        set(step === undefined ? 0 : values[i] + step);
        changed();
      });
      return cell;
    });
    return cells;
  };
  const plain = (count) => Array.from({ length: count }, () => made("span", { class: "cell" }));
  const fill = (cells, values, least = 0) => {
    const most = Math.max(least, ...values.map(Math.abs));
    cells.forEach((cell, i) => paint(cell, values[i], most));
  };

  // Numbers that are the same for everyone, of both signs.
  const numbers = (seed) => {
    let state = seed;
    const next = () => ((state = (state * 48271) % 2147483647) / 2147483647);
    return Array.from({ length: COUNT }, () => Math.round(100 * (next() + next() + next() - 1.5) * 2) / 100);
  };

  async function block(section) {
    const name = section.dataset.look;
    const x = numbers(7);
    const dy = numbers(11);
    const off = new Set();
    let seed = 9; // with these numbers no unit is shut
    const loading = made("p", { class: "loading" }, said("loading Python"));
    section.replaceChildren(loading);
    window.npattn.watchers.add((state) => {
      if (state.total) loading.textContent = said("loading Python: {0} of {1} MB", (state.loaded / 1e6).toFixed(1), (state.total / 1e6).toFixed(1));
    });

    const gates = { "channel gate": plain(2), ...(name === "cbam" ? { "spatial gate": plain(25) } : {}) };
    const maps = { y: plain(COUNT), dx: plain(COUNT) };
    const ways = made("fieldset", { class: "ways" }, made("legend", {}, said("ways on which dx comes back")));
    const units = made("p", { class: "units", role: "status" });
    const verdict = made("div", { class: "verdict", role: "status", "aria-live": "polite" });

    const asked = () => [name, seed, JSON.stringify(x), JSON.stringify(dy), JSON.stringify([...off])];
    let busy = false;
    let again = false;
    let later = 0;
    async function update() {
      if (busy) return void (again = true);
      busy = true;
      const { result, error } = await window.npattn.call("look", ...asked());
      busy = false;
      if (error) return void (units.textContent = error);
      for (const [gate, cells] of Object.entries(gates)) fill(cells, result.gates[gate], 1);
      for (const [map, cells] of Object.entries(maps)) fill(cells, result.maps[map], 1);
      units.replaceChildren(
        ...Object.entries(result.hidden).flatMap(([of, z]) => [
          made("span", {}, said("hidden units {0}: ", given[of] ?? of)),
          ...z.map((value) => made("span", { class: value > 0 ? "unit" : "unit shut" }, `${value.toFixed(2)} ` + (value > 0 ? said("open") : said("shut")))),
        ]),
      );
      if (!ways.querySelector("input")) {
        for (const way of result.ways) {
          const box = made("input", { type: "checkbox", checked: "" });
          box.addEventListener("change", () => {
            if (box.checked) off.delete(way);
            else off.add(way);
            update();
          });
          ways.append(made("label", {}, box, ` ${given[way] ?? way}`));
        }
      }
      section.dataset.drawn = Number(section.dataset.drawn || 0) + 1;
      if (again) {
        again = false;
        return void update();
      }
      clearTimeout(later);
      later = setTimeout(judge, 300);
    }
    async function judge() {
      const { result } = await window.npattn.call("look_check", ...asked());
      if (result) show(verdict, result, "");
    }

    const others = button(said("Other weights"), () => {
      seed += 1;
      update();
    });
    const body = [
      figure(said("x, drag a number up or down"), ...halves(editable("x", x, update), "x")),
      figure(said("channel gate"), grid(gates["channel gate"], said("channel gate"))),
      ...(name === "cbam" ? [figure(said("spatial gate"), grid(gates["spatial gate"], said("spatial gate")))] : []),
      figure("y", ...halves(maps.y, "y")),
      figure(said("dy, drag it too"), ...halves(editable("dy", dy, update), "dy")),
      figure("dx", ...halves(maps.dx, "dx")),
    ];
    await update();
    loading.replaceWith(made("div", { class: "looked" }, ...body), units, ways, others, verdict);
  }

  // The kernel: which pixel does y read at (i, j), and to whom does its gradient go back. Nothing is loaded for this.
  function kernel(section) {
    const size = 7;
    const side = 9;
    const q = (size - 1) / 2;
    let [i, j] = [1, 5];
    let [h, v] = [4, 4];
    const choose = (count, label, act) =>
      Array.from({ length: count * count }, (_, n) => {
        const [a, b] = [Math.floor(n / count), n % count];
        const cell = made("button", { type: "button", class: "cell small", "aria-label": `${label} ${a}, ${b}` });
        cell.addEventListener("click", () => (act(a, b), draw()));
        return cell;
      });
    const w = choose(size, "w", (a, b) => ([i, j] = [a, b]));
    const y = choose(side, "y", (a, b) => ([h, v] = [a, b]));
    const x = Array.from({ length: side * side }, () => made("span", { class: "cell small" }));
    const told = made("p", { role: "status" });
    const mapOf = (cells, count, label) => {
      const map = grid(cells, label);
      map.style.setProperty("--columns", count);
      return map;
    };
    const draw = () => {
      w.forEach((cell, n) => cell.classList.toggle("chosen", n === i * size + j));
      y.forEach((cell, n) => cell.classList.toggle("chosen", n === h * side + v));
      const [a, b] = [h + i - q, v + j - q];
      const inside = a >= 0 && a < side && b >= 0 && b < side;
      x.forEach((cell, n) => {
        const [r, c] = [Math.floor(n / side), n % side];
        cell.classList.toggle("window", Math.abs(r - h) <= q && Math.abs(c - v) <= q);
        cell.classList.toggle("chosen", inside && r === a && c === b);
      });
      const forward = said("Forward, y({0}, {1}) gathers w({2}, {3}) · x({4}, {5}).", h, v, i, j, a, b);
      const backward = said("Backward, dy({0}, {1}) · w({2}, {3}) is added to dx({4}, {5}), which is the entry ({6}, {7}) of the kernel turned round, seen from x.", h, v, i, j, a, b, size - 1 - i, size - 1 - j);
      const gains = said("And dw({0}, {1}) gains dy({2}, {3}) · x({4}, {5}).", i, j, h, v, a, b);
      const outside = said("Forward, w({0}, {1}) meets the padding outside of x: a zero. Backward, nothing comes from y({2}, {3}) through it.", i, j, h, v);
      told.textContent = inside ? `${forward} ${backward} ${gains}` : outside;
    };
    section.replaceChildren(
      made("div", { class: "looked" }, figure(said("w: choose (i, j)"), mapOf(w, size, "w")), figure(said("y: choose a pixel"), mapOf(y, side, "y")), figure(said("x: who is read"), mapOf(x, side, "x"))),
      told,
    );
    draw();
  }

  for (const section of document.querySelectorAll("section.look")) {
    const begin = section.querySelector("[data-begin]");
    begin.addEventListener("click", async () => {
      if (section.dataset.look === "kernel") return kernel(section);
      if (location.protocol === "file:") {
        section.append(made("p", { class: "as-file", role: "status" }, said("A page that is opened as a file may run nothing. In a terminal, in the project's folder, type "), made("code", {}, "npattn docs")));
        return;
      }
      begin.disabled = true;
      try {
        await block(section);
      } catch (error) {
        section.replaceChildren(made("p", { role: "status" }, said("It could not be loaded: {0}", error.message)));
      }
    });
  }
})();
