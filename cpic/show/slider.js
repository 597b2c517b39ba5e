// Join sliders and pictures of every figure on the page that is not joined yet.
(function () {
  "use strict";
  const isDark = () => {
    const theme = document.documentElement.dataset.theme;
    if (theme) return theme === "dark";
    const lab = document.body.dataset.jpThemeLight;
    if (lab) return lab === "false";
    return matchMedia("(prefers-color-scheme: dark)").matches;
  };

  const join = (figure) => {
    figure.cpicJoined = true;
    const data = JSON.parse(figure.querySelector('script[type="application/json"]').textContent);
    const image = figure.querySelector("img");
    const status = figure.querySelector("[role=status]");
    // A slider, or buttons of which one is pressed, for each axis.
    const axes = [...figure.querySelectorAll(".cpic-controls > input, .cpic-controls > fieldset")];
    const isSlider = (axis) => axis.matches("input");
    const at = (axis) => +(isSlider(axis) ? axis : axis.querySelector(":checked")).value;
    let timer;

    const show = () => {
      const frame = axes.reduce((k, axis, i) => k * data.texts[i].length + at(axis), 0);
      const dark = data.dark.length > 0 && isDark();
      const source = data.pictures[(dark ? data.dark : data.light)[frame]];
      if (image.getAttribute("src") !== source) image.src = source;
      image.style.background = dark ? "#121212" : "#fff";
      image.alt = data.alt[frame];
      axes.forEach((axis, i) => {
        if (!isSlider(axis)) return;
        axis.setAttribute("aria-valuetext", data.texts[i][at(axis)]);
        axis.nextElementSibling.textContent = data.texts[i][at(axis)];
      });
    };

    axes.forEach((axis) => axis.addEventListener("input", () => {
      show();
      // Speak the picture once, when the handle rests.
      clearTimeout(timer);
      timer = setTimeout(() => { status.textContent = image.alt; }, 500);
    }));
    if (data.dark.length) {
      new MutationObserver(show).observe(document.documentElement, { attributeFilter: ["data-theme"] });
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
    }
    figure.querySelector(".cpic-controls").hidden = false;
    figure.querySelector(".cpic-shown").hidden = true;
    show();
  };

  for (const figure of document.querySelectorAll("figure.cpic-explore")) {
    if (!figure.cpicJoined && figure.querySelector('script[type="application/json"]')) join(figure);
  }
})();
