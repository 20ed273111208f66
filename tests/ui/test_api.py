"""The endpoints over HTTP, as strangers use and abuse them: the app on an untrained checkpoint, in its own process."""

import asyncio
import base64
import http.client
import importlib.util
import io
import json
import re
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bench import hour
from bench.visitor import Visitor
from dd.export import picture
from dd.models import Models
from dd.recipe import Recipe, RecipeError
from dd.runs import Run
from dd.ui import api
from dd.ui.app import THREADS, build
from dd.ui.controls import refuse
from dd.ui.engine import Engine
from tests.tiny import TINY, write_checkpoint
from tests.ui.conftest import App, running
from tests.ui.test_fuzz import COMPARE, FUZZ, GENERATE, LIKELIHOOD, PICTURES, TELLTALES, mutated, spoilt

REPOSITORY = Path(__file__).parents[2]
QUEUE_SIZE = 4


@pytest.fixture(scope="module")
def tiny_app(tiny_root: Path) -> Iterator[App]:
    with running("--checkpoints", str(tiny_root), "--queue-size", str(QUEUE_SIZE)) as app:
        yield app


@pytest.fixture(scope="module")
def client(tiny_app: App) -> Client:
    return Client(tiny_app.url, verbose=False)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.jpg"
    Image.linear_gradient("L").convert("RGB").save(path)
    return path


def call(app: App, name: str, data: list) -> tuple[str, str]:
    """One call without the client's own checks: ("complete" or "error", what came with it)."""
    body = json.dumps({"data": data}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{app.url}/gradio_api/call/{name}", body, headers)
    event = json.load(urllib.request.urlopen(request, timeout=60))["event_id"]
    with urllib.request.urlopen(f"{app.url}/gradio_api/call/{name}/{event}", timeout=120) as stream:
        text = stream.read().decode()
    *_, last = re.findall(r"event: (\w+)\ndata: (.*)", text)
    return last


# -- what it is for --------------------------------------------------------------------------------------------------


def test_generate_gives_the_run_s_own_picture_and_recipe(client: Client, tiny_root: Path):
    path, made = client.predict(steps=3, images=4, seed=7, api_name="/generate")
    recipe = Recipe.from_json(json.dumps(made))
    assert (recipe.steps, recipe.images, recipe.seed, recipe.checkpoint) == (3, 4, 7, "tiny")
    run = Run(recipe, Models(tiny_root))
    run.exhaust()
    assert Image.open(path).tobytes() == picture(run).tobytes()


def test_generate_streams_every_step(client: Client):
    job = client.submit(steps=4, images=1, frames=True, api_name="/generate")
    *steps, (_, recipe) = list(job)
    states = [state for _, state in steps]
    assert [state["step"] for state in states] == [0, 1, 2, 3]
    times = [state["t"] for state in states]
    assert times[0] == 1
    assert times == sorted(times, reverse=True)
    png = base64.b64decode(states[1]["png"].removeprefix("data:image/png;base64,"))
    assert Image.open(io.BytesIO(png)).width > 100
    assert recipe["steps"] == 4


def test_a_temperature_is_kept_in_the_recipe_and_gives_another_picture(client: Client):
    asked = {"steps": 3, "images": 2, "api_name": "/generate"}
    (own, recipe), (cool, tempered) = client.predict(**asked), client.predict(**asked, temperature=0.5)
    assert (recipe["temperature"], tempered["temperature"]) == (1.0, 0.5)
    assert Image.open(own).tobytes() != Image.open(cool).tobytes()


def test_a_process_alone_brings_its_first_sampler(client: Client):
    _, made = client.predict(steps=3, images=1, process="d3pm-uniform", api_name="/generate")
    assert [(lane["process"], lane["method"]) for lane in made["lanes"]] == [("d3pm-uniform", "ancestral")]


def test_classes_have_numbers_and_names(tmp_path: Path):
    """fashion's names are torchvision's, those of folders are the folders'; a network without classes says so."""
    for name, source, classes in (("garments", "fashion-mnist", 10), ("any", "mnist", 0)):
        network, data = TINY["network"] | {"classes": classes}, TINY["data"] | {"source": source}
        write_checkpoint(tmp_path / name, name=name, network=network, data=data)
    models = Models(tmp_path)
    assert api._class_of(models, "garments", "bag") == api._class_of(models, "garments", 8.0) == 8
    assert api._class_of(models, "garments", "each") == "each"
    assert api._class_of(models, "nowhere", 3) == 3  # of which the run complains
    for label in ("hat", 10, -1, 1.5, None, [1]):
        with pytest.raises(RecipeError, match=r"no class .* of garments; choose one of 0 t-shirt, .*, 9 ankle boot"):
            api._class_of(models, "garments", label)
    with pytest.raises(RecipeError, match="any knows no classes"):
        api._class_of(models, "any", 3)


def test_compare_runs_lanes_at_equal_calls(client: Client):
    lanes = ["dirichlet/heun", "d3pm-absorbing/ancestral", "gaussian/ddim"]
    path, made = client.predict(lanes=lanes, calls=4, images=1, api_name="/compare")
    assert [f"{lane['process']}/{lane['method']}" for lane in made["lanes"]] == lanes
    assert made["equal_calls"] is True
    made_picture = Image.open(path)
    assert made_picture.width > 2.9 * made_picture.height


def test_likelihood_is_repeatable_and_says_how_sure_it_is(client: Client):
    blank = [[0] * 28] * 28
    first = client.predict(blank, draws=24, process="d3pm-absorbing", api_name="/likelihood")
    assert first == client.predict(blank, draws=24, process="d3pm-absorbing", api_name="/likelihood")
    assert first["draws"] == 24
    assert first["nats"] > 0
    assert first["stderr"] > 0
    assert first["bits_per_cell"] == pytest.approx(first["nats"] / 0.6931471805599453 / 784)
    noise = [[(17 * i * i + 31 * j * i + 7 * j) % 5 % 2 for j in range(28)] for i in range(28)]
    other = client.predict(noise, draws=24, process="d3pm-absorbing", api_name="/likelihood")
    assert other["nats"] != first["nats"]


def test_reconstruct_gives_the_picture_back_and_says_how_good_it_is(client: Client, photo: Path):
    path, said = client.predict(handle_file(photo), vqvae="tiny-vqvae", size=64, api_name="/reconstruct")
    assert Image.open(path).size == (64, 64)
    assert said["bits_per_pixel"] == 3 / 16
    assert len(said["codes"]) == len(said["codes"][0]) == 16
    assert said["psnr"] > 0


def test_endpoints_are_documented_and_typed(client: Client):
    info = client.view_api(return_format="dict")["named_endpoints"]
    assert set(info) == {"/generate", "/compare", "/likelihood", "/reconstruct"}
    types = {p["parameter_name"]: p["python_type"]["type"] for p in info["/generate"]["parameters"]}
    assert types["steps"] == "int"
    assert types["label"] == "int | str"
    for endpoint in info.values():
        assert len(endpoint["description"]) > 40
        for argument in endpoint["parameters"]:
            if argument["python_type"]["type"] != "filepath":  # of files the client says how they are handed over
                assert argument["python_type"]["type"] != "Any"
                assert len(argument["python_type"]["description"]) > 5


def snippets(file: str, heading: str) -> list[str]:
    """The indented Python blocks of a section that make or use a client."""
    section = (REPOSITORY / file).read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"(?:^(?:    .*)?\n)+", section, re.MULTILINE)
    return [textwrap.dedent(block) for block in blocks if "client" in block]


