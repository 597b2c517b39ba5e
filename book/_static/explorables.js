// What the figures that compute in the browser share.
(function () {
  "use strict";
  const make = (tag, attributes = {}, ...children) => {
    const made = tag.startsWith("svg:")
      ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
      : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };

  const raised = (power) =>
    [...String(power)].map((c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]).join("");

  const number = (x, digits = 2) => {
    if (x === 0) return "0";
    if (Math.abs(x) >= 0.01 && Math.abs(x) < 1000) return String(+x.toPrecision(digits));
    const [head, power] = x.toExponential(1).split("e");
    return `${head === "1.0" ? "" : `${head} · `}10${raised(+power)}`;
  };

  // A region that speaks the state once the reader rests, and not when the page opens.
  const speaker = () => {
    const node = make("p", { class: "cpic-hidden", role: "status", "aria-live": "polite" });
    let timer, first = true;
    const speak = (text) => {
      clearTimeout(timer);
      if (!first) timer = setTimeout(() => { node.textContent = text; }, 500);
      first = false;
    };
    return { node, speak };
  };

  globalThis.cpicPage = { make, raised, number, speaker };
})();
