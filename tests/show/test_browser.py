"""The pre-rendered slider in a real browser, with the network cut off."""

import pytest
from matplotlib.figure import Figure

from cpic import show

pytestmark = pytest.mark.book


def draw(rank, sites=1, by=""):
    figure = Figure(figsize=(2, 1), dpi=50)
    figure.text(0.2, 0.4, f"{rank}/{sites}{by}")
    return figure


@pytest.fixture
def visit(browser, tmp_path, monkeypatch):
    """Open HTML as a file and return the page; fails on any request and any script error."""
    monkeypatch.setenv("CPIC_EXPLORE", "static")
    problems, contexts = [], []

    def open_page(html, *, theme="", **options):
        path = tmp_path / f"{len(contexts)}.html"
        root = f'<html lang="en" {theme}><meta charset="utf-8"><title>slider</title>'
        path.write_text(f"<!doctype html>{root}<body>{html}</body></html>", encoding="utf-8")
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)

        def route(request):
            if request.request.url.startswith(("file:", "data:")):
                request.continue_()
            else:
                problems.append(request.request.url)
                request.abort()

        page.route("**/*", route)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def html(**options):
    view = show.explore(draw, alt="The number of rank {rank}", **options)
    return view._repr_mimebundle_()["text/html"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("dark", [False, True])
def test_keyboard_changes_picture_alt_and_value(visit, scheme, dark):
    page = visit(html(rank=[2, 5, 10], dark=dark), color_scheme=scheme)
    image, slider = page.locator("img"), page.get_by_role("slider", name="rank")
    before = image.get_attribute("src")
    page.keyboard.press("Tab")
    assert slider.evaluate("node => node === document.activeElement")
    page.keyboard.press("ArrowRight")
    after = image.get_attribute("src")
    assert after != before
    assert image.get_attribute("alt") == "The number of rank 5"
    assert slider.get_attribute("aria-valuetext") == "5"
    assert page.locator("output").text_content() == "5"
    assert image.evaluate("node => node.decode().then(() => node.naturalWidth)") == 100
    page.keyboard.press("End")
    assert image.get_attribute("alt") == "The number of rank 10"
    page.wait_for_function(
        "document.querySelector('[role=status]').textContent === 'The number of rank 10'"
    )
    page.keyboard.press("ArrowLeft")
    assert image.get_attribute("src") == after
    ground = "rgb(18, 18, 18)" if dark and scheme == "dark" else "rgb(255, 255, 255)"
    assert image.evaluate("node => getComputedStyle(node).backgroundColor") == ground


def test_two_axes_meet_in_the_right_frame(visit):
    page = visit(html(rank=[1, 2, 3], sites=[1, 2], start={"sites": 2}))
    data = page.locator("script[type='application/json']").evaluate(
        "node => JSON.parse(node.textContent)"
    )
    sliders = page.get_by_role("slider")
    assert sliders.count() == 2
    for first, second in [(0, 1), (2, 1), (2, 0), (1, 0)]:
        sliders.nth(0).fill(str(first))
        sliders.nth(1).fill(str(second))
        want = data["pictures"][data["light"][2 * first + second]]
        assert page.locator("img").get_attribute("src") == want


def test_words_are_buttons_that_keys_and_fingers_press(visit):
    size = {"width": 320, "height": 600}
    page = visit(html(by=["svd", "cross"], rank=[1, 2, 3], start={"by": "cross"}), viewport=size)
    data = page.locator("script[type='application/json']").evaluate(
        "node => JSON.parse(node.textContent)"
    )
    shown = page.locator("img")
    assert page.get_by_role("slider").count() == 1
    assert page.get_by_role("group", name="by").get_by_role("radio").count() == 2
    assert page.get_by_role("radio", name="cross").is_checked()
    page.get_by_role("slider").press("ArrowRight")
    assert shown.get_attribute("src") == data["pictures"][data["light"][3 + 1]]
    page.get_by_role("radio", name="cross").press("ArrowLeft")
    assert shown.get_attribute("src") == data["pictures"][data["light"][0 + 1]]
    page.locator("label", has_text="cross").click()
    assert shown.get_attribute("src") == data["pictures"][data["light"][3 + 1]]
    assert page.locator("label", has_text="cross").bounding_box()["height"] >= 44
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    page.emulate_media(media="print")
    assert page.locator("label", has_text="cross").is_visible()
    assert not page.locator("label", has_text="svd").is_visible()


def test_theme_switch_changes_ground_and_keeps_the_frame(visit):
    page = visit(html(rank=[1, 2, 3], dark=True), theme='data-theme="light"')
    page.get_by_role("slider").press("ArrowRight")
    light = page.locator("img").get_attribute("src")
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_function("src => document.querySelector('img').src !== src", arg=light)
    assert page.locator("img").get_attribute("alt") == "The number of rank 2"
    assert page.get_by_role("slider").get_attribute("aria-valuetext") == "2"
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    page.wait_for_function("src => document.querySelector('img').src === src", arg=light)


def test_the_same_slider_twice_on_a_page(visit):
    page = visit(html(rank=[1, 2]) * 2)
    page.get_by_role("slider").nth(1).press("ArrowRight")
    alts = [image.get_attribute("alt") for image in page.locator("img").all()]
    assert alts == ["The number of rank 1", "The number of rank 2"]


def test_without_scripts_and_on_paper_the_first_picture_stands(visit):
    page = visit(html(rank=[1, 2]), java_script_enabled=False)
    assert page.locator("img").is_visible()
    assert not page.locator("input").is_visible()
    assert page.get_by_text("Shown: rank 1.").is_visible()
    printed = visit(html(rank=[1, 2]))
    printed.emulate_media(media="print")
    assert printed.locator("img").is_visible()
    assert not printed.locator("input").is_visible()


def test_handles_are_large_and_nothing_scrolls_sideways_on_a_telephone(visit):
    page = visit(html(rank=[1, 2], sites=[1, 2]), viewport={"width": 320, "height": 600})
    box = page.get_by_role("slider").first.bounding_box()
    assert box["height"] >= 44
    assert box["width"] >= 150
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
