"""Makes docs/images/play*.png and play.gif: a visit to `worldloom play RUN`, by keyboard, in a real browser.

    python docs/make_play_images.py runs/doom

The story is about a model of Doom's take_cover with the actions left, stay and right. At START two fireballs are on
their way: staying is hit, stepping to the right is not. Another model needs another START, perhaps another `tell`.

Needs Chromium and the extras "play" and "dev".
"""

import argparse
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import which
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import Browser, Page, sync_playwright

IMAGES = Path(__file__).parent / "images"
START = "446:54"  # episode and frame of the run's own data
STAY, RIGHT = "2", "ArrowRight"
HIT = 14  # steps on the spot: hit twice
DODGE = 10  # steps to the right: after them nothing comes for a while, unless it is painted
STEP = 120  # ms a step in the film, which is about how fast the game is
PAPER, INK = "#1d2126", "#f3f2ee"
STRIP = 44  # pixels below the film, for its captions

LARGE: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}, "device_scale_factor": 1.5}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "has_touch": True,
    "is_mobile": True,
}
# Laid out on 960 x 800 and drawn on 720 x 600: the page itself keeps the pixels of the picture whole.
SMALL: dict[str, Any] = {"viewport": {"width": 960, "height": 800}, "device_scale_factor": 0.75}

# "Three by chance" are the same three whenever the pictures are made.
SAME_CHANCE = "{ let seed = 3; Math.random = () => (seed = (seed * 16807) % 2147483647) / 2147483647; }"


