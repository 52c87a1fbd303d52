// Draw a digit: the demo's network answers while one draws.
(() => {
  const { made, button, said } = window.npattn;
  const SIDE = 280;
  const BOX = 20; // a digit's longer side in MNIST
  const section = document.querySelector("section.look[data-look=digit]");

  /** The drawing as the network's digits are: cut out, its longer side 20; rows of 0 to 255. null if nothing is there. */
  function cut(canvas) {
    const { data } = canvas.getContext("2d").getImageData(0, 0, SIDE, SIDE);
    let [top, left, bottom, right] = [SIDE, SIDE, -1, -1];
    for (let r = 0; r < SIDE; r++)
      for (let c = 0; c < SIDE; c++)
        if (data[4 * (r * SIDE + c) + 3] > 20) {
          top = Math.min(top, r);
          bottom = Math.max(bottom, r);
          left = Math.min(left, c);
          right = Math.max(right, c);
        }
    if (bottom < 0) return null;
    const [h, w] = [bottom - top + 1, right - left + 1];
    const scale = BOX / Math.max(h, w);
    const [H, W] = [h, w].map((side) => Math.max(1, Math.round(side * scale)));
    const rows = [];
    for (let r = 0; r < H; r++) {
      const row = [];
      for (let c = 0; c < W; c++) {
        // the mean of the ink under this pixel
        const [r0, r1] = [top + Math.floor((r * h) / H), top + Math.max(Math.floor((r * h) / H) + 1, Math.floor(((r + 1) * h) / H))];
        const [c0, c1] = [left + Math.floor((c * w) / W), left + Math.max(Math.floor((c * w) / W) + 1, Math.floor(((c + 1) * w) / W))];
        let sum = 0;
        for (let i = r0; i < r1; i++) for (let j = c0; j < c1; j++) sum += data[4 * (i * SIDE + j) + 3] || 0;
        row.push(Math.round(sum / ((r1 - r0) * (c1 - c0))));
      }
      rows.push(row);
    }
    return rows;
  }

  /** A map on a canvas of its own pixels, enlarged by CSS; over the digit, where there is one. */
  function picture(canvas, map, digit) {
    const [H, W] = [map.length, map[0].length];
    canvas.width = W;
    canvas.height = H;
    const context = canvas.getContext("2d");
    const image = context.createImageData(W, H);
    map.flat().forEach((value, n) => {
      const share = Math.max(0, Math.min(1, value));
      const ink = digit ? digit.flat()[n] / 255 : 0;
      // white over yellow to red, with the ink dark on it
      const colour = [255, 255 - 175 * share, 255 - 215 * share].map((part) => part * (1 - 0.75 * ink));
      image.data.set([...colour, 255], 4 * n);
    });
    context.putImageData(image, 0, 0);
  }

  async function start() {
    const loading = made("p", { class: "loading", role: "status" }, said("loading Python"));
    const canvas = made("canvas", { width: SIDE, height: SIDE, class: "paper", tabindex: "0", role: "application",
      "aria-label": said("Paper: draw a digit with the mouse or a finger; with the arrow keys the pen moves, with shift it draws") });
    const answer = made("p", { class: "summary", role: "status", "aria-live": "polite" }, said("Draw a digit from 0 to 9."));
    const bars = Array.from({ length: 10 }, (_, n) => {
      const meter = made("meter", { min: 0, max: 1, value: 0, "aria-label": said("probability of {0}", n) });
      return { meter, row: made("div", { class: "chance" }, made("span", {}, String(n)), meter) };
    });
    const maps = made("div", { class: "looked" });
    section.replaceChildren(
      made("div", { class: "looked" }, made("div", {}, canvas, made("div", { class: "tools" }, button(said("Clear"), () => clear()))), made("div", { class: "chances" }, ...bars.map((bar) => bar.row))),
      answer, loading, maps,
    );

    const shown = new Map();
    const figure = (name) => {
      if (!shown.has(name)) {
        const place = made("canvas", { class: "small-map", role: "img" });
        const caption = made("figcaption");
        maps.append(made("figure", { class: "maps" }, caption, place));
        shown.set(name, { place, caption });
      }
      return shown.get(name);
    };
    const put = (name, caption, map, digit) => {
      const { place, caption: told } = figure(name);
      told.textContent = caption;
      place.setAttribute("aria-label", caption);
      picture(place, map, digit);
    };

    let busy = false;
    let again = false;
    async function update() {
      if (busy) return void (again = true);
      const rows = cut(canvas);
      if (rows === null) return;
      busy = true;
      const began = performance.now();
      const { result, error } = await window.npattn.call("draw", JSON.stringify(rows));
      busy = false;
      if (error) return void (answer.textContent = error);
      if (cut(canvas) === null) return; // it was cleared since
      section.dataset.took = Math.round(performance.now() - began);
      section.dataset.answer = result.best[0];
      const percent = (m) => `${(100 * result.p[m]).toFixed(1)} %`;
      const [first, second] = result.best;
      answer.textContent = said("It is a {0}, says the network: {1}; next comes {2}, {3}.", first, percent(first), second, percent(second));
      bars.forEach(({ meter }, n) => (meter.value = result.p[n]));
      put("first", said("what speaks for {0}", first), result.cam[0], result.image);
      put("second", said("what speaks for {0}", second), result.cam[1], result.image);
      for (const [name, gate] of Object.entries(result.spatial)) put(name, said("spatial gate, {0}", name.split(".")[0]), gate);
      for (const [name, gate] of Object.entries(result.channel)) put(name, said("channel gate, {0}", name.split(".")[0]), gate.length > 32 ? [gate.slice(0, 32), gate.slice(32)] : [gate]);
      if (again) {
        again = false;
        update();
      }
    }

    const pen = canvas.getContext("2d", { willReadFrequently: true });
    Object.assign(pen, { lineWidth: 24, lineCap: "round", lineJoin: "round", strokeStyle: getComputedStyle(canvas).color });
    let last = null;
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      return [((event.clientX - box.left) * SIDE) / box.width, ((event.clientY - box.top) * SIDE) / box.height];
    };
    const line = (to) => {
      pen.beginPath();
      pen.moveTo(...last);
      pen.lineTo(...to);
      pen.stroke();
      last = to;
      update();
    };
    function clear() {
      pen.clearRect(0, 0, SIDE, SIDE);
      answer.textContent = said("Draw a digit from 0 to 9.");
      delete section.dataset.answer;
    }
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      last = at(event);
      line(last);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (last !== null && event.buttons) line(at(event));
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (last = null));

    let where = [SIDE / 2, SIDE / 4];
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowUp: [0, -14], ArrowDown: [0, 14], ArrowLeft: [-14, 0], ArrowRight: [14, 0] }[event.key];
      if (!step) return;
      event.preventDefault();
      const to = where.map((value, n) => Math.max(14, Math.min(SIDE - 14, value + step[n])));
      if (event.shiftKey) {
        last = where;
        line(to);
        last = null;
      }
      where = to;
    });

    window.npattn.watchers.add((state) => {
      if (state.total) loading.textContent = said("loading Python: {0} of {1} MB; you may draw already", (state.loaded / 1e6).toFixed(1), (state.total / 1e6).toFixed(1));
    });
    await window.npattn.file("digits.npz");
    await window.npattn.call("draw", JSON.stringify([[255]])); // the first one takes longer: not while somebody draws
    loading.remove();
    section.dataset.ready = "yes";
    update();
  }

  section.querySelector("[data-begin]").addEventListener("click", async (event) => {
    if (location.protocol === "file:") {
      section.append(made("p", { class: "as-file", role: "status" }, said("A page that is opened as a file may run nothing. In a terminal, in the project's folder, type "), made("code", {}, "npattn docs")));
      return;
    }
    event.target.disabled = true;
    try {
      await start();
    } catch (error) {
      section.append(made("p", { role: "status" }, said("It could not be loaded: {0}", error.message)));
    }
  });
})();
