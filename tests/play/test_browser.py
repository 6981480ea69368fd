"""The page in a real browser: a whole visit by keyboard, and one on a phone."""

import json
from collections.abc import Iterator
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pytest

from tests.play.test_server import serving

playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
CHROMIUM = which("chromium") or which("chromium-browser") or which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
STEPS = 200


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as made:
        opened = made.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


def visit(browser: Any, address: str, **options: Any) -> tuple[Any, list[str]]:
    """A page that shows its first node, and the list of errors since."""
    page = browser.new_context(accept_downloads=True, **options).new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("request", lambda asked: None if own(asked.url, address) else wrong.append(asked.url))
    page.goto(f"http://{address}/")
    until(page, "worldloom.state.here !== null")
    return page, wrong


def own(url: str, address: str) -> bool:
    """Whether a request stays on the server's own address."""
    return url.startswith((f"http://{address}/", "data:", f"blob:http://{address}/"))


def until(page: Any, condition: str) -> Any:
    """Wait until an expression of the page is true, and return it. The page's own rules forbid it to evaluate text."""
    for _ in range(2000):
        found = page.evaluate(condition)
        if found:
            return found
        page.wait_for_timeout(10)
    raise AssertionError(f"{condition} did not come true; the page says {page.inner_text('#status')!r}")


def here(page: Any) -> int:
    return int(page.evaluate("worldloom.state.here"))


def pixels(page: Any) -> list[int]:
    return list(
        page.evaluate(
            "[...document.getElementById('picture').getContext('2d').getImageData(0, 0, 16, 16).data]",
        )
    )


def press(page: Any, key: str, steps: int) -> None:
    for _ in range(steps):
        before = here(page)
        page.keyboard.press(key)
        until(page, f"worldloom.state.here !== {before}")


def test_a_visit_from_the_first_key_to_a_replay_that_looks_the_same(browser: Any, tmp_path: Path) -> None:
    with serving() as (address, _):
        page, wrong = visit(browser, address)
        beginning = here(page)
        press(page, "ArrowRight", STEPS // 2)
        press(page, "ArrowLeft", STEPS // 2)
        assert here(page) == beginning + STEPS
        press(page, "Backspace", 5)
        fork = here(page)
        press(page, "ArrowRight", 5)
        right = here(page)
        assert page.evaluate(f"worldloom.state.moments.get({right - 4}).parent") == fork, "another branch"
        page.click("#whatif-panel summary")
        page.click("#whatif")
        plans = until(page, "worldloom.state.plans && worldloom.state.plans.plans")
        assert len(plans) == 5, "nothing, and both directions of two axes"
        assert page.locator("#grid canvas").count() == 5
        assert here(page) == right, "trying goes nowhere"
        page.click("#paint-panel summary")
        page.click("#paint")
        page.click("#picture", force=True)  # through the canvas that lies above it
        page.click("#edit")
        until(page, f"worldloom.state.here !== {right}")
        assert page.evaluate("worldloom.state.moments.get(worldloom.state.here).kind") == "edit"
        until(page, "document.getElementById('persistence').textContent.includes('100 %')")
        press(page, "ArrowRight", 2)
        page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true })")
        for kind, head in (("png", b"\x89PNG"), ("mp4", b"\x00\x00"), ("dataset", b"PK")):
            with page.expect_download() as download:
                page.click(f"#record-{kind}")
            assert download.value.path().read_bytes().startswith(head)
        with page.expect_download() as download:
            page.click("#save")
        download.value.save_as(tmp_path / "session.json")
        shown, last = pixels(page), here(page)
        other, also_wrong = visit(browser, address)
        other.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true })")
        other.set_input_files("#load", tmp_path / "session.json")
        assert until(other, "worldloom.state.loaded")["identical"] is True
        until(other, f"worldloom.state.here === {last} && worldloom.state.shown === {last}")
        assert pixels(other) == shown
        assert len(json.loads((tmp_path / "session.json").read_text())["digests"]) > STEPS
        assert [*wrong, *also_wrong] == []


def test_a_phone_shows_the_picture_whole_and_plays_by_touch(browser: Any) -> None:
    with serving() as (address, _):
        size = {"width": 390, "height": 844}
        page, wrong = visit(browser, address, viewport=size, has_touch=True, is_mobile=True, color_scheme="dark")
        wide, box = page.evaluate("document.documentElement.scrollWidth"), page.locator("#picture").bounding_box()
        assert wide <= size["width"]
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= size["width"]
        before = here(page)
        page.tap("#live")
        until(page, f"worldloom.state.here > {before + 3}")
        page.tap("#live")
        page.tap("#rewind10")
        until(page, "worldloom.state.here <= 2")
        assert wrong == []


