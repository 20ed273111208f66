"""The page in a real browser, as a visitor would use it, on the shipped checkpoints."""

import json
import re
import time
from pathlib import Path

import pytest
from PIL import Image

from bench.visitor import Visitor
from dd.samplers import EVERYWHERE
from dd.ui.controls import SCHEDULE_NAMES
from dd.ui.transport import FOUR
from tests.ui.conftest import offered

pytestmark = pytest.mark.browser

DONE = "(id) => document.querySelector(`#${id} [data-done='1'], #${id}[data-done='1']`) !== null"
FRAMES = """(id) => {
  const root = document.querySelector('#' + id);
  const holder = [root, ...root.querySelectorAll('*')].find((e) => e.ddFrames);
  return holder ? holder.ddFrames().filter(Boolean).length : 0;
}"""
PINS = "([id, n]) => document.querySelectorAll(`#${id}-explorer figure`).length === n"
STEP = "(id) => (document.querySelector(`#${id} [data-step], #${id}[data-step]`) || {dataset: {}}).dataset.step"
NUMBERS = re.compile(r"t = ([\d.]+) entropy ([\d.]+) bits (\d+) calls (\d+) ms")
PIXELS = "(s) => [...document.querySelectorAll(s + ' canvas')].map((c) => c.toDataURL())"


def set_slider(page, label: str, value: int) -> None:
    field = page.get_by_label(f"number input for {label}").locator("visible=true")
    field.fill(str(value))
    field.press("Enter")


def wait_done(page, player: str) -> None:
    page.wait_for_function(DONE, arg=player, timeout=120_000)


def scrub(page, player: str, step: int) -> None:
    slider = page.locator(f"#{player} input[type=range]")
    slider.evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); }", step)


def test_run_shows_every_step_and_scrubs_without_the_server(page):
    set_slider(page, "Steps", 8)
    page.click("#generate-run")
    wait_done(page, "generate-player")
    assert page.evaluate(FRAMES, "generate-player") == 9
    last = page.evaluate(PIXELS, "#generate-player")
    page.context.set_offline(True)
    scrub(page, "generate-player", 3)
    third = page.evaluate(PIXELS, "#generate-player")
    scrub(page, "generate-player", 0)
    assert len({last[0], third[0], page.evaluate(PIXELS, "#generate-player")[0]}) == 3
    scrub(page, "generate-player", 3)
    assert page.evaluate(PIXELS, "#generate-player") == third
    page.context.set_offline(False)


def test_keys_scrub_and_replay_on_a_picture(page):
    set_slider(page, "Steps", 6)
    page.click("#generate-run")
    wait_done(page, "generate-player")
    page.locator("#generate-player canvas").first.focus()
    for key, step in (("Home", 0), ("ArrowRight", 1), ("ArrowLeft", 0), ("End", 6), ("ArrowRight", 6)):
        page.keyboard.press(key)
        assert page.evaluate(STEP, "generate-player") == str(step)
    page.keyboard.press("Home")
    page.keyboard.press("Space")
    page.wait_for_function(f"({STEP})('generate-player') === '6'", timeout=30_000)


def test_tab_walks_through_the_controls_and_leaves_no_list_open(page):
    page.wait_for_timeout(1000)  # the page's own keys work from when it has been set up
    page.keyboard.press("Tab")
    names = []
    while "Run" not in names:
        assert len(names) < 40, names
        page.keyboard.press("Tab")
        names.append(page.evaluate("document.activeElement.ariaLabel || document.activeElement.innerText.trim()"))
    assert {"Data", "Process", "Sampler", "number input for Steps", "Class", "New seed"} <= set(names)
    page.get_by_role("option").locator("visible=true").first.wait_for(state="hidden", timeout=5_000)
    page.keyboard.press("Space")
    page.wait_for_function(f"Number(({STEP})('generate-player')) >= 1", timeout=60_000)
    page.click("#generate-reset")


def test_step_is_exactly_one_step_and_reset_clears(page):
    """The first press shows the noise, too."""
    for expected in ("1", "2", "3"):
        page.click("#generate-step")
        page.wait_for_function(f"({STEP})('generate-player') === '{expected}'", timeout=60_000)
    page.wait_for_timeout(1000)
    assert page.evaluate(STEP, "generate-player") == "3"
    assert page.evaluate(FRAMES, "generate-player") == 4
    page.click("#generate-reset")
    page.wait_for_function(f"({STEP})('generate-player') === ''", timeout=30_000)
    assert page.evaluate(FRAMES, "generate-player") == 0


