"""The page in a real browser: nothing overflows, nothing is fetched, every chart has a size."""

import shutil
from collections.abc import Iterator

import pytest

from halve.report import write_html

pytestmark = pytest.mark.browser

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SCENES = ["standard", "long_names", "nothing_kept", "dearer", "one_rung", "refused"]

OUTSIDE = """() => [...document.querySelectorAll('svg text')].filter(text => text.checkVisibility()).filter(text => {
    const box = text.getBoundingClientRect();
    return box.left < 0 || box.right > innerWidth || box.width === 0 || box.height < 6;
}).map(text => text.textContent)"""
SIZES = """() => [...document.querySelectorAll('svg')].filter(svg => svg.checkVisibility()).map(svg => {
    const box = svg.getBoundingClientRect(); return [box.width, box.height];
})"""
OVERLAPS = """() => [...document.querySelectorAll('svg')].filter(svg => svg.checkVisibility()).flatMap(svg => {
    const boxes = [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
    const found = [];
    for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length; j++) {
        const [a, b] = [boxes[i][1], boxes[j][1]];
        const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (wide > 2 && high > 5) found.push(boxes[i][0] + ' | ' + boxes[j][0]);
    }
    return found;
})"""


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield opened
        opened.close()


@pytest.mark.parametrize("width", [1280, 375])
@pytest.mark.parametrize("scene", SCENES)
def test_the_page_renders(browser, runs, tmp_path, scene, width):
    path = tmp_path / "report.html"
    write_html(runs[scene](), path)
    page = browser.new_page(viewport={"width": width, "height": 900})
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    try:
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.locator("#saving").is_visible()
        assert page.locator("#saving").bounding_box()["y"] < 900
        sizes = page.evaluate(SIZES)
        assert len(sizes) >= 5
        assert all(wide > 200 and high > 30 for wide, high in sizes)
        assert page.evaluate(OUTSIDE) == []
        assert page.evaluate(OVERLAPS) == []
        assert complaints == []
        assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    finally:
        page.close()


def contrast(first: list[float], second: list[float]) -> float:
    """Return the contrast ratio of two sRGB colours, WCAG 2.2, definition of relative luminance."""

    def luminance(colour: list[float]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


TEXT_ON_GROUND = [
    ("--ink", "--page"), ("--soft", "--page"), ("--ink", "--card"), ("--soft", "--card"), ("--good", "--page"),
    ("--good", "--good-wash"), ("--bad", "--page"), ("--bad", "--bad-wash"),
    ("--warn", "--warn-wash"), ("--limit", "--card"),
]  # fmt: skip
COLOURS = """names => names.map(name => {
    const probe = document.createElement('i');
    probe.style.color = `var(${name})`; document.body.append(probe);
    return getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map(Number);
})"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser, runs, tmp_path, scheme):
    path = tmp_path / "report.html"
    write_html(runs["one_rung"](), path)
    page = browser.new_page(color_scheme=scheme)
    try:
        page.goto(path.as_uri())
        ratios = {pair: contrast(*page.evaluate(COLOURS, list(pair))) for pair in TEXT_ON_GROUND}
        assert {pair: ratio for pair, ratio in ratios.items() if ratio < 4.5} == {}
    finally:
        page.close()


def test_dark_and_light_differ(browser, runs, tmp_path):
    path = tmp_path / "report.html"
    write_html(runs["one_rung"](), path)
    grounds = []
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto(path.as_uri())
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.close()
    assert grounds[0] != grounds[1]