def test_every_control_has_a_name_and_is_reached_by_keyboard(browser: Any) -> None:
    with serving() as (address, _):
        page, wrong = visit(browser, address)
        nameless = page.evaluate(
            """[...document.querySelectorAll('button, input, select, canvas, [role]')]
            .filter((e) => !e.closest('[hidden]') && !(e.textContent.trim() || e.getAttribute('aria-label')
              || (e.labels && e.labels.length) || e.closest('figure')))
            .map((e) => e.outerHTML.slice(0, 80))"""
        )
        assert nameless == []
        reached = set()
        for _ in range(60):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.id"))
        assert {"live", "rewind", "timeline", "help"} <= reached
        page.keyboard.press("?")
        assert page.locator("#help-box").is_visible()
        page.keyboard.press("Escape")
        press(page, "ArrowRight", 3)
        page.focus("#timeline")
        page.keyboard.press("ArrowLeft")
        until(page, "worldloom.state.here === 4")
        until(page, "worldloom.state.latency.length === 3")
        assert np.isfinite(page.evaluate("worldloom.state.latency")).all()
        assert wrong == []


def test_a_page_that_is_loaded_again_has_every_branch(browser: Any) -> None:
    with serving() as (address, _):
        page, wrong = visit(browser, address)
        press(page, "ArrowRight", 3)
        page.keyboard.press("Backspace")
        until(page, "worldloom.state.here === 4")
        press(page, "ArrowLeft", 2)
        nodes = "[...worldloom.state.moments.values()].map((m) => `${m.number} from ${m.parent} in ${m.lane}`).sort()"
        until(page, "worldloom.state.moments.size === 8")
        before = page.evaluate(nodes)
        page.reload()
        until(page, "worldloom.state.here === 7 && worldloom.state.moments.size === 8")
        assert page.evaluate(nodes) == before
        page.keyboard.press("PageUp")
        until(page, "worldloom.state.here === 5 && document.querySelector('[data-waiting]') === null")
        assert wrong == []


def test_real_numbers_are_shown_beside_the_predicted_ones(browser: Any) -> None:
    with serving() as (address, _):
        page, wrong = visit(browser, address)
        page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true })")
        assert "really" not in page.inner_text("#numbers-list")
        page.check("#reality")
        until(page, "document.getElementById('numbers-list').textContent.includes('really')")
        until(page, "document.querySelectorAll('#numbers-list .real:not([hidden])').length === 2")
        press(page, "ArrowRight", 1)
        until(page, "!document.getElementById('numbers-list').textContent.includes('really')")
        page.keyboard.press("Backspace")
        until(page, "document.getElementById('numbers-list').textContent.includes('really')")
        assert wrong == []


def test_nothing_is_cut_off_whatever_the_window_is_wide(browser: Any) -> None:
    with serving() as (address, _):
        page, wrong = visit(browser, address)
        page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true })")
        press(page, "ArrowRight", 3)
        for width in (1280, 1024, 910, 900, 390):
            page.set_viewport_size({"width": width, "height": 800})
            page.wait_for_timeout(100)
            outside = page.evaluate(
                """[...document.querySelectorAll('.deck *, .history *, .panel *')].filter((each) => {
                  const box = each.getBoundingClientRect();
                  const room = each.closest('.deck, .history, .panel').getBoundingClientRect();
                  return box.width > 0 && (box.right > room.right + 1 || box.left < room.left - 1);
                }).map((each) => each.outerHTML.slice(0, 80))"""
            )
            assert outside == [], width
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert wrong == []


def test_an_edit_applies_to_the_node_that_was_painted_on(browser: Any) -> None:
    with serving() as (address, _):
        page, wrong = visit(browser, address)
        press(page, "ArrowRight", 3)
        painted = here(page)
        page.keyboard.press("p")
        page.click("#picture", force=True)
        press(page, "Backspace", 2)
        page.click("#edit")
        until(page, "worldloom.state.moment.kind === 'edit'")
        assert page.evaluate("worldloom.state.moment.parent") == painted - 1
        until(page, "document.getElementById('persistence').textContent.includes('100 %')")
        assert wrong == []


