"""What a built page must satisfy, as functions that return the faults they find."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / ".cache" / "axe" / "axe.min.js"
MAX_PAGE = 1_500_000
MIN_ALT = 15

# What the theme itself does not satisfy, by rule and by a part of the address of the element.
KNOWN_AXE: dict[str, tuple[str, ...]] = {
    # The logo stands in the sidebar outside of every landmark.
    "region": (".sidebar-primary-item",),
}
# Buttons fade to the colors of the mode: a picture taken half-way has neither contrast.
STILL = "*, *::before, *::after { transition: none !important; animation: none !important; }"
# A line of the theme for readers who have never chosen a color mode.
KNOWN_CONSOLE = ("Got invalid theme mode",)


class Visit:
    """One page opened in a browser without a network."""

    def __init__(self, browser, path: Path, scheme: str = "light"):
        self.path = path
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.context = browser.new_context(
            color_scheme=scheme, viewport={"width": 1280, "height": 900}
        )
        self.context.route(re.compile(r"^(?!file:|data:|blob:)"), lambda route: route.abort())
        self.page = self.context.new_page()
        self.page.on("request", self._on_request)
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(path.as_uri())
        self.page.wait_for_function("!window.MathJax?.startup || MathJax.startup.promise")
        self.page.evaluate("() => window.MathJax?.startup?.promise")

    def _on_request(self, request) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.requests.append(request.url)

    def _on_console(self, message) -> None:
        if message.type == "error" and not any(known in message.text for known in KNOWN_CONSOLE):
            self.errors.append(message.text)

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


def formula_faults(visit: Visit) -> list[str]:
    """Formulas of the page that MathJax did not set, or that run into their number."""
    return visit.page.evaluate(
        """() => {
            const unset = (e) => !e.querySelector("mjx-container") || e.querySelector("mjx-merror");
            const wide = (e) => e.matches("div.math mjx-container")
                && e.scrollWidth > e.clientWidth + 1;
            return [...document.querySelectorAll("span.math, div.math")]
                .filter((e) => unset(e) || [...e.querySelectorAll("mjx-container")].some(wide))
                .map((e) => e.textContent.slice(0, 80));
        }"""
    )


def image_faults(visit: Visit) -> list[str]:
    """Images whose alternative text says nothing, and images that did not load."""
    images = visit.page.evaluate(
        """() => [...document.querySelectorAll("main img")]
            // The logos of the launch buttons are the theme's, named "Binder logo" and the like.
            .filter((e) => !e.closest(".article-header-buttons")).map((e) => ({
            alt: (e.getAttribute("alt") || "").trim(),
            shown: e.complete && e.naturalWidth > 0,
            source: e.getAttribute("src").slice(0, 60)}))"""
    )
    faults = [f"{i['source']}: alt {i['alt']!r}" for i in images if len(i["alt"]) < MIN_ALT]
    return faults + [f"{i['source']}: not shown" for i in images if not i["shown"]]


def axe_faults(visit: Visit) -> list[str]:
    """What axe-core finds, but for what the theme is known for."""
    visit.page.add_script_tag(path=str(AXE))
    visit.page.add_style_tag(content=STILL)
    found = visit.page.evaluate("async () => (await axe.run(document)).violations")
    return [
        f"{rule['id']}: {' '.join(map(str, node['target']))}: {node['html'][:100]}"
        for rule in found
        for node in rule["nodes"]
        if not any(
            part in " ".join(map(str, node["target"])) for part in KNOWN_AXE.get(rule["id"], ())
        )
    ]


def slider_faults(visit: Visit) -> list[str]:
    """Sliders that do not answer the keyboard with another picture and another text."""
    figures = visit.page.locator("figure.cpic-explore")
    faults = [] if figures.count() else ["there is no slider"]
    for f in range(figures.count()):
        figure = figures.nth(f)
        sliders, buttons = figure.get_by_role("slider"), figure.locator("fieldset")
        faults += [] if sliders.count() + buttons.count() else [f"figure {f} has no slider"]
        for b in range(buttons.count()):
            before = figure.locator("img").get_attribute("src")
            buttons.nth(b).locator("input:checked").press("ArrowRight")  # around at the end
            if figure.locator("img").get_attribute("src") == before:
                faults.append(f"figure {f}, buttons {b}: the picture stays")
        for s in range(sliders.count()):
            slider, image = sliders.nth(s), figure.locator("img")
            before = image.get_attribute("src"), image.get_attribute("alt")
            value = slider.get_attribute("aria-valuetext")
            slider.focus()
            at_end = slider.input_value() == slider.get_attribute("max")
            visit.page.keyboard.press("ArrowLeft" if at_end else "ArrowRight")
            if image.get_attribute("src") == before[0]:
                faults.append(f"figure {f}, slider {s}: the picture stays")
            if image.get_attribute("alt") == before[1]:
                faults.append(f"figure {f}, slider {s}: the alternative text stays")
            if slider.get_attribute("aria-valuetext") == value:
                faults.append(f"figure {f}, slider {s}: the spoken value stays")
    return faults


def size_faults(path: Path) -> list[str]:
    """The page, if it is too heavy, images beside it included."""
    soup = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    size = path.stat().st_size
    for image in soup.select("main img[src]"):
        target = path.parent / unquote(str(image["src"]))
        if not str(image["src"]).startswith("data:") and target.is_file():
            size += target.stat().st_size
    return [f"{path.name} weighs {size:,} bytes"] if size > MAX_PAGE else []


def link_faults(site: Path) -> list[str]:
    """Links and anchors of all pages that lead nowhere, and what pages would load from outside."""
    # What lies in _static are the theme's templates, not pages.
    paths = [p for p in site.rglob("*.html") if "_static" not in p.relative_to(site).parts]
    pages = {p: BeautifulSoup(p.read_text(encoding="utf-8"), "html.parser") for p in paths}
    anchors = {
        p: {str(e[key]) for key in ("id", "name") for e in soup.find_all(attrs={key: True})}
        for p, soup in pages.items()
    }
    faults = []
    for path, soup in pages.items():
        for element in soup.find_all(["a", "img", "script", "link", "source", "iframe"]):
            address = str(element.get("href") or element.get("src") or "")
            parts = urlsplit(address)
            if parts.scheme or address.startswith("//"):
                loads = element.name in ("img", "script", "source", "iframe") or (
                    element.name == "link" and "stylesheet" in element.get("rel", [])
                )
                if loads and parts.scheme != "data":
                    faults.append(f"{path.relative_to(site)}: loads {address}")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            fragment = unquote(parts.fragment)
            if not target.is_file():
                faults.append(f"{path.relative_to(site)}: no file {address}")
            elif fragment and fragment not in anchors.get(target, {fragment}):
                faults.append(f"{path.relative_to(site)}: no anchor {address}")
    return sorted(set(faults))