@dataclass
class Film:
    """Pictures of a page, how many ms each of them is shown, and what is said below them meanwhile."""

    page: Page
    caption: str = ""
    frames: list[Image.Image] = field(default_factory=list)
    times: list[int] = field(default_factory=list)

    def take(self, ms: int = STEP) -> None:
        shot = picture_of(self.page)
        frame = Image.new("RGB", (shot.width, shot.height + STRIP), PAPER)
        frame.paste(shot)
        font = ImageFont.load_default(19)
        ImageDraw.Draw(frame).text((frame.width / 2, shot.height + STRIP / 2), self.caption, INK, font, anchor="mm")
        self.frames.append(frame)
        self.times.append(ms)

    def say(self, caption: str, ms: int = 1400) -> None:
        self.caption = caption
        self.take(ms)

    def save(self, path: Path) -> None:
        """As a GIF of one palette, so that a frame holds no more than what has changed in it."""
        palette = palette_of(self.frames[:: max(1, len(self.frames) // 12)])
        first, *rest = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in self.frames]
        first.save(path, save_all=True, append_images=rest, duration=self.times, loop=0, optimize=True)


def palette_of(frames: list[Image.Image]) -> Image.Image:
    """Most colours for the frequent ones, of the picture; some for the rare ones of the curves."""
    sample = Image.new("RGB", (frames[0].width, frames[0].height * len(frames)))
    for row, frame in enumerate(frames):
        sample.paste(frame, (0, row * frame.height))
    often = sample.quantize(180, Image.Quantize.MEDIANCUT).getpalette() or []
    rare = sample.quantize(75, Image.Quantize.MAXCOVERAGE).getpalette() or []
    found = Image.new("P", (1, 1))
    found.putpalette(often[: 3 * 180] + rare[: 3 * 75])
    return found


class Visit:
    """A page that is played by keyboard. What is given a film takes a frame of it at every step."""

    def __init__(self, page: Page):
        self.page = page

    def step(self, key: str, times: int = 1, film: Film | None = None) -> None:
        """Actions, held while the picture is taken, so that one sees which."""
        for _ in range(times):
            before = self.page.evaluate("worldloom.state.here")
            self.page.keyboard.down(key)
            until(self.page, f"worldloom.state.here !== {before}")
            self.settle()
            if film:
                film.take()
            self.page.keyboard.up(key)

    def rewind(self, steps: int, film: Film | None = None) -> None:
        for _ in range(steps):
            before = self.page.evaluate("worldloom.state.here")
            self.page.keyboard.press("Backspace")  # held, it would go on by itself
            until(self.page, f"worldloom.state.here !== {before}")
            if film:
                self.settle()
                film.take(STEP // 2)
        self.settle()

    def begin(self, seed: int) -> None:
        """A new session with another seed."""
        self.page.fill("#seed", str(seed))
        self.page.click("#new")
        until(self.page, "document.getElementById('status').dataset.kind === 'said'")
        self.settle()

    def what_if(self, steps: int) -> None:
        """Six plans: each action held, and three by chance. Shown from their first step."""
        self.open("whatif")
        self.page.check("#plans-random")
        self.page.fill("#plan-steps", str(steps))
        self.page.click("#whatif")
        until(self.page, "worldloom.state.plans !== null")
        self.page.focus("#whatif-scrub")
        self.page.keyboard.press("Home")
        self.settle()

    def next_of_plans(self) -> None:
        self.page.keyboard.press("ArrowRight")
        self.settle()

    def paint_fireball(self) -> None:
        """A dab of the brush near the middle of the picture."""
        self.open("paint")
        self.page.keyboard.press("p")
        self.page.fill("#colour", "#fff0a8")
        self.page.fill("#brush", "5")
        box = self.page.locator("#picture").bounding_box()
        assert box is not None
        self.page.mouse.click(box["x"] + box["width"] * 33.5 / 64, box["y"] + box["height"] * 33.5 / 64)
        self.settle()

    def go_on_from_paint(self) -> None:
        before = self.page.evaluate("worldloom.state.here")
        self.page.click("#edit")
        until(self.page, f"worldloom.state.here !== {before}")
        self.page.evaluate("document.querySelector('aside').scrollTo(0, 0)")
        self.settle()

    def show_reality(self) -> None:
        self.open("reality")
        self.page.check("#reality")
        self.settle()

    def replay_recording(self, steps: int, film: Film | None = None) -> None:
        """Do what was really done, until so many steps after the beginning."""
        end = self.page.evaluate("worldloom.state.moment.steps") + steps
        self.page.keyboard.press("x")
        self.page.keyboard.press("Space")  # it began to play by itself, perhaps by a step already
        self.settle()
        while self.page.evaluate("worldloom.state.moment.steps") < end:
            self.step("Enter", 1, film)

    def open(self, panel: str) -> None:
        """Open one panel and close the others; scroll to the top."""
        self.page.evaluate("document.querySelectorAll('aside details').forEach((each) => { each.open = false; })")
        self.page.click(f"#{panel}-panel summary")
        self.page.evaluate("document.querySelector('aside').scrollTo(0, 0)")

    def settle(self) -> None:
        """What the page said has gone, and curves and timeline, which come after the picture, are drawn."""
        self.page.mouse.move(0, 0)
        until(self.page, "document.getElementById('status').dataset.kind !== 'said'")
        self.page.wait_for_timeout(150)


def tell(visit: Visit, film: Film) -> None:
    """The story: played, rewound, played otherwise, compared, painted, and compared with reality."""
    film.say("A world model of Doom: every picture is imagined", 2200)
    film.say("Play: stand still, and a fireball hits", 1000)
    visit.step(STAY, HIT, film)
    film.take(700)
    film.say("Rewind: no node is lost", 900)
    visit.rewind(HIT, film)
    film.say("Do something else: step aside. Both futures stay.", 1200)
    visit.step(RIGHT, DODGE, film)
    film.take(900)
    visit.rewind(DODGE)
    film.say("What if? Several plans from one node, side by side", 1400)
    visit.what_if(DODGE)
    for _ in range(DODGE - 1):
        film.take(2 * STEP)
        visit.next_of_plans()
    film.take(1200)
    visit.page.click("#grid button >> nth=2")
    visit.settle()
    film.say("Choose one, and go on from there", 1300)
    visit.paint_fireball()
    film.say("Change the world: paint a fireball into it ...", 1800)
    visit.go_on_from_paint()
    film.say("... and the model takes it for one", 1000)
    visit.step(STAY, 7, film)
    film.take(900)
    visit.rewind(DODGE + 7)
    visit.show_reality()
    film.say("The real observation beside the prediction", 1600)
    visit.replay_recording(4, film)
    film.say("The trust meter: for how many more steps it is good", 2200)
    visit.page.keyboard.press("l")
    visit.settle()
    film.say("One real observation corrects the belief", 2800)


def two_branches(visit: Visit) -> None:
    """Hit in one, not in the other."""
    visit.step(STAY, HIT)
    visit.rewind(HIT)
    visit.step(RIGHT, DODGE)
    visit.rewind(DODGE)


def fireball(visit: Visit) -> None:
    """Back to where a fireball is near. With this seed it is nearest while the model still predicts it."""
    visit.begin(seed=2)
    two_branches(visit)
    visit.step(STAY, 2)


def six_plans(visit: Visit) -> None:
    visit.what_if(HIT)
    for _ in range(HIT - 2):
        visit.next_of_plans()
    visit.page.focus("#stage")


def beside_reality(visit: Visit) -> None:
    two_branches(visit)
    visit.show_reality()
    visit.replay_recording(1)


def make_images(browser: Browser, address: str, out: Path) -> None:
    stills = {
        "play": (LARGE, fireball),
        "play-what-if": (LARGE, six_plans),
        "play-dark": ({**LARGE, "color_scheme": "dark"}, beside_reality),
        "play-phone": (PHONE, fireball),
    }
    for name, (options, act) in stills.items():
        visit = enter(browser, address, options)
        act(visit)
        picture_of(visit.page).save(out / f"{name}.png", optimize=True)
        visit.page.context.close()
    visit = enter(browser, address, SMALL)
    film = Film(visit.page)
    tell(visit, film)
    film.save(out / "play.gif")


def enter(browser: Browser, address: str, options: dict[str, Any]) -> Visit:
    """A page that shows its first node."""
    page = browser.new_context(**options).new_page()
    page.add_init_script(SAME_CHANCE)
    page.goto(address)
    until(page, "worldloom.state.here !== null")
    page.wait_for_timeout(500)
    return Visit(page)


def until(page: Page, condition: str) -> None:
    """Wait for an expression of the page to be true. The page's own rules forbid it to evaluate text by itself."""
    for _ in range(1200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(25)
    raise TimeoutError(f"{condition} did not come true; the page says {page.inner_text('#status')!r}")


def picture_of(page: Page) -> Image.Image:
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


@contextmanager
def serving(run: Path, start: str) -> Iterator[str]:
    """`worldloom play` on a port of its own; its address."""
    command = [sys.executable, "-m", "worldloom", "play", str(run), "--from", start, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            for line in server.stdout:
                if found := re.search(r"http://\S+", line):
                    yield found[0]
                    return
            raise RuntimeError(f"{' '.join(command)} ended without an address")
        finally:
            server.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a trained run")
    parser.add_argument("--from", dest="start", default=START, help="episode and frame to begin at")
    parser.add_argument("--out", type=Path, default=IMAGES)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    chromium = which("chromium") or which("chromium-browser") or which("google-chrome")
    with serving(arguments.run, arguments.start) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        make_images(browser, address, arguments.out)
        browser.close()


if __name__ == "__main__":
    main()
