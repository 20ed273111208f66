// Paths of single cells on the simplex. `value` is JSON {K, greys, pins: [{name, at, x, p}]}, x and p lists of points, one a
// step. The scrubbed step comes from the player as the document's event "dd-step", a new run as "dd-reset"; which cells
// are pinned goes to the player as "dd-pins".
(() => {
  const hint = element.querySelector("p"), plots = element.querySelector(".dd-plots");
  const legend = element.querySelector(".dd-legend");
  const colour = (i) => `var(--dd-colour-${i})`;
  let data = null, step = 0;

  const at = ([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`;
  const line = (points, i, dashed, opacity) =>
    `<polyline fill="none" stroke="${colour(i)}" stroke-width="${dashed ? 1.5 : 2}" opacity="${opacity}" `
    + `stroke-linejoin="round" ${dashed ? 'stroke-dasharray="4 3"' : ""} points="${points.map(at).join(" ")}"/>`;
  const dot = ([x, y], i, hollow) => `<circle cx="${x.toFixed(1)}" cy="${y.toFixed(1)}" r="${hollow ? 5 : 4.5}" `
    + (hollow ? `fill="none" stroke="${colour(i)}" stroke-width="1.5"/>` : `fill="${colour(i)}"/>`);
  const text = (x, y, words, anchor = "start") => `<text x="${x}" y="${y}" text-anchor="${anchor}">${words}</text>`;
  const svg = (W, H, label, inside) =>
    `<svg viewBox="0 0 ${W} ${H}" width="${W}" height="${H}" role="img" aria-label="${label}">${inside}</svg>`;
  const names = (k) => data.K === 2 ? ["paper", "ink"][k] : String(k);
  const grey = (k) => { const v = Math.round(255 * k / (data.K - 1)); return `rgb(${v},${v},${v})`; };
  const swatch = (x, y, k) => data.greys
    ? `<rect x="${x}" y="${y}" width="11" height="11" rx="2" fill="${grey(k)}" stroke="currentColor" stroke-opacity=".5"/>` : "";
  const now = (pin) => Math.min(step, pin.x.length - 1);

  // A pin's two paths, faint as a whole and strong up to the scrubbed step.
  function paths(pin, i, place) {
    const s = now(pin), x = pin.x.map(place), p = pin.p.map(place);
    return line(p, i, true, 0.3) + line(x, i, false, 0.3) + line(p.slice(0, s + 1), i, true, 1)
      + line(x.slice(0, s + 1), i, false, 1) + dot(p[s], i, true) + dot(x[s], i, false);
  }

  // K = 2: the simplex is a segment; position on it against the step, all pins together.
  function segment(W) {
    const H = 200, left = 44, right = W - 12, top = 12, bottom = H - 28;
    const steps = Math.max(1, ...data.pins.map((pin) => pin.x.length - 1));
    const px = (s) => left + (right - left) * s / steps, py = (v) => top + (bottom - top) * (1 - v);
    let inside = "";
    for (const [v, name] of [[1, "ink"], [0.5, ""], [0, "paper"]]) {
      inside += `<line x1="${left}" x2="${right}" y1="${py(v)}" y2="${py(v)}" stroke="currentColor" opacity="${name ? 0.35 : 0.12}"/>`
        + text(left - 6, py(v) + 4, name, "end");
    }
    inside += `<line x1="${px(step)}" x2="${px(step)}" y1="${top}" y2="${bottom}" stroke="currentColor" opacity=".35"/>`
      + text(left, H - 8, "step 0") + text(right, H - 8, `step ${steps}`, "end");
    data.pins.forEach((pin, i) => { inside += paths(pin, i, (x, s) => [px(s), py(x[1])]); });
    return svg(W, H, "Position of each pinned cell on the segment from paper to ink, by step", inside);
  }

  // K > 2: the triangle of a pin's three likeliest categories over the run. What the others hold, "rest", pulls to the middle.
  function triangle(pin, i, W) {
    const H = Math.round(0.84 * W) + 14, A = [[16, H - 26], [W - 16, H - 26], [W / 2, 38]], middle = [W / 2, (2 * (H - 26) + 38) / 3];
    const weight = pin.p[0].map((_, k) => pin.p.reduce((sum, p) => sum + p[k], 0) / pin.p.length + pin.p[pin.p.length - 1][k]);
    const likeliest = weight.map((v, k) => [v, k]).sort((a, b) => b[0] - a[0]).slice(0, 3).map(([, k]) => k).sort((a, b) => a - b);
    const rest = (x) => Math.max(0, 1 - likeliest.reduce((sum, k) => sum + x[k], 0));
    const place = (x) => [0, 1].map((d) => rest(x) * middle[d] + likeliest.reduce((sum, k, j) => sum + x[k] * A[j][d], 0));
    const corner = (k, [x, y], j) => swatch(x - 16, y + (j < 2 ? 7 : -17), k) + text(data.greys ? x : x - 6, y + (j < 2 ? 17 : -7), names(k));
    const inside = `<polygon points="${A.map(at).join(" ")}" fill="none" stroke="currentColor" opacity=".5"/>`
      + `<circle cx="${middle[0]}" cy="${middle[1]}" r="3" fill="none" stroke="currentColor" opacity=".6"/>`
      + likeliest.map((k, j) => corner(k, A[j], j)).join("")
      + paths(pin, i, place) + text(W, 12, `○ rest ${(100 * rest(pin.x[now(pin)])).toFixed(0)} %`, "end");
    return svg(W, H, `Path on the triangle of the categories ${likeliest.map(names).join(", ")} and the rest`, inside);
  }

  // All categories at the scrubbed step: state solid, posterior outlined.
  function bars(pin, i, W) {
    const K = data.K, H = 130, bottom = H - 22, s = now(pin), w = W / K, pad = K > 32 ? 0 : 0.14 * w;
    let inside = `<line x1="0" x2="${W}" y1="${bottom}" y2="${bottom}" stroke="currentColor" opacity=".35"/>`;
    for (let k = 0; k < K; k++) {
      const hx = (bottom - 6) * pin.x[s][k], hp = (bottom - 6) * pin.p[s][k], left = k * w + pad, wide = w - 2 * pad;
      inside += `<rect x="${left}" width="${wide}" y="${bottom - hx}" height="${hx}" fill="${colour(i)}" opacity=".8"/>`
        + `<rect x="${left - pad / 2}" width="${wide + pad}" y="${bottom - hp}" height="${hp}" fill="none" stroke="currentColor"/>`;
      if (data.greys && K > 2) inside += `<rect x="${k * w}" width="${w}" y="${bottom + 3}" height="5" fill="${grey(k)}"/>`;
      if (K <= 16 && (w >= 17 || k % 5 === 0)) inside += text(k * w + w / 2, H - 1, names(k), "middle");
    }
    if (K > 16) inside += text(0, H - 1, "0") + text(W, H - 1, K - 1, "end");
    return svg(W, H, `All ${K} categories at step ${s}`, inside);
  }

  function card(pin, i, W) {
    return `<figure><figcaption><i style="background:${colour(i)}"></i>${pin.name}</figcaption>`
      + (data.K > 2 ? triangle(pin, i, W) : "") + bars(pin, i, W) + "</figure>";
  }

  function draw() {
    const pins = data ? data.pins : [];
    element.dataset.pins = pins.length;
    element.dataset.step = step;
    document.dispatchEvent(new CustomEvent("dd-pins", { detail: { player: props.player, pins: pins.map((pin) => pin.at) } }));
    if (!pins.length) {
      plots.innerHTML = legend.innerHTML = "";
      hint.textContent = props.hint;
      return;
    }
    hint.textContent = "Click more cells to compare, up to four, or one again to take it away.";
    legend.innerHTML = `<span>step ${now(pins[0])}</span><span>solid: state</span><span>dashed and outlined: the network's posterior</span>`;
    const W = Math.max(240, plots.clientWidth), columns = Math.min(pins.length, Math.max(1, Math.floor((W + 16) / 156)));
    const wide = Math.min(320, Math.floor((W - 16 * (columns - 1)) / columns));
    plots.innerHTML = (data.K === 2 ? segment(W) : "")
      + `<div class="dd-cards" style="grid-template-columns:repeat(${columns},${wide}px)">${pins.map((pin, i) => card(pin, i, wide)).join("")}</div>`;
  }

  function receive() { data = props.value ? JSON.parse(props.value) : null; draw(); }
  const mine = (event) => element.isConnected && event.detail.player === props.player;
  document.addEventListener("dd-step", (event) => {
    if (!mine(event)) return;
    step = event.detail.step;
    if (data && data.pins.length) draw();
  });
  document.addEventListener("dd-reset", (event) => {
    if (!mine(event)) return;
    data = null;
    draw();
  });
  let width = 0;
  new ResizeObserver(() => {
    if (plots.clientWidth === width) return;
    width = plots.clientWidth;
    draw();
  }).observe(plots);
  watch("value", receive);
  receive();
})();
