// Chapter 3: rows and columns of a small picture, moved by hand or exchanged by maxvol.
(function () {
  "use strict";
  const math = globalThis.cpicMath;
  const { make, number, speaker } = globalThis.cpicPage;
  const START = 4, MOST = 8, REACH = 30; // ranks, and pixels from which a pivot can be caught

  const picture = (figure) => {
    const bytes = atob(figure.dataset.values), [m, n] = figure.dataset.shape.split(" ").map(Number);
    return Array.from({ length: m }, (_, i) =>
      Array.from({ length: n }, (_, j) => bytes.charCodeAt(i * n + j) / 255));
  };
  // Three Gaussians: a matrix of rank 3.
  const bells = (m, n) => {
    const bell = (x, at, width) => Math.exp(-(((x - at) / width) ** 2));
    const parts = [[0.3, 0.25, 0.2, 1], [0.7, 0.6, 0.15, 0.8], [0.4, 0.8, 0.25, 0.6]];
    return Array.from({ length: m }, (_, i) => Array.from({ length: n }, (_, j) =>
      parts.reduce((s, [y, x, w, h]) => s + h * bell(i / m, y, w) * bell(j / n, x, w), 0)));
  };

  const paint = (canvas, a, color) => {
    const [m, n] = [a.length, a[0].length];
    [canvas.width, canvas.height] = [n, m];
    const context = canvas.getContext("2d"), image = context.createImageData(n, m);
    a.forEach((row, i) => row.forEach((x, j) => image.data.set([...color(x), 255], 4 * (i * n + j))));
    context.putImageData(image, 0, 0);
  };
  const part = (x) => Math.max(0, Math.min(1, x));
  const gray = (x) => Array(3).fill(255 * part(x));
  // Blue, white, orange, from -0.5 to 0.5.
  const signed = (x) => {
    const end = x < 0 ? [0, 90, 160] : [200, 80, 0], share = part(2 * Math.abs(x));
    return end.map((c) => 255 + share * (c - 255));
  };

  const start = (figure) => {
    const matrices = { brain: picture(figure) };
    const [m, n] = [matrices.brain.length, matrices.brain[0].length];
    matrices.bells = bells(m, n);
    const values = Object.fromEntries(
      Object.entries(matrices).map(([name, a]) => [name, math.singularValues(a)]));
    let name = "brain", rank = START, rows = [], cols = [], a;

    // What the reader sees and moves.
    const canvases = {};
    const panel = (key, title, bar) => {
      canvases[key] = make("canvas", { role: "img", "aria-label": title });
      const head = make("p", { class: "cpic-title" }, title);
      const box = make("div", { class: "cpic-box" }, canvases[key]);
      return make("div", { class: `cpic-panel cpic-${key}` }, head, box,
        make("div", { class: `cpic-bar cpic-bar-${bar}`, "aria-hidden": "true" },
          ...(bar === "gray" ? ["0", "1"] : ["−0.5", "0", "0.5"]).map((t) => make("span", {}, t))));
    };
    const panels = make("div", { class: "cpic-panels" }, panel("matrix", "matrix", "gray"),
      panel("skeleton", "skeleton", "gray"), panel("error", "error", "signed"));
    const field = panels.querySelector(".cpic-matrix .cpic-box");
    const choices = make("div", { class: "cpic-buttons", role: "group", "aria-label": "Matrix" });
    for (const [key, text] of [["brain", "slice of a brain"], ["bells", "three Gaussians"]]) {
      const button = make("button", { type: "button", "data-name": key }, text);
      button.addEventListener("click", () => { name = key; anew(); });
      choices.append(button);
    }
    const id = `${figure.dataset.explorable}-rank`;
    const slider = make("input", { type: "range", id, min: 1, max: MOST, step: 1, value: rank,
      autocomplete: "off" });
    const shown = make("output", { for: id, "aria-live": "off" }, String(rank));
    slider.addEventListener("input", () => { rank = +slider.value; anew(); });
    const actions = make("div", { class: "cpic-buttons", role: "group", "aria-label": "Pivots" });
    const act = (key, text, action) => {
      const button = make("button", { type: "button", "data-action": key }, text);
      button.addEventListener("click", action);
      actions.append(button);
      return button;
    };
    act("step", "maxvol step", () => step());
    act("all", "maxvol until it stops", () => { for (let k = 0; k < 200 && step(); k++); });
    act("random", "draw at random", () => { [rows, cols] = [draw(m), draw(n)]; show("Drawn at random."); });
    const facts = make("dl", { class: "cpic-facts" });
    const caption = make("figcaption", {});
    const { node: status, speak } = speaker();
    figure.replaceChildren();
    figure.append(
      make("div", { class: "cpic-controls" },
        make("label", { for: id }, "rank"), slider, shown),
      choices, panels, actions, facts, caption, status);

    // Pivots are sliders of their own: they take the keyboard.
    const lines = [];
    const pivots = (side) => (side === "row" ? rows : cols);
    const size = (side) => (side === "row" ? m : n);
    const move = (line, to, by) => {
      const { side, place } = line, kept = pivots(side), last = size(side) - 1;
      to = Math.max(0, Math.min(last, to));
      // Two pivots cannot be one index: go on in the direction of the move, or stay.
      while (kept.some((x, k) => k !== place && x === to)) to += by;
      if (to < 0 || to > last || to === kept[place]) return;
      kept[place] = to;
      show("");
    };
    const KEYS = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, PageUp: -5, PageDown: 5 };
    const build = () => {
      lines.splice(0).forEach((line) => line.node.remove());
      for (const side of ["row", "column"]) {
        pivots(side).forEach((_, place) => {
          const node = make("div", { class: `cpic-pivot cpic-pivot-${side}`, role: "slider",
            tabindex: 0, "aria-orientation": side === "row" ? "vertical" : "horizontal",
            "aria-label": `pivot ${side} ${place + 1} of ${rank}`, "aria-valuemin": 1,
            "aria-valuemax": size(side) });
          const line = { side, place, node };
          node.addEventListener("keydown", (event) => {
            const at = pivots(side)[place];
            if (event.key in KEYS) move(line, at + KEYS[event.key], Math.sign(KEYS[event.key]));
            else if (event.key === "Home") move(line, 0, 1);
            else if (event.key === "End") move(line, size(side) - 1, -1);
            else return;
            event.preventDefault();
          });
          lines.push(line);
          field.append(node);
        });
      }
    };

    // The pointer takes the nearest pivot, so that a thin line can be caught by a finger.
    const place = (event) => {
      const box = canvases.matrix.getBoundingClientRect();
      return { row: ((event.clientY - box.top) / box.height) * m,
        column: ((event.clientX - box.left) / box.width) * n, cell: box.width / n };
    };
    field.addEventListener("pointerdown", (event) => {
      const at = place(event);
      const far = (line) => Math.abs(pivots(line.side)[line.place] + 0.5 - at[line.side]) * at.cell;
      const nearest = lines.reduce((x, y) => (far(y) < far(x) ? y : x));
      if (far(nearest) > REACH) return;
      event.preventDefault();
      nearest.node.focus({ preventScroll: true });
      field.setPointerCapture(event.pointerId);
      const drag = (e) => {
        const to = Math.floor(place(e)[nearest.side]), now = pivots(nearest.side)[nearest.place];
        move(nearest, to, Math.sign(to - now) || 1);
      };
      const stop = () => {
        field.removeEventListener("pointermove", drag);
        for (const end of ["pointerup", "pointercancel"]) field.removeEventListener(end, stop);
      };
      field.addEventListener("pointermove", drag);
      for (const end of ["pointerup", "pointercancel"]) field.addEventListener(end, stop);
    });

    const draw = (count) => {
      const left = Array.from({ length: count }, (_, k) => k);
      return Array.from({ length: rank }, () =>
        left.splice(Math.floor(Math.random() * left.length), 1)[0]);
    };
    // Evenly spaced pivots: any reader sees the same at first.
    const spaced = (count) =>
      Array.from({ length: rank }, (_, k) => Math.floor(((k + 0.5) * count) / rank));
    const anew = () => { a = matrices[name]; [rows, cols] = [spaced(m), spaced(n)]; build(); show(""); };

    const state = () => {
      const middle = math.columnsOf(math.rowsOf(a, rows), cols);
      const singular = math.isSingular(middle);
      const best = values[name].slice(rank).reduce((s, x) => s + x * x, 0) ** 0.5 / math.norm(a);
      const found = { volume: Math.abs(math.determinant(middle)), singular, best,
        bound: (rank + 1) * (values[name][rank] ?? 0) };
      if (singular) return found;
      const skeleton = math.cross(a, rows, cols), rest = math.subtract(a, skeleton);
      return { ...found, skeleton, rest, error: math.norm(rest) / math.norm(a),
        largest: math.largest(rest), next: math.exchange(a, rows, cols) };
    };

    // The exchange that increases the volume most; false if there is none.
    const step = () => {
      const before = state();
      if (before.singular) {
        const found = math.eliminatePivots(a, rank);
        if (found.rows.length < rank) {
          show(`The matrix has rank ${found.rows.length}: no ${rank} rows and columns give an invertible P.`);
          return false;
        }
        ({ rows, cols } = found);
        show("P was singular, so the search starts again by Gaussian elimination with complete pivoting.");
        return true;
      }
      const { side, place: k, to, factor } = before.next;
      if (factor <= 1 + 1e-9) { show(""); return false; }
      const from = pivots(side)[k];
      pivots(side)[k] = to;
      const after = state();
      const errors = after.singular ? "" : `, and the relative error went from ${number(before.error)} to ${number(after.error)}`;
      show(`${side === "row" ? "Row" : "Column"} ${from + 1} was exchanged for ${to + 1}: the volume grew by a factor of ${number(factor)}${errors}.`);
      return true;
    };

    const show = (told) => {
      const now = state();
      paint(canvases.matrix, a, gray);
      paint(canvases.skeleton, now.skeleton ?? a.map((row) => row.map(() => 0.5)), gray);
      paint(canvases.error, now.rest ?? a.map((row) => row.map(() => 0)), signed);
      for (const { side, place: k, node } of lines) {
        const at = pivots(side)[k];
        node.style[side === "row" ? "top" : "left"] = `${(100 * (at + 0.5)) / size(side)}%`;
        node.setAttribute("aria-valuenow", at + 1);
        node.setAttribute("aria-valuetext", `${side} ${at + 1} of ${size(side)}`);
      }
      for (const button of choices.children)
        button.setAttribute("aria-pressed", String(button.dataset.name === name));
      shown.textContent = String(rank);
      slider.setAttribute("aria-valuetext", `rank ${rank}`);
      const list = [["volume |det P|", number(now.volume)],
        ["relative error", now.singular ? "not defined" : number(now.error)],
        [`best of rank ${rank}`, now.best < 1e-12 ? "0" : number(now.best)],
        ["largest error", now.singular ? "not defined" : number(now.largest)],
        ["best exchange", now.singular ? "not defined" : `× ${number(now.next.factor)}`]];
      facts.replaceChildren(...list.map(([term, value]) =>
        make("div", {}, make("dt", {}, term), make("dd", {}, value))));
      const where = `Rows ${[...rows].sort((x, y) => x - y).map((i) => i + 1).join(", ")}; columns ${[...cols].sort((x, y) => x - y).map((j) => j + 1).join(", ")}. `;
      let text;
      if (now.singular) text = told ||
        "P is singular up to rounding, so the skeleton is not defined. Move a pivot, or take a maxvol step.";
      else if (now.next.factor <= 1 + 1e-9) text =
        `${told ? told + " " : ""}No exchange of a single row or column increases the volume any more. The largest error is ${number(now.largest)}; for the submatrix of largest volume the theorem allows ${number(now.bound)}.`;
      else text = `${told ? told + " " : ""}The skeleton is exact on the rows and columns of the pivots. Its relative error is ${number(now.error)}, that of the best matrix of rank ${rank} is ${now.best < 1e-12 ? "0" : number(now.best)}; one exchange can increase the volume by a factor of ${number(now.next.factor)}.`;
      caption.textContent = text;
      canvases.matrix.setAttribute("aria-label", `Matrix of ${m} rows and ${n} columns, gray values: ${name === "brain" ? "a slice of a brain" : "three Gaussians"}`);
      canvases.skeleton.setAttribute("aria-label", `Skeleton of rank ${rank} from the rows and columns of the pivots${now.singular ? ", not defined" : ""}`);
      canvases.error.setAttribute("aria-label", now.singular ? "Error, not defined" : `Error in blue and orange, at most ${number(now.largest)}; zero on the rows and columns of the pivots`);
      speak(where + text);
    };
    anew();
  };

  for (const figure of document.querySelectorAll('[data-explorable="maxvol"]')) start(figure);
})();