def test_pause_stops_and_run_goes_on_from_there(page):
    set_slider(page, "Steps", 200)
    page.click("#generate-run")
    page.wait_for_function(f"Number(({STEP})('generate-player')) >= 3", timeout=60_000)
    page.click("#generate-pause")
    page.wait_for_timeout(1000)
    paused = page.evaluate(STEP, "generate-player")
    page.wait_for_timeout(1000)
    assert page.evaluate(STEP, "generate-player") == paused
    assert int(paused) < 200
    page.click("#generate-run")
    page.wait_for_function(f"Number(({STEP})('generate-player')) > {paused}", timeout=60_000)
    page.click("#generate-reset")


def test_downloads_and_a_recipe_that_reloads_into_the_same_picture(page, tmp_path):
    set_slider(page, "Steps", 6)
    page.get_by_label("Seed").locator("visible=true").fill("7")
    page.click("#generate-run")
    wait_done(page, "generate-player")
    picture = page.evaluate(PIXELS, "#generate-player")
    files = {}
    for kind in ("png", "gif", "webp", "json"):
        with page.expect_download(timeout=60_000) as download:
            page.click(f"#generate-{kind}")
        files[kind] = tmp_path / download.value.suggested_filename
        assert files[kind].suffix == f".{kind}"
        download.value.save_as(files[kind])
    assert Image.open(files["gif"]).n_frames == 7
    recipe = json.loads(files["json"].read_text())
    assert (recipe["seed"], recipe["steps"]) == (7, 6)
    page.reload()
    page.wait_for_selector("#generate-run")
    page.set_input_files("input[type=file]", str(files["json"]))
    wait_done(page, "generate-player")
    assert page.evaluate(PIXELS, "#generate-player") == picture


def test_bad_recipe_file_gets_a_sentence(page, tmp_path):
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    page.set_input_files("input[type=file]", str(bad))
    page.get_by_text("this is not a recipe").first.wait_for(timeout=30_000)


def test_two_visitors_do_not_share_state(page, browser, app_url):
    other = browser.new_context().new_page()
    other.goto(app_url)
    other.wait_for_selector("#generate-run")
    set_slider(page, "Steps", 5)
    page.click("#generate-run")
    wait_done(page, "generate-player")
    assert other.evaluate(FRAMES, "generate-player") == 0
    other.click("#generate-png")
    other.get_by_text("nothing to download yet").first.wait_for(timeout=30_000)
    other.context.close()


def test_who_waits_sees_the_place_in_the_queue(page, app_url):
    first = Visitor(app_url)
    others = [Visitor(app_url, first.config).press("generate-run", Steps=500, Images=4) for _ in range(16)]
    for other in others:
        assert any(message["msg"] == "process_starts" for message in other)
    stage = page.locator("#generate-player").bounding_box()
    set_slider(page, "Steps", 4)
    page.click("#generate-run")
    place = page.locator("#generate-place").get_by_text("queue: 1/1")
    place.wait_for(timeout=60_000)
    text, line = place.bounding_box(), page.locator("#generate-place").bounding_box()
    assert line["y"] <= text["y"], "the words are outside their line"
    assert text["y"] + text["height"] <= line["y"] + line["height"] + 1
    assert page.locator("#generate-player").bounding_box() == stage, "waiting moves the page"
    for other in others:
        other.close()
    wait_done(page, "generate-player")
    assert page.locator("#generate-place").inner_text().strip() == FOUR
    assert page.locator("#generate-place p").evaluate("(p) => getComputedStyle(p).visibility") == "visible"
    assert page.locator("#generate-player").bounding_box() == stage


