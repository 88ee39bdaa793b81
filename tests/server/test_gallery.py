"""The gallery in a real browser, inside a host that speaks MCP Apps (gallery_host.html)."""

from __future__ import annotations

import base64
import functools
import importlib.util
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from PIL import Image

from arta_mcp.engines.base import ImageRequest
from arta_mcp.engines.sketch.engine import draw
from arta_mcp.errors import ArtaError, JobFailed, Unavailable, UnknownStyle
from arta_mcp.generations.values import GeneratedImage, Generation, GenerationRequest
from arta_mcp.server.content import explain, render

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Frame, Page, Route

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-features=IsolateSandboxedIframes",  # in a process of its own it slips page.route
)
HTML = resources.files("arta_mcp.server").joinpath("gallery.html").read_text(encoding="utf-8")
HOST = Path(__file__).with_name("gallery_host.html").read_text(encoding="utf-8")
RECORD = "8c1f6a52-0f6e-4b7e-9a53-2f64d1c7a9b0"
PROMPT = "a red fox in snow at dusk, birch forest, long blue shadows, a warm window far away"
NOTICE = "a sketch by the embedded service, not by an AI model"
Json = Mapping[str, Any]  # what goes over the wire, read by assertions only
SIDE = 1024
"""pixels of the longer side of a picture"""
TRIED = "shots.every(shot => shot.state !== 'waiting')"
HEIGHT = "Math.ceil(document.documentElement.getBoundingClientRect().height)"
FULL_HOST = ("serverTools", "serverResources", "openLinks", "downloadFile")
FONT = {"variables": {"--font-sans": "Inter, sans-serif"}}
EMPTY: Json = {}
MISSING_METHOD = {"error": {"code": -32601, "message": "no such method"}}


def generation(
    n: int = 4,
    *,
    status: Literal["done", "pending"] = "done",
    prompt: str = PROMPT,
    ratio: str = "1:1",
    blurred: Sequence[int] = (),
    url: str = "https://images.test/pictures/{}.png",
    path: str | None = None,
    elapsed: float = 12.4,
) -> Json:
    """What the server says of a generation, as a host passes it on."""
    images = tuple(
        GeneratedImage(url.format(index), "image/png", index in blurred, path)
        for index in range(n)
        if status == "done"
    )
    asked = GenerationRequest.of(prompt=prompt, negative_prompt="", n=n, aspect_ratio=ratio)
    said = render(
        Generation(
            record_id=RECORD,
            status=status,
            backend="local",
            engine="sketch",
            engine_model="sketch",
            model="flux",
            style="Flux",
            request=asked,
            seed=48213377,
            images=images,
            elapsed=elapsed,
            created_at=0,
            notice=NOTICE,
        )
    )
    return said.model_dump(mode="json", by_alias=True, exclude_none=True)


def refusal(error: ArtaError, tool: str = "generate_image") -> Json:
    """An error as the SDK passes it on (its prefix: facts/mcp-sdk.md 1.2)."""
    text = f"Error executing tool {tool}: {explain(error)}"
    return {"isError": True, "content": [{"type": "text", "text": text}]}


@functools.cache
def picture(index: int, ratio: str = "1:1") -> bytes:
    request = ImageRequest(
        PROMPT, "", "Flux", "flux", seed=48213377, index=index, aspect_ratio=ratio
    )
    out = io.BytesIO()
    image = Image.open(io.BytesIO(draw(request))).convert("RGB")
    image.thumbnail((SIDE, SIDE))
    image.save(out, "WEBP")
    return out.getvalue()


def uri(index: int) -> str:
    return f"arta://generations/{RECORD}/images/{index}"


def as_resources(n: int, ratio: str = "1:1") -> dict[str, str]:
    return {uri(index): base64.b64encode(picture(index, ratio)).decode() for index in range(n)}


