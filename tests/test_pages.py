"""Pages in a browser: laid out whole on a desktop, a phone and paper, and accessible as axe-core sees it."""

import pytest
from test_report import PAPER_PX, PHONE_PX, WIDE_PX, make_cells, make_folder, report_of, write_page

SEEN = [(WIDE_PX, "screen"), (PHONE_PX, "screen"), (PAPER_PX, "print")]
PAGES = ["phantom-full", "sensitivity", "trial"]
UNNAMED = """[...document.querySelectorAll('table')].filter(table => {
  const box = table.parentElement, scrolls = getComputedStyle(box).overflowX === 'auto' && box.tabIndex === 0;
  return table.offsetWidth > box.clientWidth + 1 && !(scrolls && box.getAttribute('aria-label'));
}).length"""
CLIPPED = """[...document.querySelectorAll('td')].filter(cell => {
  const box = cell.getBoundingClientRect(), wide = document.documentElement.clientWidth;
  const is_verdict = /^(not settled|higher|lower|equivalent)/.test(cell.textContent.trim());
  return cell.scrollWidth > cell.clientWidth + 1 || is_verdict && (box.left < 0 || box.right > wide + 1);
}).map(cell => cell.textContent)"""
OVERLAPPING = """[...document.querySelectorAll('main, main details')].flatMap(box => {
  const shown = [...box.children].filter(tag => tag.getClientRects().length);
  const tags = shown.map(tag => [tag, tag.getBoundingClientRect()]);
  return tags.slice(1).filter(([, below], i) => below.top < tags[i][1].bottom - 1 && below.left < tags[i][1].right - 1);
}).map(([tag]) => tag.outerHTML.slice(0, 80))"""
LOST = """[...document.querySelectorAll('.table')].filter(box => box.scrollWidth > box.clientWidth).filter(box => {
  box.scrollLeft = box.scrollWidth;
  const place = box.getBoundingClientRect();
  return [...box.querySelectorAll('tr > :first-child:not([colspan])')].some(cell => {
    const { left, right } = cell.getBoundingClientRect();
    return left < place.left - 1 || right > (place.left + place.right) / 2 + 40;
  });
}).map(box => box.getAttribute('aria-label'))"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    trial = write_page(make_folder(tmp_path_factory.mktemp("pages") / "trial"), make_cells())
    return {name: report_of(name) for name in PAGES} | {"trial": trial}


def assert_whole(browser, path, *, width_px, media):
    """A page at a size: nothing is cut or covered, and what opens a row stays in sight."""
    browser.open(path, width_px=width_px, media=media)
    browser.unfold()

    assert browser.value("document.documentElement.scrollWidth") <= width_px
    assert browser.value(UNNAMED) == 0
    assert browser.value(CLIPPED) == []
    assert browser.value(OVERLAPPING) == []
    assert browser.value(LOST) == []


def assert_accessible(browser, path, *, width_px, scheme):
    browser.open(path, width_px=width_px, scheme=scheme)
    browser.unfold()

    assert [finding for finding in browser.findings() if finding[0] != "minor"] == []


@pytest.mark.parametrize(("width_px", "media"), SEEN)
@pytest.mark.parametrize("name", PAGES)
def test_page_is_laid_out_whole(browser, pages, name, width_px, media):
    assert_whole(browser, pages[name], width_px=width_px, media=media)


@pytest.mark.parametrize(
    ("name", "width_px", "scheme"), [("phantom-full", WIDE_PX, "light"), ("trial", PHONE_PX, "dark")]
)
def test_axe_finds_nothing_serious(browser, pages, name, width_px, scheme):
    assert_accessible(browser, pages[name], width_px=width_px, scheme=scheme)