def test_process_changes_the_samplers_and_options_on_offer(page):
    page.get_by_text("Options of process and sampler").first.click()
    dilation = page.get_by_text("Time dilation c", exact=True)
    dilation.wait_for()
    assert offered(page, "Schedule") == [SCHEDULE_NAMES[kind] for kind in EVERYWHERE]
    page.get_by_label("Process", exact=True).locator("visible=true").click()
    page.get_by_role("option", name="D3PM, absorbing").click()
    dilation.wait_for(state="hidden")
    page.get_by_label("Schedule", exact=True).locator("visible=true").click()
    page.get_by_role("option", name="even in t", exact=True).click()
    page.get_by_label("Seed").locator("visible=true").click()
    assert len(offered(page, "Schedule")) == len(EVERYWHERE) - 1  # this process' own time is t itself
    set_slider(page, "Steps", 4)
    page.click("#generate-run")
    wait_done(page, "generate-player")
    eta, temperature = (page.get_by_label(f"number input for {name}") for name in ("eta", "Temperature"))
    assert not eta.locator("visible=true").count()
    choose(page, "Data", "fashion")
    assert page.get_by_label("Process", exact=True).locator("visible=true").input_value() == "D3PM, absorbing", "kept"
    choose(page, "Process", "Gaussian on one-hots")
    eta.locator("visible=true").wait_for()
    choose(page, "Sampler", "DDIM (ODE)")
    eta.locator("visible=true").wait_for(state="hidden")
    assert temperature.locator("visible=true").count() == 1
    choose(page, "Process", "DDPM on pixels, its own network")
    temperature.locator("visible=true").wait_for(state="hidden")
    choose(page, "Data", "digits")  # which has no such network
    temperature.locator("visible=true").wait_for()
    process = "Dirichlet (Wright-Fisher)"
    assert page.get_by_label("Process", exact=True).locator("visible=true").input_value() == process


def test_lanes_that_another_data_set_has_are_kept_and_a_race_of_ddpms_has_no_temperature(page):
    page.get_by_role("tab", name="Compare").click()
    temperature = page.get_by_label("number input for Temperature").locator("visible=true")
    choose(page, "Data", "fashion")
    for _ in range(4):
        page.get_by_role("button", name="Remove").locator("visible=true").first.click()
    for method in ("DDPM (ancestral)", "DDIM (ODE)"):
        add_lane(page, f"DDPM on pixels, its own network · {method}")
    temperature.wait_for(state="hidden")
    set_slider(page, "Network calls", 4)
    page.click("#compare-run")
    wait_done(page, "compare-player")
    assert page.locator("#compare-player .dd-curve *").count() == 0, "a curve of entropies that there are none of"
    add_lane(page, "D3PM, uniform · Ancestral")
    temperature.wait_for()
    add_lane(page, "Multinomial · Ancestral")
    choose(page, "Data", "digits")  # which has two of the four
    page.wait_for_timeout(1000)
    assert page.get_by_role("button", name="Remove").locator("visible=true").count() == 2


def test_other_data_begin_at_calls_that_were_measured_unless_those_set_were(page):
    page.get_by_role("tab", name="Compare").click()
    calls = page.get_by_label("number input for Network calls").locator("visible=true")
    status, words = page.locator("#compare-player .dd-status"), "settings were changed"
    assert calls.input_value() == "100"
    set_slider(page, "Network calls", 25)
    choose(page, "Data", "fashion")  # measured at 25, too
    page.wait_for_timeout(1000)
    assert calls.input_value() == "25"
    choose(page, "Data", "faces")
    page.wait_for_function("e => e.value === '50'", arg=calls.element_handle(), timeout=10_000)
    set_slider(page, "Network calls", 4)
    set_slider(page, "Images", 1)
    page.click("#compare-run")
    wait_done(page, "compare-player")
    assert words not in status.inner_text()
    choose(page, "Data", "digits")
    status.get_by_text(words).wait_for(timeout=10_000)
    page.wait_for_function("e => e.value === '100'", arg=calls.element_handle(), timeout=10_000)
    page.click("#compare-run")
    status.get_by_text("of 100").wait_for(timeout=60_000)
    assert words not in status.inner_text()
    page.click("#compare-reset")


def add_lane(page, name: str) -> None:
    page.get_by_label("Lanes", exact=True).locator("visible=true").click()
    page.get_by_role("option", name=name, exact=True).click()
    page.get_by_label("Seed", exact=True).locator("visible=true").click()  # elsewhere: the list is closed
    page.get_by_role("option").first.wait_for(state="hidden")


def choose(page, label: str, option: str) -> None:
    page.get_by_label(label, exact=True).locator("visible=true").click()
    page.get_by_role("option", name=option, exact=True).click()
    page.wait_for_timeout(500)