def test_the_readme_s_client_works(tiny_app: App, tmp_path: Path):
    (code,) = snippets("README.md", "Call it")
    assert len([line for line in code.splitlines() if line.strip()]) <= 5
    code = code.replace("http://127.0.0.1:7860", tiny_app.url)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    path, sha256 = done.stdout.split()[-2:]
    assert Image.open(path).width > 100, done.stderr
    assert len(sha256) == 64


def test_the_other_recipes_of_the_documentation_work(app: App, tmp_path: Path, photo: Path):
    """On the shipped checkpoints, with a stand-in for the notebook that would show the pictures."""
    first, *more = snippets("docs/deploy.md", "Call it")
    (tmp_path / "photo.jpg").write_bytes(photo.read_bytes())
    (tmp_path / "IPython").mkdir()
    (tmp_path / "IPython" / "__init__.py").touch()
    stand_in = (
        "clear_output = lambda wait: None\ndef Image(x): return x\ndef display(x): print('shown', type(x).__name__)"
    )
    (tmp_path / "IPython" / "display.py").write_text(stand_in)
    code = "\n".join([first, *more, "print(rebuilt, figures['psnr'], bound['nats'])"])
    code = code.replace("http://127.0.0.1:7860", app.url)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("shown bytes") == 32
    assert "32 of 32" not in done.stdout
    assert "31 of 32" in done.stdout


# -- sharing two cores -----------------------------------------------------------------------------------------------


