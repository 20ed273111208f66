// The player: draws every step the server sends, keeps all of them, and scrubs through them without asking again.
//
// A message is JSON: {run, step, total, n, h, w, size, ms, shares, done, lanes: [{title, t, calls, entropy, state, guess}]},
// where state and guess are base64 of n x h x w bytes, greys 0..254, 255 = masked, size is the pixels a side of a cell, and
// shares is what each lane took of the ms. `value` may also be {clear: true}.
(() => {
  const paired = props.layout === "pair";
  const panels = element.querySelector(".dd-panels");
  const slider = element.querySelector(".dd-bar input");
  const replay = element.querySelector(".dd-replay");
  const status = element.querySelector(".dd-status");
  const toggle = element.querySelector(".dd-toggle");
  const curve = element.querySelector(".dd-curve");
  const MASK = [217, 140, 0];
  const COLOUR_OF = Uint32Array.from({ length: 256 }, (_, g) => {  // an RGBA pixel of every byte, whatever the byte order
    const v = Math.floor(g * 255 / 254), [r, green, b] = g === 255 ? MASK : [v, v, v];
    return new Uint32Array(Uint8Array.of(r, green, b, 255).buffer)[0];
  });
  let pins = [], frames = [], run = null, cleared = null, views = [], shown = -1, timer = null, showGuess = false, drawn = 0, laidOut = "";
  let follow = true;  // every new step is shown; not while the visitor looks at an earlier one
  let cursor = null;  // the cell that the keyboard is on: {view, image, row, col}
  let changed = false;  // settings since the run was begun
  let altered = false;  // settings since Run or Step was pressed, whose run may not have come yet
  let pressed = null;  // the last of Run, Pause, Step, Reset and Load that was pressed; a loaded run counts as Run
  let again = 0;  // Run, pressed with other settings while a run goes on: so often is it pressed until the new run has come
  let owed = 0;  // presses of Step that are still to be answered: the page takes one at a time
  const KEYS = "Space plays, arrows scrub" + (props.cells ? "; Shift and arrows choose a cell, Enter shows its path." : ".");

  const bytes = Uint8Array.fromBase64
    ? (text) => Uint8Array.fromBase64(text)
    : (text) => {
      const decoded = atob(text), out = new Uint8Array(decoded.length);
      for (let i = 0; i < out.length; i++) out[i] = decoded.charCodeAt(i);
      return out;
    };

  const bits = (lane, digits) => lane.entropy === null ? "–" : lane.entropy.toFixed(digits);  // a DDPM has none

  function titles(message) {
    if (!paired) return message.lanes.map((lane, i) => ({ lane: i, title: lane.title }));
    return [
      { lane: 0, kind: "state", title: "State of the cells" },
      { lane: 0, kind: "guess", title: "The network's guess" },
    ];
  }

  // Panels and canvases for this message; nothing is touched while a run goes on in the same shape.
  function layout(message) {
    const wanted = titles(message), shape = JSON.stringify([wanted, message.n, message.w, message.h]);
    if (shape === laidOut) return;
    laidOut = shape;
    if (views.length !== wanted.length) {
      panels.replaceChildren(...wanted.map((view) => {
        const figure = document.createElement("figure");
        figure.className = "dd-panel";
        figure.innerHTML = `<figcaption></figcaption><div class="dd-screen"><canvas></canvas></div>${paired ? "" : "<div class='dd-numbers'></div>"}`;
        return figure;
      }));
    }
    const columns = Math.ceil(Math.sqrt(message.n)), gap = message.n > 1 ? 2 : 0;
    const width = columns * (message.w + gap) - gap;
    const rows = Math.ceil(message.n / columns), height = rows * (message.h + gap) - gap;
    views = wanted.map((view, i) => {
      const figure = panels.children[i];
      figure.querySelector("figcaption").textContent = paired ? view.title : `${view.lane + 1}. ${view.title}`;
      const canvas = figure.querySelector("canvas");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${view.title}. ${KEYS}`);
      canvas.tabIndex = 0;
      if (canvas.width !== width || canvas.height !== height) {
        canvas.width = width;
        canvas.height = height;
        canvas.style.aspectRatio = `${width} / ${height}`;
      }
      const context = canvas.getContext("2d"), image = context.createImageData(width, height);
      const pixels = new Uint32Array(image.data.buffer);
      return { ...view, canvas, context, image, pixels, geometry: { columns, gap }, numbers: figure.querySelector(".dd-numbers") };
    });
  }

  function paint(view, message) {
    const lane = message.lanes[view.lane];
    const grey = lane[view.kind || (showGuess ? "guess" : "state")];
    const { columns, gap } = view.geometry, { n, h, w } = message, out = view.pixels, stride = view.image.width;
    for (let i = 0; i < n; i++) {
      const top = Math.floor(i / columns) * (h + gap), left = (i % columns) * (w + gap);
      for (let y = 0; y < h; y++) {
        let to = (top + y) * stride + left, from = (i * h + y) * w;
        for (let x = 0; x < w; x++) out[to++] = COLOUR_OF[grey[from++]];
      }
    }
    view.context.putImageData(view.image, 0, 0);
    if (!paired) view.numbers.innerHTML = [`t = ${lane.t.toFixed(2)}`, `entropy ${bits(lane, 3)} bits`, `${lane.calls} calls`, `${message.shares[view.lane].toFixed(0)} ms`]
      .map((part) => `<span>${part}</span>`).join(" ");
  }

  // Frames round the pinned cells, in the colours of their paths, and round the one that the keyboard is on.
  function mark() {
    const message = frames[shown];
    for (const view of views) {
      view.canvas.parentElement.querySelectorAll(".dd-pin").forEach((old) => old.remove());
      if (!message) continue;
      pins.forEach((pin, i) => { if (pin.lane === view.lane) frameCell(view, message, pin, pin.size, `var(--dd-colour-${i})`); });
      if (cursor && cursor.view === view) frameCell(view, message, cursor, message.size, "var(--color-accent)").classList.add("dd-cursor");
    }
  }

  function frameCell(view, message, { image, row, col }, size, colour) {
    const { columns, gap } = view.geometry, { width, height } = view.canvas, percent = (v, of) => `${100 * v / of}%`;
    const frame = document.createElement("span"), x = (image % columns) * (message.w + gap) + col;
    frame.className = "dd-pin";
    frame.style.cssText = `left:${percent(x, width)};top:${percent(Math.floor(image / columns) * (message.h + gap) + row, height)};`
      + `width:${percent(size, width)};height:${percent(size, height)};--dd-pin:${colour}`;
    view.canvas.after(frame);
    return frame;
  }

  // The keyboard's cell, dx to the right and dy down, over the gaps between images; it stays where there is no image.
  function moveCursor(view, message, dx, dy) {
    if (!cursor || cursor.view !== view) cursor = { view, image: 0, row: 0, col: 0 };
    else {
      const { columns } = view.geometry, W = message.w / message.size, H = message.h / message.size;
      const x = (cursor.image % columns) * W + cursor.col / message.size + dx, y = Math.floor(cursor.image / columns) * H + cursor.row / message.size + dy;
      const image = Math.floor(y / H) * columns + Math.floor(x / W);
      if (x < 0 || y < 0 || x >= columns * W || image >= message.n) return;
      cursor = { view, image, row: (y % H) * message.size, col: (x % W) * message.size };
    }
    mark();
  }

  function select(view, image, row, col) {
    trigger("select", { lane: view.lane, image, row, col, step: shown });
  }

  function show(step) {
    const message = frames[step];
    if (!message) return;
    shown = step;
    for (const view of views) paint(view, message);
    slider.value = step;
    slider.setAttribute("aria-valuetext", `step ${step} of ${message.total - 1}`);
    say();
    if (curve) plot(step);
    element.dataset.step = step;
    element.dataset.drawn = ++drawn;
    document.dispatchEvent(new CustomEvent("dd-step", { detail: { player: props.name, step } }));
  }

  // What is shown, and how the run is getting on.
  function say() {
    const message = frames[shown], lane = message.lanes[0], newest = frames.at(-1);
    const masked = (paired || !showGuess) && message.lanes.some((lane) => lane.state.includes(255)) ? " · orange: masked" : "";
    const ahead = newest.step > shown && !newest.done ? `, ${newest.step} made so far` : "";
    status.textContent = `step ${shown} of ${message.total - 1}${ahead} · ` + (paired
      ? `t = ${lane.t.toFixed(3)} · entropy ${bits(lane, 4)} bits per cell · ${message.ms.toFixed(0)} ms per step`
      : `${message.ms.toFixed(0)} ms per step for all lanes together · ${showGuess ? "the network's guesses" : "states of the cells"}`) + masked
      + (newest.done || pressed === "run" ? "" : " · paused")
      + (changed ? " · settings were changed: Run or Step starts over with them" : "");
  }

  // Entropy against t, noise on the left. A dot is where a lane is: one of half as many steps gets ahead.
  function plot(step) {
    const W = curve.clientWidth || 600, H = 140, left = 44, right = W - 32, up = 12, down = H - 34;
    const { lanes } = frames[step], known = frames.filter(Boolean);
    views.forEach((view, i) => { view.canvas.style.borderBottomColor = `var(--dd-colour-${i})`; });
    const shown = lanes.map((_, i) => i).filter((i) => lanes[i].entropy !== null);
    if (!shown.length) return curve.replaceChildren();  // DDPMs alone
    const top = Math.max(...known.flatMap((m) => m.lanes.map((l) => l.entropy || 0)), 1e-6);
    const px = (t) => left + (right - left) * (1 - t), py = (e) => up + (down - up) * (1 - e / top);
    const grid = (x1, y1, x2, y2) => `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" stroke="currentColor" opacity=".25"/>`;
    const label = (x, y, words, anchor) => `<text x="${x}" y="${y}" text-anchor="${anchor}" font-size="12" fill="currentColor">${words}</text>`;
    let inside = grid(left, up, left, down) + label(left - 6, up + 4, top.toFixed(2), "end") + label(left - 6, down + 4, "0", "end");
    for (const t of [1, 0.5, 0]) inside += grid(px(t), down, px(t), down + 4) + label(px(t), down + 16, t, "middle");
    inside += grid(left, down, right, down) + label((left + right) / 2, H - 4, "t from 1 (noise) to 0; entropy, bits a cell", "middle");
    const dots = shown.map((i) => ({ i, x: px(frames[step].lanes[i].t), y: py(frames[step].lanes[i].entropy) }));
    // Numbers stand to the right of their dots, 15 pixels apart where the dots are not.
    const numbers = [...dots].sort((a, b) => a.y - b.y).map(({ i, y }) => ({ i, y }));
    numbers.forEach((number, j) => { if (j) number.y = Math.max(number.y, numbers[j - 1].y + 15); });
    const over = numbers.length ? Math.max(0, numbers.at(-1).y - down - 8) : 0;
    for (const { i, x, y } of dots) {
      const points = known.map((m) => `${px(m.lanes[i].t).toFixed(1)},${py(m.lanes[i].entropy).toFixed(1)}`).join(" ");
      const colour = `var(--dd-colour-${i})`, at = numbers.find((number) => number.i === i).y - over;
      inside += `<polyline fill="none" stroke="${colour}" stroke-width="2" points="${points}"/><circle cx="${x}" cy="${y}" r="4" fill="${colour}"/>`
        + `<circle cx="${x + 20}" cy="${at}" r="7" fill="${colour}"/>`
        + `<text x="${x + 20}" y="${at}" dy="4" font-size="11" text-anchor="middle" fill="var(--body-background-fill)">${i + 1}</text>`;
    }
    curve.setAttribute("viewBox", `0 0 ${W} ${H}`);
    curve.innerHTML = inside;
  }

  function receive() {
    let message = props.value;
    if (!message) return;
    if (typeof message === "string") message = JSON.parse(message);
    if (message.clear) { cleared = run ?? cleared; reset(); return; }
    if (message.run === cleared) return;  // a step that was on its way when its run was cleared
    if (message.run !== run) {
      const presses = owed;
      reset();
      owed = presses; changed = altered; run = message.run;
      if (pressed === "load") pressed = "run";
      again = 0;
      slider.max = message.total - 1; slider.disabled = replay.disabled = false;
    }
    if (message.done) owed = 0;  // a press more would begin another run and take this picture away
    for (const lane of message.lanes) { lane.state = bytes(lane.state); lane.guess = bytes(lane.guess); }
    frames[message.step] = message;
    layout(message);
    status.setAttribute("aria-live", message.done ? "polite" : "off");  // the end is announced, not every step
    if (follow) {
      stop();
      show(message.step);
    } else say();
    element.dataset.done = message.done ? "1" : "";
  }

  function reset() {
    stop();
    frames = []; run = null; shown = -1; pins = []; cursor = null; follow = true; changed = false; owed = 0;
    mark();
    document.dispatchEvent(new CustomEvent("dd-reset", { detail: { player: props.name } }));
    for (const view of views) {
      view.context.clearRect(0, 0, view.canvas.width, view.canvas.height);
      view.canvas.style.borderBottomColor = "";
      if (view.numbers) view.numbers.innerHTML = "&nbsp;";
    }
    curve?.replaceChildren();
    slider.value = 0; slider.disabled = replay.disabled = true;
    status.textContent = props.hint;
    element.dataset.step = ""; element.dataset.done = "";
  }

  function stop() {
    if (!timer) return;
    clearInterval(timer);
    timer = null;
    replay.textContent = "Replay";
  }
  function play() {
    if (timer) return stop();
    let step = shown >= frames.length - 1 ? 0 : shown;
    follow = false;
    replay.textContent = "Stop";
    timer = setInterval(() => {
      while (step < frames.length && !frames[step]) step++;
      if (step >= frames.length) { follow = true; return stop(); }
      show(step++);
    }, 40);
  }

  function change() {
    altered = true;
    if (run === null || changed) return;
    changed = true;
    show(shown);
  }

  // The visitor chooses a step: new ones are shown only from the newest one on.
  function look(step) {
    follow = step >= frames.length - 1;
    show(step);
  }

  // The nearest step that has come, that way: one that Pause cancelled on its way never comes.
  function beside(way) {
    let step = shown + way;
    while (step > 0 && step < frames.length && !frames[step]) step += way;
    return step;
  }

  slider.addEventListener("input", () => {
    stop();
    let step = Number(slider.value);
    while (step > 0 && !frames[step]) step--;
    look(step);
  });
  replay.addEventListener("click", play);
  panels.addEventListener("keydown", (event) => {  // on a picture
    const view = views.find((v) => v.canvas === event.target), message = frames[shown];
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (props.cells && view && message && ((event.shiftKey && move) || event.key === "Enter")) {
      event.preventDefault();
      if (event.key !== "Enter") return moveCursor(view, message, ...move);
      if (!cursor || cursor.view !== view) moveCursor(view, message, 0, 0);
      return select(view, cursor.image, cursor.row, cursor.col);
    }
    const step = { ArrowLeft: beside(-1), ArrowRight: beside(1), Home: 0, End: frames.length - 1 }[event.key];
    if (!frames.length || (event.key !== " " && step === undefined)) return;
    event.preventDefault();
    if (event.key === " ") return play();
    stop();
    look(step);
  });
  panels.addEventListener("focusout", () => { cursor = null; mark(); });
  const tab = props.name.split("-")[0], press = (button) => document.getElementById(`${tab}-${button}`).click();
  const mine = (event) => element.isConnected && event.detail.player === props.name;
  document.addEventListener("click", (event) => {  // who takes a step wants to see it
    if (!element.isConnected) return;
    const id = event.target.closest("button[id]")?.id;
    const one = (...buttons) => buttons.some((button) => id === `${tab}-${button}`);
    if (event.isTrusted && one("step")) owed++;
    if (event.isTrusted && one("run", "pause", "reset", "load")) owed = 0;
    if (one("dice", "made", "take", "middle", "left", "right", "top", "bottom")) change();
    if (!one("run", "pause", "step", "reset", "load")) return;
    const over = event.isTrusted && one("run") && pressed === "run" && changed && !frames.at(-1)?.done;
    if (event.isTrusted) again = 0;
    if (one("run", "step")) { follow = true; altered = false; }
    if (one("load")) altered = false;  // the controls become the recipe's
    pressed = id.slice(tab.length + 1);
    if (over) {  // the page takes no second Run while the first is going
      press("pause");
      again = 3;
    } else if (shown >= 0) say();
  });
  function rerun() {  // the page may not have noticed yet that the run which was paused has ended
    if (!again || !element.isConnected) return;
    again--;
    press("run");
    setTimeout(rerun, 700);
  }
  document.addEventListener("dd-paused", (event) => { if (mine(event)) rerun(); });
  document.addEventListener("dd-stepped", (event) => {
    if (!mine(event)) return;
    owed = Math.max(0, owed - 1);
    if (owed) press("step");
  });
  document.addEventListener("dd-refused", (event) => { if (mine(event)) owed = again = 0; });
  document.addEventListener("dd-changed", (event) => { if (mine(event)) change(); });
  if (toggle) toggle.addEventListener("click", () => {
    showGuess = !showGuess;
    toggle.textContent = showGuess ? "Show states" : "Show guesses";
    if (shown >= 0) show(shown);
  });
  panels.addEventListener("click", (event) => {
    const view = views.find((v) => v.canvas === event.target), message = frames[shown];
    if (!props.cells || !view || !message) return;
    const box = view.canvas.getBoundingClientRect(), { columns, gap } = view.geometry;
    const x = Math.floor((event.clientX - box.left) / box.width * view.canvas.width);
    const y = Math.floor((event.clientY - box.top) / box.height * view.canvas.height);
    const column = Math.floor(x / (message.w + gap)), line = Math.floor(y / (message.h + gap));
    const image = line * columns + column, col = x - column * (message.w + gap), row = y - line * (message.h + gap);
    if (image < message.n && col < message.w && row < message.h) select(view, image, row, col);
  });
  document.addEventListener("dd-pins", (event) => {
    if (!mine(event)) return;
    pins = event.detail.pins;
    mark();
  });
  element.ddFrames = () => frames;
  status.textContent = props.hint;
  watch("value", receive);
  if (props.value) receive();
})();