def test_guidance_can_be_set_only_where_there_is_a_class(page):
    guidance = page.get_by_label("number input for Guidance").locator("visible=true")
    for name, enabled in (("any", False), ("7", True)):
        page.get_by_label("Class", exact=True).locator("visible=true").click()
        page.get_by_role("option", name=name, exact=True).click()
        page.wait_for_function("([e, on]) => e.disabled !== on", arg=[guidance.element_handle(), enabled])


def test_clicked_cells_show_their_paths_and_follow_the_timeline(page):
    set_slider(page, "Steps", 5)
    page.click("#generate-run")
    wait_done(page, "generate-player")
    click_cells(page, "generate-player", [(30, 30), (80, 90)])
    plots = page.locator("#generate-player-explorer .dd-plots")
    assert plots.locator("svg").first.locator("polyline").count() == 8  # state and posterior, whole and so far, twice
    before = plots.inner_html()
    scrub(page, "generate-player", 1)
    assert plots.inner_html() != before
    assert "step 1" in page.locator("#generate-player-explorer .dd-legend").inner_text()
    assert page.locator("#generate-player .dd-pin").count() == 4  # in the state and in the guess
    page.locator("#generate-player canvas").first.click(position={"x": 80, "y": 90})  # once more: taken away
    page.wait_for_function(PINS, arg=["generate-player", 1])
    page.click("#generate-reset")
    page.wait_for_function(PINS, arg=["generate-player", 0])
    assert page.locator("#generate-player .dd-pin").count() == 0


def test_a_path_goes_on_with_its_run_and_ends_where_the_picture_does(page):
    """Clicked within the run: whole when that is over, and the state at a corner, as the picture has it."""
    set_slider(page, "Steps", 40)
    page.click("#generate-run")
    page.wait_for_function(f"Number(({STEP})('generate-player')) >= 2", timeout=60_000)
    page.locator("#generate-player canvas").first.click(position={"x": 50, "y": 50})
    plots = page.locator("#generate-player-explorer")
    plots.get_by_text("solid: state").wait_for()
    wait_done(page, "generate-player")
    plots.get_by_text("step 40").first.wait_for(timeout=10_000)
    bars = plots.locator(".dd-cards svg rect[opacity]").evaluate_all("all => all.map((e) => +e.getAttribute('height'))")
    assert min(bars) == 0 < max(bars)


def test_every_press_of_step_is_a_step(page):
    """Quicker than the app answers; Reset forgets those that are still to come."""
    set_slider(page, "Steps", 100)
    for _ in range(6):
        page.click("#generate-step", delay=0)
    page.wait_for_function(f"({STEP})('generate-player') === '6'", timeout=60_000)
    page.wait_for_timeout(1000)
    assert page.evaluate(STEP, "generate-player") == "6"
    for _ in range(6):
        page.click("#generate-step", delay=0)
    page.click("#generate-reset")
    page.wait_for_timeout(2000)
    assert page.evaluate(STEP, "generate-player") == ""
    assert page.evaluate(FRAMES, "generate-player") == 0


def test_a_refused_step_is_owed_no_longer(page):
    page.get_by_role("tab", name="Compare").click()
    lanes = page.get_by_label("Lanes", exact=True).locator("visible=true")
    for _ in range(3):  # of four
        lanes.press("Backspace")
    for _ in range(3):
        page.click("#compare-step", delay=0)
    page.get_by_text("Choose at least two lanes").first.wait_for(timeout=30_000)
    page.wait_for_timeout(1500)
    lanes.press("ArrowDown")
    page.get_by_role("option", name="D3PM, absorbing").click()
    set_slider(page, "Network calls", 4)
    page.click("#compare-step")
    page.wait_for_function(f"({STEP})('compare-player') === '1'", timeout=60_000)
    page.wait_for_timeout(2000)
    assert page.evaluate(STEP, "compare-player") == "1"


def test_load_forgets_presses_of_step(page, tmp_path):
    recipe = tmp_path / "recipe.json"
    lane = {"process": "dirichlet", "method": "dirichlet"}
    recipe.write_text(json.dumps({"checkpoint": "digits", "lanes": [lane], "steps": 30, "images": 4, "seed": 3}))
    set_slider(page, "Steps", 200)
    for _ in range(12):
        page.click("#generate-step", delay=0)
    with page.expect_file_chooser() as chooser:
        page.click("#generate-load")
    chooser.value.set_files(str(recipe))
    wait_done(page, "generate-player")
    assert page.evaluate(STEP, "generate-player") == "30"