TAP = """const tap = (key) => ['keydown', 'keyup'].forEach((type) =>
    document.body.dispatchEvent(new KeyboardEvent(type, { key, code: key, bubbles: true, cancelable: true })));"""


@pytest.mark.parametrize(("leave", "steps"), [("tap('Backspace')", 1), ("document.getElementById('new').click()", 0)])
def test_queued_steps_are_dropped_when_the_page_goes_elsewhere(browser: Any, leave: str, steps: int) -> None:
    with serving() as (address, _):
        page, wrong = visit(browser, address)
        beginning = here(page)
        page.evaluate(f"{TAP} for (let i = 0; i < 8; i += 1) tap('ArrowRight'); {leave}")
        page.wait_for_timeout(1000)  # in which steps that were kept would be done
        assert here(page) == beginning + steps
        assert wrong == []


def test_plans_that_made_room_for_others_do_not_mix_with_them(browser: Any) -> None:
    with serving() as (address, _):
        page, wrong = visit(browser, address)
        steps = "document.getElementById('plan-steps').value"
        page.evaluate(f"{TAP} {steps} = '20'; tap('g'); {steps} = '3'; tap('g')")
        until(page, "worldloom.state.plans?.plans.every((numbers) => numbers.length === 3)")
        page.wait_for_timeout(200)
        assert page.inner_text("#whatif-step") == "step 3 of 3"
        page.click("#whatif-close")
        page.click("#new")
        until(page, "document.getElementById('whatif-again').hidden")
        assert wrong == []


def test_the_scrubber_stays_where_it_was_put_while_plans_grow(browser: Any) -> None:
    with serving() as (address, _):
        page, wrong = visit(browser, address)
        page.evaluate(f"{TAP} tap('g'); document.getElementById('whatif-scrub').dispatchEvent(new Event('input'))")
        until(page, "worldloom.state.plans")
        page.wait_for_timeout(200)
        assert page.inner_text("#whatif-step").startswith("step 1 of")
        assert wrong == []


def test_a_what_if_that_is_gone_to_shows_where_it_is_unsure(browser: Any) -> None:
    with serving() as (address, _):
        page, wrong = visit(browser, address)
        page.check("#heat")
        page.keyboard.press("g")
        until(page, "worldloom.state.plans")
        before = here(page)
        page.click("#grid button")
        until(page, f"worldloom.state.here > {before}")
        until(page, "worldloom.state.walk.picturesOf(worldloom.state.here).has('heat image')")
        assert wrong == []


def test_nothing_stays_held_after_shift_or_a_gamepad_that_is_pulled_out(browser: Any) -> None:
    with serving() as (address, _):
        page, wrong = visit(browser, address)
        page.evaluate("globalThis.pad = { axes: [1, 0, 0, 0], buttons: [] }; navigator.getGamepads = () => [pad]")
        page.evaluate("dispatchEvent(new Event('gamepadconnected'))")
        until(page, "worldloom.state.controls.sticks.size === 1")
        page.evaluate("globalThis.pad = null")
        until(page, "worldloom.state.controls.sticks.size === 0")
        # Digits are keys of worlds whose actions are choices.
        page.evaluate(
            """import('/page/discrete.js').then(({ Discrete }) => {
              worldloom.state.controls = new Discrete({ kind: 'discrete', size: 3, names: null }, () => {});
            })"""
        )
        page.keyboard.down("Digit1")
        assert page.evaluate("[...worldloom.state.controls.held.down.keys()]") == ["1"]
        page.keyboard.down("Shift")
        page.keyboard.up("Digit1")
        assert page.evaluate("worldloom.state.controls.held.down.size") == 0
        assert wrong == []


def test_a_second_refusal_is_said_again(browser: Any) -> None:
    with serving() as (address, _):
        page, wrong = visit(browser, address)
        page.evaluate(
            """worldloom.said = [];
            new MutationObserver(() => worldloom.said.push(document.getElementById('status-text').textContent))
              .observe(document.getElementById('status-text'), { childList: true })"""
        )
        for box in ("constant", "random", "mine"):
            page.evaluate(f"document.getElementById('plans-{box}').checked = false")
        for _ in range(2):
            page.keyboard.press("g")
            page.wait_for_timeout(200)
        refusal = "Choose at least one kind of plan"
        assert page.evaluate("worldloom.said") == [refusal, "", refusal]
        assert page.locator("#status-text").is_visible()
        assert wrong == []
