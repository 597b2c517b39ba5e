// Chapter 6: the power of a spectrum, and its gradient at a small gap by several methods.
(function () {
  "use strict";
  const math = globalThis.cpicMath;
  const { make, raised, number, speaker } = globalThis.cpicPage;
  const OTHERS = [0.3, 0.1, 0.01];
  const GAPS = [-17, 0]; // decades on the axis
  const METHODS = { original: "Original", trunc: "Trunc", taylor: "Taylor", power: "Power", pade: "Padé" };
  const DASHES = { original: "", trunc: "8 4", taylor: "2 3", power: "8 3 2 3", pade: "4 4" };
  const draw = (tag, attributes, ...children) => make(`svg:${tag}`, attributes, ...children);

  // The pair as the computer holds it, and the gradient of its power by each method.
  const compute = (gap, power) => {
    const [high, low] = [1 + gap / 2, 1 - gap / 2];
    const exact = math.dividedDifference(high, low, power);
    const rows = Object.keys(METHODS).map((name) => {
      const inverse = math.inverseGap[name](high, low);
      const factor = inverse * (high ** power - low ** power);
      const off = Math.abs(factor - exact) / exact;
      return { name, inverse, factor, off, digits: off === 0 ? 16 : Math.max(0, Math.min(16, Math.round(-Math.log10(off)))) };
    });
    return { high, low, exact, rows };
  };

  const start = (figure) => {
    const identity = figure.dataset.explorable;
    const controls = make("div", { class: "cpic-controls" });
    const control = (key, text, attributes) => {
      const id = `${identity}-${key}`;
      const input = make("input", { type: "range", id, autocomplete: "off", ...attributes });
      const output = make("output", { for: id, "aria-live": "off" });
      controls.append(make("label", { for: id }, text), input, output);
      input.addEventListener("input", () => show());
      return { input, output };
    };
    const power = control("power", "power p", { min: 0.05, max: 1, step: 0.05, value: 0.5 });
    const gap = control("gap", "gap of the first two", { min: GAPS[0], max: GAPS[1], step: 0.5, value: -2 });

    // Bars: the spectrum and its power, both relative to the largest.
    const bars = draw("svg", { viewBox: "0 0 360 250", role: "img" });
    const left = 36, bottom = 210, tall = 180, wide = 310;
    for (const y of [0, 0.5, 1]) {
      bars.append(draw("line", { x1: left, x2: left + wide, y1: bottom - y * tall, y2: bottom - y * tall, class: "cpic-grid" }));
      bars.append(draw("text", { x: left - 6, y: bottom - y * tall + 4, "text-anchor": "end" }, String(y)));
    }
    const slots = 2 + OTHERS.length, pairs = Array.from({ length: slots }, (_, k) => {
      const x = left + ((k + 0.15) * wide) / slots, width = (0.34 * wide) / slots;
      const before = draw("rect", { x, width, class: "cpic-before" });
      const after = draw("rect", { x: x + width, width, class: "cpic-after" });
      bars.append(before, after, draw("text", { x: x + width, y: bottom + 16, "text-anchor": "middle" }, `λ${"₁₂₃₄₅"[k]}`));
      return [before, after];
    });
    bars.append(draw("rect", { x: left + 170, y: 8, width: 10, height: 10, class: "cpic-before" }),
      draw("text", { x: left + 186, y: 17 }, "λ / λ₁"),
      draw("rect", { x: left + 238, y: 8, width: 10, height: 10, class: "cpic-after" }),
      draw("text", { x: left + 254, y: 17 }, "(λ / λ₁)ᵖ"));
    bars.append(draw("text", { x: left + wide / 2, y: 246, "text-anchor": "middle" }, "eigenvalues, and their power"));

    // Curves: the inverse gap against the gap, log scales.
    const curves = draw("svg", { viewBox: "0 0 360 250", role: "img" });
    const X = (decade) => 44 + ((decade - GAPS[0]) / (GAPS[1] - GAPS[0])) * 300;
    const Y = (decade) => 210 - (Math.max(-0.5, Math.min(18, decade)) / 18) * 190;
    for (const decade of [0, 6, 12, 18]) {
      curves.append(draw("line", { x1: X(GAPS[0]), x2: X(GAPS[1]), y1: Y(decade), y2: Y(decade), class: "cpic-grid" }));
      curves.append(draw("text", { x: 38, y: Y(decade) + 4, "text-anchor": "end" }, `10${raised(decade)}`));
    }
    for (const decade of [-15, -10, -5, 0])
      curves.append(draw("text", { x: X(decade), y: 228, "text-anchor": "middle" }, `10${raised(decade)}`));
    curves.append(draw("text", { x: 190, y: 246, "text-anchor": "middle" }, "gap"));
    curves.append(draw("text", { x: 344, y: 17, "text-anchor": "end" }, "inverse gap F"));
    for (const name of Object.keys(METHODS)) {
      const points = [];
      for (let decade = GAPS[0]; decade <= GAPS[1] - 0.05; decade += 0.05) {
        const g = 10 ** decade;
        points.push(`${X(decade).toFixed(1)},${Y(Math.log10(math.inverseGap[name](1 + g / 2, 1 - g / 2))).toFixed(1)}`);
      }
      curves.append(draw("polyline", { points: points.join(" "), class: `cpic-curve cpic-${name}`, "stroke-dasharray": DASHES[name] }));
    }
    const cursor = draw("line", { y1: 14, y2: 210, class: "cpic-cursor" });
    const dots = Object.fromEntries(Object.keys(METHODS).map((name) =>
      [name, draw("circle", { r: 4, class: `cpic-dot cpic-${name}` })]));
    curves.append(cursor, ...Object.values(dots));

    const body = make("tbody");
    const head = make("tr", {}, ...["method", "inverse gap F", "factor F (λ₁ᵖ − λ₂ᵖ)", "digits correct"].map((t) => make("th", { scope: "col" }, t)));
    const table = make("table", { class: "cpic-table" }, make("thead", {}, head), body);
    const swatch = (name) => {
      const key = draw("svg", { viewBox: "0 0 28 10", width: 28, height: 10, "aria-hidden": "true" });
      key.append(draw("line", { x1: 0, x2: 28, y1: 5, y2: 5, class: `cpic-curve cpic-${name}`, "stroke-dasharray": DASHES[name] }));
      return key;
    };
    const panels = make("div", { class: "cpic-panels cpic-pair" },
      make("div", { class: "cpic-panel" }, bars), make("div", { class: "cpic-panel" }, curves));
    const caption = make("figcaption");
    const { node: status, speak } = speaker();
    figure.replaceChildren();
    figure.append(controls, panels, make("div", { class: "cpic-scroll", tabindex: 0, role: "group", "aria-label": "Methods at this gap" }, table), caption, status);

    const show = () => {
      const p = +power.input.value, decade = +gap.input.value, g = 10 ** decade;
      const { high, low, exact, rows } = compute(g, p);
      power.output.textContent = p.toFixed(2);
      gap.output.textContent = Number.isInteger(decade) ? `10${raised(decade)}` : number(g);
      power.input.setAttribute("aria-valuetext", `power ${p.toFixed(2)}`);
      gap.input.setAttribute("aria-valuetext", `gap ${g.toExponential(0)}`);
      const spectrum = [high, low, ...OTHERS].map((x) => x / high);
      spectrum.forEach((x, k) => [x, x ** p].forEach((y, side) => {
        pairs[k][side].setAttribute("y", bottom - y * tall);
        pairs[k][side].setAttribute("height", y * tall);
      }));
      bars.setAttribute("aria-label", `Bars of five eigenvalues relative to the largest, ${spectrum.map((x) => number(x)).join(", ")}, and of their power ${p.toFixed(2)}: ${spectrum.map((x) => number(x ** p)).join(", ")}`);
      for (const side of ["x1", "x2"]) cursor.setAttribute(side, X(decade));
      for (const { name, inverse } of rows) {
        dots[name].setAttribute("cx", X(decade));
        dots[name].setAttribute("cy", Y(Math.log10(inverse)));
      }
      curves.setAttribute("aria-label", `Inverse gap against gap on log scales, with a cursor at ${g.toExponential(0)}: ${rows.map(({ name, inverse }) => `${METHODS[name]} ${inverse.toExponential(0)}`).join(", ")}`);
      body.replaceChildren(
        make("tr", {}, make("th", { scope: "row" }, "exact, without K"), make("td", {}, "–"), make("td", {}, number(exact, 3)), make("td", {}, "16")),
        ...rows.map(({ name, inverse, factor, digits }) => make("tr", {},
          make("th", { scope: "row" }, swatch(name), ` ${METHODS[name]}`),
          ...[number(inverse), number(factor, 3), String(digits)].map((t) => make("td", {}, t)))));
      const [original, , taylor] = rows;
      const ratio = 1 / spectrum[spectrum.length - 1];
      const pair = high === low
        ? "The two eigenvalues are the same floating-point number: their difference is zero, and so is the factor of every method that multiplies it by K."
        : `Through eigenvectors the two powers are subtracted, which leaves ${original.digits} correct digits; Taylor is off by ${taylor.off < 0.005 ? "less than 1" : (100 * taylor.off).toFixed(0)} %.`;
      const text = `Power ${p.toFixed(2)}: the largest eigenvalue is ${number(ratio ** p)} times the smallest, instead of ${number(ratio)} times. Gap ${number(g)}: the exact factor of the gradient is ${number(exact, 3)}, however small the gap. ${pair}`;
      caption.textContent = text;
      speak(text);
    };
    show();
  };

  for (const figure of document.querySelectorAll('[data-explorable="spectrum"]')) start(figure);
  globalThis.cpicSpectrum = compute;
})();