def test_that_settings_have_changed_is_said_until_another_run_begins(page):
    set_slider(page, "Steps", 5)
    page.click("#generate-run")
    wait_done(page, "generate-player")
    status, words = page.locator("#generate-player .dd-status"), "settings were changed"
    assert words not in status.inner_text()
    set_slider(page, "Images", 4)
    status.get_by_text(words).wait_for(timeout=10_000)
    page.click("#generate-run")
    page.wait_for_function("document.querySelector('#generate-player canvas').width < 100", timeout=60_000)
    wait_done(page, "generate-player")
    assert words not in status.inner_text()
    page.click("#generate-dice")
    status.get_by_text(words).wait_for(timeout=10_000)


def test_run_starts_over_while_a_run_with_other_settings_goes_on(page):
    set_slider(page, "Steps", 200)
    set_slider(page, "Images", 4)
    page.click("#generate-run")
    page.wait_for_function(f"Number(({STEP})('generate-player')) >= 3", timeout=60_000)
    set_slider(page, "Steps", 6)
    status = page.locator("#generate-player .dd-status")
    status.get_by_text("settings were changed").wait_for(timeout=10_000)
    page.click("#generate-run")
    status.get_by_text("step 6 of 6").wait_for(timeout=30_000)


def test_a_loaded_recipe_is_no_change_of_settings(page, tmp_path):
    set_slider(page, "Steps", 5)
    page.click("#generate-run")
    wait_done(page, "generate-player")
    with page.expect_download() as download:
        page.click("#generate-json")
    download.value.save_as(tmp_path / "recipe.json")
    page.click("#generate-reset")
    set_slider(page, "Steps", 20)
    with page.expect_file_chooser() as chooser:
        page.click("#generate-load")
    chooser.value.set_files(tmp_path / "recipe.json")
    status = page.locator("#generate-player .dd-status")
    status.get_by_text("step 5 of 5").wait_for(timeout=30_000)
    assert "settings were changed" not in status.inner_text()


def test_cells_can_be_chosen_with_the_keyboard(page):
    """Three right and one down from the first cell, over the edge of the first image and back."""
    set_slider(page, "Steps", 5)
    page.click("#generate-run")
    wait_done(page, "generate-player")
    page.locator("#generate-player canvas").first.focus()
    page.keyboard.press("Shift+ArrowRight")  # the first cell
    for key in ("ArrowRight",) * 30 + ("ArrowDown",) + ("ArrowLeft",) * 27 + ("ArrowUp",) * 3:
        page.keyboard.press(f"Shift+{key}")
    assert page.locator("#generate-player .dd-cursor").count() == 1
    page.keyboard.press("Enter")
    page.get_by_text("image 1, row 1, column 4").wait_for(timeout=10_000)
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(STEP, "generate-player") == "4"
    page.keyboard.press("Tab")
    assert page.locator("#generate-player .dd-cursor").count() == 0
    page.click("#generate-reset")


def test_who_looks_at_an_earlier_step_of_a_run_is_left_there(page):
    set_slider(page, "Steps", 200)
    page.click("#generate-run")
    page.wait_for_function(f"Number(({STEP})('generate-player')) >= 5", timeout=60_000)
    scrub(page, "generate-player", 2)
    page.wait_for_function(f"({FRAMES})('generate-player') >= 12", timeout=60_000)
    assert page.evaluate(STEP, "generate-player") == "2"
    page.click("#generate-pause")
    page.wait_for_timeout(500)
    computed = page.evaluate(FRAMES, "generate-player")
    page.click("#generate-step")
    page.wait_for_function(f"Number(({STEP})('generate-player')) >= {computed}", timeout=60_000)
    page.click("#generate-reset")


def click_cells(page, player: str, places: list[tuple[int, int]]) -> None:
    canvas = page.locator(f"#{player} canvas").first
    for pins, (x, y) in enumerate(places, start=1):
        canvas.click(position={"x": x, "y": y})
        page.wait_for_function(PINS, arg=[player, pins])