def test_a_long_run_does_not_starve_a_short_one_and_can_be_cancelled(client: Client, tiny_app: App):
    long = client.submit(steps=500, images=64, api_name="/generate")
    while not long.outputs():
        assert not long.done(), long.exception()
        time.sleep(0.1)
    client.predict(steps=4, images=1, api_name="/generate")
    assert not long.done()
    before = len(long.outputs())
    assert before < 500
    long.cancel()
    time.sleep(4)
    busy = tiny_app.cpu_seconds()
    time.sleep(2)
    assert tiny_app.cpu_seconds() - busy < 0.5, "the cancelled run still computes"


def test_full_queue_refuses_clearly(client: Client):
    jobs = [client.submit(steps=20, images=4, api_name="/generate") for _ in range(QUEUE_SIZE + 14)]
    errors = []
    for job in jobs:
        try:
            job.result(timeout=400)
        except Exception as error:
            errors.append(str(error))
    assert errors, "nothing was refused: the queue has no end"
    assert all("Queue is full" in error for error in errors)
    assert len(errors) < len(jobs) - QUEUE_SIZE + 1


def test_who_waits_is_told_the_place_in_the_queue(tiny_app: App):
    """The page's 16 runs at a time are taken; the next two wait, are told where, and move up when others leave."""
    first = Visitor(tiny_app.url)

    def press() -> Iterator[dict]:
        return Visitor(tiny_app.url, first.config).press("generate-run", Steps=500, Images=8)

    runs = []
    for _ in range(16):
        runs.append(press())
        assert any(message["msg"] == "process_starts" for message in runs[-1])
    runs += [press(), press()]
    for place, run in enumerate(runs[16:]):
        message = next(message for message in run if message["msg"] == "estimation" and message["queue_size"] == 2)
        assert message["rank"] == place
    for run in runs[:16]:
        run.close()
    for run in runs[16:]:
        assert any(message["msg"] == "process_generating" for message in run)
        run.close()


def test_a_run_s_work_is_limited(tiny_app: App):
    kind, text = call(
        tiny_app,
        "compare",
        ["tiny", ["dirichlet/ode", "gaussian/ddpm"], 500, 64, "any", 1.0, 0, "default", False, None],
    )
    assert (kind, "more than one run may take" in text) == ("error", True)


