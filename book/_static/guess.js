// Guesses that a reader types: kept in this browser, shown where the text gives the answer.
(function () {
  "use strict";
  const form = document.querySelector("form.cpic-guess");
  if (!form) return;
  const inputs = [...form.querySelectorAll("input")];
  const key = (k) => `cpic-guess:${form.dataset.page}:${k}`;
  // Storage may be refused; then the guess lasts as long as the page.
  const read = (k) => { try { return localStorage.getItem(key(k)) ?? ""; } catch { return ""; } };
  const keep = (k, text) => {
    try { text ? localStorage.setItem(key(k), text) : localStorage.removeItem(key(k)); } catch { /* refused */ }
  };

  const spans = [...document.querySelectorAll(".cpic-guessed")].map((node) => ({ node, text: node.textContent }));
  const show = () => {
    const guesses = inputs.map((input) => input.value.trim());
    for (const { node, text } of spans) {
      const parts = text.split("#");
      const given = guesses.slice(0, parts.length - 1);
      const all = given.length === parts.length - 1 && given.every(Boolean);
      node.classList.toggle("cpic-shown", all);
      const pieces = parts.flatMap((part, k) => {
        if (k === 0) return [part];
        const number = document.createElement("strong");
        number.textContent = given[k - 1];
        return [number, part];
      });
      if (all) node.replaceChildren(...(node.classList.contains("cpic-after-space") ? [" "] : []), ...pieces);
    }
  };

  inputs.forEach((input, k) => {
    input.value = read(k);
    input.addEventListener("input", () => { keep(k, input.value.trim()); show(); });
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  for (const cell of document.querySelectorAll(".cpic-guess-cell")) cell.hidden = true;
  show();
})();