def test_cells_of_sixteen_greys_have_a_triangle_and_sixteen_bars_each(page):
    """The three likeliest categories and the rest; the bars are the state and the posterior at the scrubbed step."""
    page.get_by_role("tab", name="Compare").click()
    page.get_by_label("Data", exact=True).locator("visible=true").click()
    page.get_by_role("option", name="fashion", exact=True).click()
    set_slider(page, "Network calls", 4)
    page.click("#compare-run")
    wait_done(page, "compare-player")
    click_cells(page, "compare-player", [(60, 60), (100, 40)])
    plots = page.locator("#compare-player-explorer .dd-plots")
    assert plots.locator("figure").count() == 2
    for i in range(2):
        triangle, bars = plots.locator("figure").nth(i).locator("svg").all()
        assert triangle.locator("polyline").count() == 4
        assert "rest" in triangle.inner_html()
        heights = bars.locator("rect[opacity]").evaluate_all(
            "bars => bars.map((bar) => Number(bar.getAttribute('height')))"
        )
        assert len(heights) == 16
        assert sum(heights) == pytest.approx(130 - 22 - 6, rel=0.02)  # shares of the bars' full height


def test_compare_runs_all_lanes_in_lockstep(page):
    page.get_by_role("tab", name="Compare").click()
    set_slider(page, "Network calls", 6)
    canvases = page.locator("#compare-player canvas")
    before = [canvas.bounding_box() for canvas in canvases.all()]
    page.click("#compare-run")
    wait_done(page, "compare-player")
    assert [canvas.bounding_box() for canvas in canvases.all()] == before, "running moves the page"
    assert len(page.evaluate(PIXELS, "#compare-player")) == 4
    canvas, numbers = canvases.first.bounding_box(), page.locator("#compare-player .dd-numbers").first.bounding_box()
    assert numbers["y"] >= canvas["y"] + canvas["height"], "what a lane is at stands under it"
    assert page.locator("#compare-player .dd-curve polyline").count() == 4
    table = page.locator("#compare-table table")
    table.wait_for()
    set_slider(page, "Network calls", 30)
    page.click("#compare-run")
    page.locator("#compare-player .dd-status").get_by_text("of 30").wait_for(timeout=60_000)
    assert table.count() == 0, "a run that goes on stands above the table of the one before"
    page.click("#compare-reset")
    page.wait_for_function("document.querySelector('#compare-player .dd-numbers').innerText.trim() === ''")
    set_slider(page, "Network calls", 6)
    page.click("#compare-run")
    wait_done(page, "compare-player")
    table.wait_for()
    box, column = table.bounding_box(), page.locator("#compare-table").bounding_box()
    assert table.evaluate("e => e.scrollWidth") <= box["width"] <= column["width"], "the table is cut off"
    size = page.viewport_size
    page.set_viewport_size({"width": 390, "height": 844})
    assert table.evaluate("e => e.scrollWidth <= e.clientWidth"), "on a phone the table is cut off"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.set_viewport_size(size)
    before = page.evaluate(PIXELS, "#compare-player")
    with page.expect_download(timeout=60_000) as download:
        page.click("#compare-json")
    measured = json.loads(Path(download.value.path()).read_text())["measured"]
    assert len(measured) == 4
    for step in (2, 5, 6):
        scrub(page, "compare-player", step)
        for lane, shown in zip(measured, page.locator("#compare-player .dd-numbers").all_inner_texts(), strict=True):
            t, entropy, calls, ms = NUMBERS.fullmatch(" ".join(shown.split())).groups()
            assert float(t) == pytest.approx(lane["t"][step], abs=0.006)
            assert float(entropy) == pytest.approx(lane["entropy"][step], abs=6e-4)
            assert int(calls) == lane["calls"][step]
            assert float(ms) == pytest.approx(lane["milliseconds"][step], abs=0.6)
    scrub(page, "compare-player", 2)
    assert all(a != b for a, b in zip(before, page.evaluate(PIXELS, "#compare-player"), strict=True))
    with page.expect_download(timeout=60_000) as download:
        page.click("#compare-gif")
    animated = Image.open(download.value.path())
    assert animated.n_frames == 7
    assert animated.width > 3.5 * animated.height


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overflows_or_shifts(browser, app_url, width, scheme):
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{app_url}/?__theme={scheme}")
    page.wait_for_selector("#generate-run")
    set_slider(page, "Steps", 4)
    page.click("#generate-run")
    page.wait_for_function(f"Number(({STEP})('generate-player')) >= 1", timeout=60_000)
    box = page.locator("#generate-player canvas").first.bounding_box()
    wait_done(page, "generate-player")
    assert page.locator("#generate-player canvas").first.bounding_box() == box
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.get_by_role("tab").all_inner_texts() == ["Generate", "Compare", "Reconstruct", "Simplex", "About"]
    page.get_by_role("tab", name="Reconstruct").click()
    page.get_by_role("tab", name="Inpaint").click()
    page.wait_for_timeout(1000)
    canvas, frame = (page.locator(s).first.bounding_box() for s in ("#inpaint-canvas canvas", "#inpaint-canvas"))
    assert canvas["width"] <= frame["width"], "a part of the picture cannot be painted on"
    run, noise, seed = (
        page.locator(s).locator("visible=true").first.bounding_box()["y"]
        for s in ("#inpaint-run", "text=Noise to time t", "text=Seed")
    )
    assert (noise < run < seed) == (width < 700), (
        "on a phone the settings stand between a picture and what becomes of it"
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


def test_a_walk_through_the_tabs_on_the_shipped_checkpoints(page):
    """Faces generated, the triangle drawn, the mathematics and the figures read."""
    page.get_by_label("Data", exact=True).locator("visible=true").click()
    page.get_by_role("option", name="faces", exact=True).click()
    set_slider(page, "Steps", 4)
    set_slider(page, "Images", 4)
    page.click("#generate-run")
    wait_done(page, "generate-player")
    assert page.locator("#generate-player canvas").first.get_attribute("width") == "130"  # two faces and a gap
    page.get_by_role("tab", name="Simplex").click()
    page.wait_for_function("document.querySelector('.sx-root')?.simplex?.frames() > 0", timeout=60_000)
    page.get_by_role("tab", name="About").click()
    page.get_by_role("heading", name="Generating is evolution").wait_for()
    assert page.locator(".katex-display").count() >= 4, "the formulas are set"
    assert page.get_by_role("cell", name="Dirichlet (Wright-Fisher)").count() >= 1
    page.locator(".label-wrap").filter(has_text="photos-vqvae").click()
    page.get_by_text("colour pictures as grids").locator("visible=true").wait_for()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to read the app's processor time")
def test_closing_the_tab_stops_the_computation(browser, app):
    context = browser.new_context()
    page = context.new_page()
    page.goto(app.url)
    page.wait_for_selector("#generate-run")
    set_slider(page, "Steps", 500)
    set_slider(page, "Images", 64)
    page.click("#generate-run")
    page.wait_for_function(f"Number(({STEP})('generate-player')) >= 1", timeout=60_000)
    busy = cpu_over(app, 2)
    context.close()
    time.sleep(4)
    assert cpu_over(app, 2) < 0.4 * busy


def cpu_over(app, seconds: float) -> float:
    before = app.cpu_seconds()
    time.sleep(seconds)
    return app.cpu_seconds() - before


def test_buttons_rule_a_loaded_run_as_any_other(page, tmp_path):
    """Pause and Reset stop it; loading stops what was going on."""
    recipe = tmp_path / "recipe.json"
    lane = {"process": "dirichlet", "method": "dirichlet"}
    recipe.write_text(json.dumps({"checkpoint": "digits", "lanes": [lane], "steps": 400, "images": 4, "seed": 3}))
    set_slider(page, "Steps", 300)
    page.click("#generate-run")
    page.wait_for_function(f"Number(({STEP})('generate-player')) >= 2", timeout=60_000)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Load recipe").locator("visible=true").click()
    chooser.value.set_files(str(recipe))
    page.wait_for_function("document.querySelector('#generate-player').innerText.includes('of 400')", timeout=60_000)
    page.click("#generate-pause")
    page.wait_for_timeout(1500)
    paused = page.evaluate(STEP, "generate-player")
    page.wait_for_timeout(1500)
    assert page.evaluate(STEP, "generate-player") == paused
    assert "of 400" in page.inner_text("#generate-player")
    page.click("#generate-run")
    page.wait_for_function(f"Number(({STEP})('generate-player')) > {paused}", timeout=60_000)
    page.click("#generate-reset")
    page.wait_for_timeout(1500)
    assert page.evaluate(FRAMES, "generate-player") == 0