class Host:
    """The chat application of a test: opens the gallery, answers it, keeps what it said."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.fetched: list[str] = []
        self.complaints: list[str] = []
        self.serves_images = False
        self.stopped = False
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(error.message))
        page.route("**", self._serve)
        page.goto("https://host.test/")

    def _serve(self, route: Route) -> None:
        if route.request.url == "https://host.test/":
            route.fulfill(body=HOST, content_type="text/html")
            return
        self.fetched.append(route.request.url)
        if self.serves_images:
            route.fulfill(body=picture(0), content_type="image/webp")
        else:
            route.abort()

    def open(
        self,
        *greeting: tuple[str, Json],
        able: Sequence[str] = FULL_HOST,
        images: str = "data: blob:",
        looks: Sequence[Json] = (),
        pictures: Mapping[str, str] | None = None,
        refuses: Sequence[str] = (),
        silent: Sequence[str] = (),
        html: str = HTML,
        **context: object,
    ) -> Frame:
        """Shows the gallery; `greeting` is what the host tells it after the handshake."""
        self.page.evaluate(
            "options => open_(options)",
            {
                "html": html,
                "images": images,
                "capabilities": dict.fromkeys(able, EMPTY),
                "context": {"displayMode": "inline", "theme": "light", **context},
                "looks": [dict(look) for look in looks],
                "resources": dict(pictures or {}),
                "refuses": refuses,
                "silent": silent,
                "stopped": self.stopped,
                "greeting": [list(words) for words in greeting],
            },
        )
        self.page.wait_for_function("asked('ui/notifications/initialized').length > 0")
        return self.page.frames[-1]

    def show(self, result: Json, **options: Any) -> Frame:
        """Opens the gallery on a result and waits until every picture was tried."""
        images = len(result["structuredContent"]["images"])
        options.setdefault("pictures", as_resources(images))
        frame = self.open(("tool-result", result), **options)
        if images:
            frame.wait_for_function(f"n => shots.length === n && {TRIED}", arg=images)
        return frame

    def said(self, method: str) -> list[Any]:
        return [message["params"] for message in self.page.evaluate("m => asked(m)", method)]

    def hears(self, method: str, count: int = 1) -> list[Any]:
        """Waits until the gallery said it so often."""
        self.page.wait_for_function("([m, n]) => asked(m).length >= n", arg=[method, count])
        return self.said(method)

    def tell(self, method: str, params: Json) -> None:
        self.page.evaluate("([method, params]) => tell(method, params)", [method, dict(params)])

    def pass_time(self, seconds: int, *, step: int = 2) -> None:
        """Runs the timers of the gallery, `step` seconds at a time: answers come in between."""
        for _ in range(0, seconds, step):
            self.page.frames[-1].evaluate("ms => advance(ms)", step * 1000)
            self.settle()

    def settle(self) -> None:
        """Messages keep their order, so after two pings every question so far is answered."""
        for _ in range(2):
            self.page.evaluate("ping()")

    def keep(self, name: str, artefacts: Path) -> Image.Image:
        """A screenshot of all of the gallery."""
        frame = self.page.frames[-1]
        frame.wait_for_function(f"() => told === {HEIGHT}")
        width = self.page.evaluate("innerWidth")
        height = self.page.evaluate("Math.ceil(frame.getBoundingClientRect().height)")
        self.page.set_viewport_size({"width": width, "height": height})
        data = self.page.screenshot(
            path=artefacts / f"gallery-{name}.png", animations="disabled", scale="device"
        )
        return Image.open(io.BytesIO(data))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser | None]:
    if not (CHROMIUM.exists() and importlib.util.find_spec("playwright")):
        yield None
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=list(ARGUMENTS), chromium_sandbox=False
        )
        yield chromium
        chromium.close()


@pytest.fixture
def new_host(
    browser: Browser | None, need: Callable[[bool, str], None]
) -> Iterator[Callable[..., Host]]:
    """`new_host(width, **context)`: a host page, in a browser context with these options."""
    need(browser is not None, "no /usr/bin/chromium or no playwright")
    assert browser is not None
    hosts: list[Host] = []

    def make(width: int = 900, **options: Any) -> Host:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        hosts.append(Host(context.new_page()))
        return hosts[-1]

    yield make
    for host in hosts:
        host.page.context.close()


@pytest.fixture
def host(new_host: Callable[..., Host]) -> Host:
    return new_host()


@pytest.fixture(scope="session")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = os.environ.get("ARTA_TEST_ARTEFACTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("gallery")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# What it shows


def test_a_result_is_shown_with_all_that_is_known_of_it(host: Host) -> None:
    frame = host.show(generation(2, path="/home/ada/pictures/fox-1.png"))
    assert frame.locator("#large").get_attribute("alt") == f"Picture 1 of 2: {PROMPT}"
    assert frame.locator("#prompt").inner_text() == PROMPT
    facts = re.sub(r"\s+", " ", frame.locator("#facts").inner_text())
    assert facts == (
        "Model Flux Drawn by sketch Ratio 1:1 Seed 48213377 Time 12.4 s"
        " Saved as /home/ada/pictures/fox-1.png"
    )
    assert frame.locator("#notice").inner_text() == _sentence(NOTICE)
    assert frame.locator("#status").inner_text() == "2 pictures ready."
    assert host.complaints == []


def test_roles_and_names_are_what_a_screen_reader_needs(host: Host) -> None:
    frame = host.show(generation(2, blurred=[1]))
    assert frame.locator("main").aria_snapshot() == _outline(
        f"""
        - main:
          - region "Pictures":
            - tabpanel "Picture 1 of 2":
              - 'img "Picture 1 of 2: {PROMPT}"'
              - button "Full view"
            - tablist "Pictures":
              - tab "Picture 1 of 2" [selected]
              - tab "Picture 2 of 2, blurred by the service"
          - region "Details":
            - paragraph: {PROMPT}
            - button "Copy prompt"
            - button "Open"
            - button "Copy address"
            - button "Save"
            - term: Model
            - definition: Flux
            - term: Drawn by
            - definition: sketch
            - term: Ratio
            - definition: 1:1
            - term: Seed
            - definition:
              - text: "48213377"
              - button "Copy seed"
            - term: Time
            - definition: 12.4 s
            - paragraph: {NOTICE}.
        """
    )


def _outline(text: str) -> str:
    lines = text.strip("\n").rstrip().split("\n")
    margin = len(lines[0]) - len(lines[0].lstrip())
    return "\n".join(line[margin:] for line in lines)


def test_a_blurred_picture_is_marked_when_it_is_chosen(host: Host) -> None:
    frame = host.show(generation(2, blurred=[1]))
    assert not frame.locator("#blurred").is_visible()
    frame.locator("#thumb-1").click()
    assert frame.locator("#blurred").inner_text() == "Blurred by the service"


def test_one_picture_has_no_thumbnails(host: Host) -> None:
    frame = host.show(generation(1))
    assert not frame.locator("#thumbs").is_visible()
    assert frame.get_by_role("tabpanel").count() == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("width", "name"), [(900, "wide"), (320, "narrow")])
def test_it_fits_and_reads_at_every_width_and_theme(
    new_host: Callable[..., Host], artefacts: Path, width: int, name: str, theme: str
) -> None:
    host = new_host(width, device_scale_factor=2)
    wide_dark = (width, theme) == (900, "dark")
    ratio, n = ("16:9", 3) if wide_dark else ("1:1", 8 if width < 900 else 4)
    frame = host.show(
        generation(n, ratio=ratio, blurred=[2] if n == 8 else []),
        theme=theme,
        pictures=as_resources(n, ratio),
        styles=FONT,
    )
    assert frame.evaluate("document.documentElement.scrollWidth") == width
    assert frame.locator("[role=tab]").count() == n
    assert frame.evaluate("shots.map(shot => shot.state)") == ["shown"] * n
    for element in ("#prompt", "dt", "#notice"):
        assert _contrast(frame, element) >= 4.5, element
    shot = host.keep(f"{name}-{theme}", artefacts)
    assert shot.convert("L").getpixel((4, 4)) == (255 if theme == "light" else 28)
    assert len(shot.getcolors(maxcolors=1 << 24) or ()) > 5000, "the picture is in the picture"


def _contrast(frame: Frame, selector: str) -> float:
    """WCAG 2.2 contrast of an element's text on the page."""
    back = frame.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    front = frame.locator(selector).first.evaluate("e => getComputedStyle(e).color")
    bright, dark = sorted((_luminance(back), _luminance(front)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_a_very_long_prompt_is_folded_and_unfolds(new_host: Callable[..., Host]) -> None:
    host = new_host(320)
    frame = host.show(generation(1, prompt="unbreakable" * 80 + " " + "many words " * 280))
    folded = frame.locator("#prompt").bounding_box()
    assert frame.evaluate("document.documentElement.scrollWidth") == 320
    frame.get_by_role("button", name="Show all").click()
    unfolded = frame.locator("#prompt").bounding_box()
    assert folded is not None
    assert unfolded is not None
    assert unfolded["height"] > 5 * folded["height"]
    assert frame.get_by_role("button", name="Show less").get_attribute("aria-expanded") == "true"
    assert len(frame.locator("#large").get_attribute("alt") or "") < 330


def test_a_right_to_left_prompt_reads_from_the_right(host: Host) -> None:
    frame = host.show(generation(1, prompt="ثعلب أحمر في الثلج عند الغسق"))
    prompt = frame.locator("#prompt")
    assert prompt.evaluate("e => getComputedStyle(e).direction") == "rtl"
    assert frame.locator("#facts").evaluate("e => getComputedStyle(e).direction") == "ltr"


def test_a_hostile_text_is_text(host: Host) -> None:
    evil = "<script>parent.hacked=1</script><img src=x onerror='parent.hacked=1'>"
    result = dict(generation(1, prompt=evil, path=evil, url="javascript:parent.hacked=1//{}"))
    result["structuredContent"] |= {"notice": evil, "style": evil, "record_id": "../../x?y=<b>"}
    frame = host.show(result)
    assert frame.locator("#prompt").inner_text() == evil
    assert frame.evaluate("document.querySelectorAll('img, script').length") == 3
    assert not frame.get_by_role("button", name="Open").is_enabled()
    assert host.page.evaluate("window.hacked") is None
    assert host.said("resources/read") == [
        {"uri": "arta://generations/..%2F..%2Fx%3Fy%3D%3Cb%3E/images/0"}
    ]
    assert host.fetched == []


def test_a_result_without_structure_is_shown_as_its_text(host: Host) -> None:
    frame = host.open(("tool-result", {"content": [{"type": "text", "text": "1. https://a.b/c"}]}))
    frame.locator("#plain").wait_for()
    assert frame.locator("#plain").inner_text() == "1. https://a.b/c"


# Where the pictures come from


def test_pictures_come_as_resources_and_nothing_else_is_fetched(host: Host) -> None:
    frame = host.show(generation(8))
    assert [asked["uri"] for asked in host.said("resources/read")] == [uri(i) for i in range(8)]
    assert (frame.locator("#large").get_attribute("src") or "").startswith("blob:")
    assert frame.locator("#large").evaluate("e => e.naturalWidth") == SIDE
    assert host.fetched == []
    assert host.complaints == []


def test_where_only_data_is_allowed_the_pictures_are_data(host: Host) -> None:
    frame = host.show(generation(1), images="'self' data:")
    source = frame.locator("#large").get_attribute("src") or ""
    assert source.startswith("data:image/webp;base64,")


@pytest.mark.parametrize("failing", ["refuses", "able"])
def test_a_host_without_resources_gets_them_from_their_address(host: Host, failing: str) -> None:
    host.serves_images = True
    options: dict[str, Any] = (
        {"refuses": ["resources/read"]} if failing == "refuses" else {"able": ["serverTools"]}
    )
    frame = host.show(generation(3), images="https://images.test", **options)
    assert frame.locator("#large").get_attribute("src") == "https://images.test/pictures/0.png"
    assert len(host.said("resources/read")) <= 2
    assert len(set(host.fetched)) == 3


def test_a_host_that_never_answers_a_read_is_asked_no_more(host: Host) -> None:
    host.stopped = True
    host.serves_images = True
    frame = host.open(
        ("tool-result", generation(4)), images="https://images.test", silent=["resources/read"]
    )
    host.hears("resources/read", 2)
    host.pass_time(21)
    frame.wait_for_function(f"() => {TRIED}")
    assert frame.evaluate("shots.map(shot => shot.state)") == ["shown"] * 4
    assert len(host.said("resources/read")) == 2


def test_a_picture_that_cannot_be_shown_leaves_its_address(host: Host, artefacts: Path) -> None:
    frame = host.show(generation(2), pictures={})
    assert "Open its address instead" in frame.locator("#lost").inner_text()
    assert "https://images.test/pictures/0.png" in frame.locator("#lost").inner_text()
    host.keep("lost", artefacts)
    frame.locator("#thumb-1").click()
    frame.get_by_role("button", name="Open").click()
    assert host.hears("ui/open-link") == [{"url": "https://images.test/pictures/1.png"}]


# While it is pending


def test_from_the_arguments_to_the_pictures(new_host: Callable[..., Host], artefacts: Path) -> None:
    host = new_host(700, device_scale_factor=2)
    given = {"arguments": {"prompt": PROMPT, "n": 4, "aspect_ratio": "1:1"}}
    frame = host.open(("tool-input", given), silent=["tools/call"], styles=FONT)
    frame.get_by_text("Drawing 4 pictures", exact=True).wait_for()
    assert frame.locator("main").get_attribute("aria-busy") == "true"
    host.tell("tool-result", generation(4, status="pending", elapsed=50.2))
    assert host.hears("tools/call") == [
        {"name": "get_generation", "arguments": {"record_id": RECORD, "max_wait": 20}}
    ]
    assert frame.locator("#clock").inner_text() == "50 s"
    host.keep("pending", artefacts)
    host.tell("tool-result", generation(4))
    frame.get_by_role("tab", name="Picture 4 of 4").wait_for()
    assert frame.locator("main").get_attribute("aria-busy") == "false"


def test_a_pending_generation_finishes_by_itself(host: Host) -> None:
    pending, done = generation(2, status="pending"), generation(2)
    frame = host.open(("tool-result", pending), looks=[{"result": pending}, {"result": done}])
    frame.get_by_role("tab", name="Picture 2 of 2").wait_for()
    assert len(host.said("tools/call")) == 2
    assert frame.locator("#status").inner_text() == "2 pictures ready."


def test_a_host_that_tells_the_results_of_our_own_looks_changes_nothing(host: Host) -> None:
    host.stopped = True
    pending = generation(2, status="pending")
    frame = host.open(("tool-result", pending), looks=[{"result": pending}])
    host.hears("tools/call")
    host.settle()
    for _ in range(5):
        host.tell("tool-input", {"arguments": {"record_id": RECORD, "max_wait": 20}})
        host.tell("tool-result", pending)
        host.tell("tool-result", refusal(Unavailable("a passing trouble")))
    host.settle()
    assert frame.locator("#stage").is_visible()
    assert not frame.locator("#trouble").is_visible()
    assert len(host.said("tools/call")) == 1
    for _ in range(2):
        host.tell("tool-result", generation(2))
    frame.wait_for_function(f"() => shots.length === 2 && {TRIED}")
    assert len(host.said("resources/read")) == 2


def test_looks_are_bounded_in_number_and_in_time(host: Host) -> None:
    host.stopped = True
    pending = generation(1, status="pending")
    frame = host.open(("tool-result", pending), looks=[{"result": pending}])
    host.pass_time(620, step=20)
    calls = len(host.said("tools/call"))
    assert 25 <= calls <= 40
    assert frame.locator("#sentence").inner_text() == "Still being drawn"
    host.pass_time(120, step=20)
    assert len(host.said("tools/call")) == calls
    frame.get_by_role("button", name="Look again").click()
    host.hears("tools/call", calls + 1)


def test_looks_that_fail_come_slower_and_end_with_a_person(host: Host) -> None:
    host.stopped = True
    gone = refusal(Unavailable("the service does not answer", hint="try later"), "get_generation")
    frame = host.open(
        ("tool-result", generation(1, status="pending")),
        looks=[{"result": gone}],
        pictures=as_resources(1),
    )
    host.settle()
    assert frame.locator("#next").inner_text() == "Looking again in 2 s."
    assert frame.locator("#stage").is_visible()
    host.pass_time(1, step=1)
    assert len(host.said("tools/call")) == 1
    host.pass_time(20)
    assert len(host.said("tools/call")) == 4
    page = host.page
    page.evaluate("answer => { script.looks = [answer]; }", {"result": dict(generation(1))})
    frame.get_by_role("button", name="Look again").click()
    frame.locator("#large").wait_for()
    assert not frame.locator("#trouble").is_visible()


def test_a_host_without_tools_is_asked_once(host: Host) -> None:
    pending = generation(1, status="pending")
    frame = host.open(("tool-result", pending), looks=[MISSING_METHOD])
    frame.get_by_text("Ask for the result in the chat").wait_for()
    assert len(host.said("tools/call")) == 1


def test_teardown_is_answered_and_ends_the_looks(host: Host) -> None:
    host.stopped = True
    pending = generation(1, status="pending")
    host.open(("tool-result", pending), looks=[{"result": pending}])
    host.hears("tools/call")
    host.page.evaluate("send({ id: 'bye', method: 'ui/resource-teardown', params: {} })")
    host.settle()
    assert host.page.evaluate("said.find(m => m.id === 'bye').result") == {}
    looks = len(host.said("tools/call"))
    host.pass_time(60)
    host.tell("tool-result", pending)
    host.pass_time(5)
    assert len(host.said("tools/call")) == looks


# Errors


def test_an_error_is_said_with_its_hint_and_without_a_retry(host: Host, artefacts: Path) -> None:
    error = UnknownStyle("fluxx", ("flux", "f_dev"), hint="did you mean flux or f_dev?")
    frame = host.open(
        ("tool-input", {"arguments": {"prompt": PROMPT, "model": "fluxx"}}),
        ("tool-result", refusal(error)),
        styles=FONT,
    )
    frame.get_by_role("alert").wait_for()
    assert frame.locator("#sentence").inner_text() == _sentence(error.message)
    assert frame.locator("#hint").inner_text() == _sentence(error.hint)
    assert not frame.locator("#again").is_visible()
    assert not frame.locator("#stage").is_visible()
    host.keep("error", artefacts)


def test_a_job_that_failed_says_so_in_the_words_of_the_service(host: Host) -> None:
    host.stopped = True
    failed = refusal(JobFailed("the service gave the job up: NSFW", record_id=RECORD))
    frame = host.open(("tool-result", generation(1, status="pending")), looks=[{"result": failed}])
    host.hears("tools/call")
    host.pass_time(20)
    assert frame.locator("#sentence").inner_text() == _sentence("the service gave the job up: NSFW")
    assert frame.get_by_role("button", name="Look again").is_visible()


def _sentence(text: str) -> str:
    """As a person sees it: our messages begin with a small letter, the page with a capital."""
    return text[:1].upper() + text[1:]


def test_a_stopped_call_is_told_calmly(host: Host) -> None:
    frame = host.open(
        ("tool-input", {"arguments": {"prompt": PROMPT}}), ("tool-cancelled", {"reason": "by you"})
    )
    frame.get_by_text("by you").wait_for()
    assert frame.locator("#trouble").get_attribute("class") == "mild"
    assert frame.locator("main").get_attribute("aria-busy") == "false"


# By keyboard and by hand


def test_the_keyboard_reaches_everything(host: Host) -> None:
    frame = host.show(generation(8))
    keyboard = host.page.keyboard
    frame.locator("#thumb-0").focus()
    for key, chosen in [("ArrowRight", 1), ("End", 7), ("ArrowRight", 0), ("ArrowLeft", 7)]:
        keyboard.press(key)
        assert frame.evaluate("document.activeElement.id") == f"thumb-{chosen}"
        assert frame.locator("[aria-selected=true]").get_attribute("id") == f"thumb-{chosen}"
    keyboard.press("Home")
    keyboard.press("Enter")
    full = frame.get_by_role("dialog", name="Full view")
    full.wait_for()
    keyboard.press("ArrowRight")
    assert frame.locator("#full-count").inner_text() == "2 / 8"
    assert frame.locator("#full-image").get_attribute("alt") == f"Picture 2 of 8: {PROMPT}"
    keyboard.press("Escape")
    assert not full.is_visible()
    assert frame.locator("#thumbs [tabindex='0']").count() == 1


def test_focus_is_sentence(host: Host) -> None:
    frame = host.show(generation(2))
    host.page.keyboard.press("Tab")
    focused = "getComputedStyle(document.activeElement)"
    assert frame.evaluate(f"[{focused}.outlineStyle, {focused}.outlineWidth]") == ["solid", "2px"]


def test_full_view_asks_the_host_for_the_whole_screen(host: Host) -> None:
    frame = host.show(generation(1), availableDisplayModes=["inline", "fullscreen"])
    frame.get_by_role("button", name="Full view").click()
    assert host.hears("ui/request-display-mode") == [{"mode": "fullscreen"}]
    frame.get_by_role("button", name="Close full view").click()
    assert host.hears("ui/request-display-mode", 2)[1] == {"mode": "inline"}


def test_a_host_that_leaves_the_whole_screen_closes_the_full_view(host: Host) -> None:
    frame = host.show(generation(1), availableDisplayModes=["inline", "fullscreen"])
    frame.get_by_role("button", name="Full view").click()
    frame.wait_for_function("() => host.displayMode === 'fullscreen'")
    host.tell("host-context-changed", {"displayMode": "inline"})
    frame.locator("#full").wait_for(state="hidden")


def test_copying_works_in_a_frame_without_the_permission(host: Host) -> None:
    frame = host.show(generation(2))
    frame.evaluate(
        "window.copied = [];"
        "addEventListener('copy', ({ target }) => copied.push(target.value), true);"
    )
    for button in ("Copy address", "Copy prompt", "Copy seed"):
        frame.get_by_role("button", name=button).click()
    frame.wait_for_function("() => copied.length === 3")
    assert frame.evaluate("copied") == ["https://images.test/pictures/0.png", PROMPT, "48213377"]
    assert frame.locator("#status").inner_text() == "Copied seed."


def test_an_address_that_the_host_does_not_open_is_left_to_copy(host: Host) -> None:
    frame = host.show(generation(1), refuses=["ui/open-link"])
    frame.get_by_role("button", name="Open").click()
    frame.locator("#manual").wait_for()
    assert frame.locator("#manual input").input_value() == "https://images.test/pictures/0.png"


def test_a_picture_is_saved_through_the_host(host: Host) -> None:
    frame = host.show(generation(1))
    frame.get_by_role("button", name="Save").click()
    [asked] = host.hears("ui/download-file")
    [content] = asked["contents"]
    assert content["resource"]["uri"] == f"file:///{RECORD}-1.webp"
    assert base64.b64decode(content["resource"]["blob"]) == picture(0)


def test_without_downloads_there_is_no_save(host: Host) -> None:
    frame = host.show(generation(1), able=["serverTools", "serverResources"])
    assert not frame.locator("#save").is_visible()


# How it lives in its host


def test_it_introduces_itself_as_the_specification_says(host: Host) -> None:
    host.show(generation(1))
    [hello] = host.said("ui/initialize")
    assert hello["protocolVersion"] == "2026-01-26"
    assert hello["appCapabilities"] == {"availableDisplayModes": ["inline", "fullscreen"]}
    first = host.page.evaluate("said.filter(m => m.method && m.id !== undefined)[0].method")
    assert first == "ui/initialize"


def test_its_height_is_told_and_settles(host: Host) -> None:
    frame = host.show(generation(4))
    frame.wait_for_function(f"() => told === {HEIGHT}")
    heights = [size["height"] for size in host.said("ui/notifications/size-changed")]
    real = frame.evaluate(HEIGHT)
    assert heights[-1] == real
    assert real <= 640
    assert len(heights) <= 8
    assert frame.evaluate("document.documentElement.scrollHeight <= innerHeight")


def test_a_low_host_gets_a_low_picture(host: Host) -> None:
    frame = host.show(generation(1), containerDimensions={"width": 900, "maxHeight": 420})
    box = frame.locator("#stage").bounding_box()
    assert box is not None
    assert box["height"] <= 230


def test_the_theme_follows_the_host(host: Host) -> None:
    frame = host.show(generation(1), theme="light")
    background = "getComputedStyle(document.documentElement).backgroundColor"
    assert frame.evaluate(background) == "rgb(255, 255, 255)"
    host.tell("host-context-changed", {"theme": "dark"})
    frame.wait_for_function(f"() => {background} !== 'rgb(255, 255, 255)'")
    assert _contrast(frame, "#prompt") >= 7


def test_without_a_theme_the_system_decides(new_host: Callable[..., Host]) -> None:
    host = new_host(color_scheme="dark")
    frame = host.show(generation(1), theme=None)
    assert _luminance(frame.evaluate("getComputedStyle(document.body).color")) > 0.7


def test_colours_of_the_host_are_taken_whole_or_not_at_all(host: Host) -> None:
    half = {"variables": {"--color-text-primary": "rgb(250, 250, 250)"}}
    frame = host.show(generation(1), styles=half)
    colour = "getComputedStyle(document.body).color"
    assert frame.evaluate(colour) != "rgb(250, 250, 250)"
    whole = {"--color-background-primary": "rgb(1, 2, 3)", **half["variables"]}
    host.tell("host-context-changed", {"styles": {"variables": whole}})
    frame.wait_for_function(f"() => {colour} === 'rgb(250, 250, 250)'")


def test_who_asks_for_less_motion_gets_none(new_host: Callable[..., Host]) -> None:
    host = new_host(reduced_motion="reduce")
    frame = host.open(("tool-input", {"arguments": {"prompt": PROMPT, "n": 2}}))
    frame.get_by_text("Drawing 2 pictures", exact=True).wait_for()
    assert frame.evaluate("document.getAnimations().length") == 0


def test_only_the_host_is_heard(host: Host) -> None:
    frame = host.show(generation(1))
    forged: Json = {"jsonrpc": "2.0", "method": "ui/notifications/tool-cancelled"}
    frame.evaluate("message => postMessage(message, '*')", dict(forged))
    host.page.evaluate("send({ id: 1e6, method: 'no/such' })")
    host.settle()
    assert host.page.evaluate("said.find(m => m.id === 1e6).error.code") == -32601
    assert frame.locator("#large").is_visible()


def test_the_file_needs_nothing_and_trusts_nothing() -> None:
    assert len(HTML.encode()) <= 35_000
    code = re.sub(r"<!--.*?-->|/\*.*?\*/|//[^\n]*", "", HTML, flags=re.DOTALL)
    for word in ("innerHTML", "outerHTML", "insertAdjacent", "eval(", "Function(", "fetch("):
        assert word not in code, word
    assert set(re.findall(r"https?://[^\s\"'`\\^]+", code)) <= {"http://www.w3.org/2000/svg"}
    assert "localStorage" not in code