def test_nothing_passes_by_the_queue(tiny_app: App):
    """Gradio's direct routes would run without a place in the queue, and as many at a time as are asked for."""
    for route in ("run", "api"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            post(tiny_app, f"{route}/generate", json.dumps({"data": GENERATE}).encode())


def test_a_request_s_size_is_limited(tiny_app: App, client: Client):
    body = b'{"data": ["' + bytes(25 * 2**20) + b'"]}'
    with pytest.raises((urllib.error.URLError, ConnectionError)) as refused:
        post(tiny_app, "call/likelihood", body)
    assert getattr(refused.value, "code", 413) == 413
    assert client.predict(steps=1, images=1, api_name="/generate")[1]["steps"] == 1


def post(app: App, route: str, body: bytes) -> bytes:
    request = urllib.request.Request(f"{app.url}/gradio_api/{route}", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def test_all_limits_together_leave_threads_for_the_page(tiny_root: Path):
    page = build(Models(tiny_root))
    limits = {event.concurrency_id: event.concurrency_limit for event in page.fns.values() if event.fn and event.queue}
    assert all(isinstance(limit, int) for limit in limits.values())
    assert sum(limits.values()) <= THREADS // 2
    assert THREADS != 40, "with 40, Gradio shares the threads of the web server"


@pytest.mark.parametrize("kind", hour.KINDS, ids=lambda kind: kind.__name__)
def test_a_visit_of_the_measured_hour(tiny_app: App, kind: Callable):
    """bench.hour counts what fails, so nothing may fail of its own."""
    kind(hour.arrive(tiny_app.url), 7)


def test_an_api_run_beyond_its_share_gets_a_sentence(tiny_root: Path):
    with running("--checkpoints", str(tiny_root), "--max-seconds", "1e-9") as app:
        kind, said = call(app, "generate", GENERATE)
        assert kind == "error"
        assert "the most one run may take here" in said


def test_a_run_has_a_share_of_the_machine(tiny_root: Path):
    engine = Engine(max_seconds=1e-9)
    run = Run(Recipe("tiny", steps=3, images=1), Models(tiny_root))
    engine.step(run).result()
    with pytest.raises(RecipeError, match="the most one run may take here"):
        engine.step(run)


# -- abuse -----------------------------------------------------------------------------------------------------------

FEW = settings(FUZZ, max_examples=100)  # over HTTP; test_fuzz.py has more


@FEW
@given(
    st.one_of(
        st.tuples(st.just("generate"), spoilt(GENERATE)),
        st.tuples(st.just("compare"), spoilt(COMPARE)),
        st.tuples(st.just("likelihood"), spoilt(LIKELIHOOD)),
    )
)
def test_odd_arguments_get_an_answer_or_a_sentence(tiny_app: App, request_: tuple[str, list]):
    kind, text = call(tiny_app, *request_)
    assert kind in ("complete", "error")
    assert not TELLTALES.search(text)
    if kind == "error":
        message = json.loads(text)
        message = message["error"] if isinstance(message, dict) else message
        assert isinstance(message, str), f"no sentence for {request_}: {text}"
        assert 10 < len(message) < 400


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"data": 1}', b'{"data": []}', b'{"data": [' + b"[" * 5000, b"\xff\xfe"]
)
def test_malformed_bodies_kill_nothing(tiny_app: App, client: Client, body: bytes):
    request = urllib.request.Request(
        f"{tiny_app.url}/gradio_api/call/generate", body, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read().decode()
    except urllib.error.HTTPError as error:
        text = error.read().decode()
    assert "Traceback" not in text
    assert client.predict(steps=1, images=1, api_name="/generate")[1]["steps"] == 1


@settings(FUZZ, max_examples=25)
@given(st.data())
def test_mutated_pictures_get_an_answer_or_a_sentence(tiny_app: App, data: st.DataObject):
    """Real files with bytes changed, cut off or doubled, under any suffix."""
    kind = data.draw(st.sampled_from(list(PICTURES)))
    name = "mutated." + data.draw(st.sampled_from([kind, "png", "svg", "txt", "html"]))
    path = uploaded(tiny_app, name, mutated(data, PICTURES[kind]))
    kind, text = call(tiny_app, "reconstruct", [{"path": path}, "tiny-vqvae", "crop", 32])
    assert kind in ("complete", "error")
    assert not TELLTALES.search(text)
    if kind == "error":
        assert 10 < len(json.loads(text)["error"]) < 400


def uploaded(app: App, name: str, content: bytes) -> str:
    """The path that the app gives an uploaded file."""
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    body = head.encode() + content + b"\r\n--x--\r\n"
    with urllib.request.urlopen(urllib.request.Request(f"{app.url}/gradio_api/upload", body, headers)) as answer:
        return json.load(answer)[0]


@pytest.mark.parametrize("path", ["/etc/passwd", str(REPOSITORY / "dd/ui/static/examples/cat.jpg"), "../x.png", "", 3])
def test_reconstruct_opens_uploads_only(tiny_app: App, path: object):
    for file in ({"path": path}, {"path": path, "meta": {"_type": "gradio.FileData"}}, path):
        kind, text = call(tiny_app, "reconstruct", [file, "tiny-vqvae", "crop", 32])
        assert kind == "error"
        assert not TELLTALES.search(text)


def get(app: App, path: str) -> tuple[int, bytes]:
    """GET with the path exactly as written, redirects not followed."""
    connection = http.client.HTTPConnection(app.url.removeprefix("http://"), timeout=60)
    connection.putrequest("GET", path, skip_host=False)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.read()


SECRETS = ["/etc/passwd", "/proc/self/environ", "app.py", "dd/runs.py", "requirements.txt"]
PREFIXES = ["/gradio_api/file=", "/file=", "/gradio_api/file/", "/gradio_api/stream/", "/static/", "/assets/", "/svg/"]
CLIMBS = [
    "",
    "../../../../../..",
    "..%2f..%2f..%2f..%2f..%2f..%2f",
    "%2e%2e/%2e%2e/%2e%2e/%2e%2e/",
    "....//....//....//",
]


def test_nothing_outside_can_be_read(tiny_app: App, tiny_root: Path):
    secrets = [*SECRETS, str(REPOSITORY / "app.py"), str(tiny_root / "tiny" / "config.json")]
    markers = (b"root:x:0", b"PATH=", b"import argparse", b'"evidence-unet"', b"gradio>=", b"class Recipe")
    for prefix in PREFIXES:
        for climb in CLIMBS:
            for secret in secrets:
                status, body = get(tiny_app, prefix + climb + secret)
                assert not any(marker in body for marker in markers), prefix + climb + secret
                assert status != 200 or b"<html" in body, prefix + climb + secret
    assert get(tiny_app, "/gradio_api/file=/etc/passwd%00.png")[0] >= 400
    assert get(tiny_app, "/gradio_api/proxy=http://127.0.0.1:1/")[0] >= 400


def test_uploads_stay_in_their_folder_and_in_their_size(tiny_app: App):
    for name in ("../../../../tmp/escaped.json", "/etc/escaped.json", "..\\..\\escaped.json"):
        with suppress(urllib.error.HTTPError):
            path = Path(uploaded(tiny_app, name, b"{}"))
            assert ".." not in path.parts
            assert path.parent.parent.name == "gradio"
    assert not Path("/tmp/escaped.json").exists()
    with pytest.raises(urllib.error.HTTPError):
        uploaded(tiny_app, "large.json", bytes(21 * 2**20))


@pytest.mark.parametrize("name", ["a.html", "a.svg", "a.xhtml", "a.js"])
def test_what_visitors_upload_is_never_shown_as_a_page(tiny_app: App, name: str):
    """Under the app's own address it would run as the app's: it is handed out as a file to be saved."""
    path = uploaded(tiny_app, name, b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    with urllib.request.urlopen(f"{tiny_app.url}/gradio_api/file={path}", timeout=60) as answer:
        assert answer.headers["Content-Disposition"].startswith("attachment")


def test_a_path_in_the_place_of_an_upload_is_refused(tiny_app: App):
    """The button "Load recipe" takes what was uploaded, not any path a client makes up."""
    config = json.load(urllib.request.urlopen(f"{tiny_app.url}/config", timeout=60))
    uploads = {c["id"] for c in config["components"] if c["type"] == "uploadbutton"}
    events = [d for d in config["dependencies"] if uploads & set(d["inputs"])]
    assert events
    for event in events:
        for path in ("/etc/passwd", str(REPOSITORY / "app.py"), "../../etc/passwd"):
            file = {"path": path, "meta": {"_type": "gradio.FileData"}}
            data = {"data": [file] * len(event["inputs"]), "fn_index": event["id"], "session_hash": "abuse"}
            request = urllib.request.Request(
                f"{tiny_app.url}/gradio_api/queue/join", json.dumps(data).encode(), {"Content-Type": "application/json"}
            )
            try:
                urllib.request.urlopen(request, timeout=60).close()
            except urllib.error.HTTPError as error:
                assert error.code < 500  # noqa: PT017
                continue
            url = f"{tiny_app.url}/gradio_api/queue/data?session_hash=abuse"
            with urllib.request.urlopen(url, timeout=60) as stream:
                text = stream.read().decode()
            assert '"success":false' in text
            assert "root:x:0" not in text
            assert "argparse" not in text


@pytest.mark.skipif(importlib.util.find_spec("mcp") is None, reason='needs pip install "gradio[mcp]"')
def test_mcp_offers_the_endpoints_as_tools(tiny_root: Path):
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    async def talk(url: str) -> tuple:
        async with (
            streamable_http_client(f"{url}/gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as mcp,
        ):
            await mcp.initialize()
            tools = {tool.name.split("_")[-1]: tool for tool in (await mcp.list_tools()).tools}
            name = tools["generate"].name
            good = await mcp.call_tool(name, {"steps": 2, "images": 1})
            bad = await mcp.call_tool(name, {"steps": 0, "images": 1})
            return tools, good, bad

    with running("--checkpoints", str(tiny_root), "--mcp") as app, ThreadPoolExecutor(1) as pool:
        tools, good, bad = pool.submit(lambda: asyncio.run(talk(app.url))).result()  # Playwright may run a loop here
    assert {"generate", "compare", "likelihood", "reconstruct"} <= set(tools)
    assert tools["generate"].inputSchema["properties"]["steps"]["type"] == "integer"
    assert "running a noise process backwards" in tools["generate"].description
    assert not good.isError
    assert "picture.png" in str(good.content)
    assert bad.isError
    assert "whole number from 1 to 500, not 0" in str(bad.content)


def test_what_the_page_shows_of_a_complaint_is_no_html():
    assert refuse(RecipeError("there is no model '<a href=//x>' here")).message == (
        "There is no model '&lt;a href=//x&gt;' here"
    )


def test_a_port_in_use_gets_a_sentence(tiny_app: App, tiny_root: Path):
    port = tiny_app.url.rsplit(":", 1)[1]
    command = [sys.executable, "app.py", "--checkpoints", str(tiny_root), "--port", port]
    second = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert second.returncode == 1
    assert "Choose another with --port" in second.stderr
    assert "Traceback" not in second.stderr


def test_the_page_may_be_embedded_and_says_nothing_of_its_files(tiny_app: App):
    with urllib.request.urlopen(tiny_app.url, timeout=60) as answer:
        headers, body = answer.headers, answer.read().decode()
    assert headers.get("X-Frame-Options") is None  # a Space shows the page in an iframe
    assert "frame-ancestors" not in (headers.get("Content-Security-Policy") or "")
    assert str(REPOSITORY) not in body
