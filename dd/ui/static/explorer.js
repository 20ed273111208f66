// Paths of single cells on the simplex. `value` is JSON {player, K, pins: [{name, x, p}]}, x and p lists of points, one a
// step. The scrubbed step comes from the player as the document's event "dd-step".
(() => {
  const hint = element.querySelector("p"), plots = element.querySelector(".dd-plots");
  const legend = element.querySelector(".dd-legend");
  const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7"];
  let data = null, step = 0;

  const line = (points, colour, dashed) =>
    `<polyline fill="none" stroke="${colour}" stroke-width="${dashed ? 1.5 : 2}" ${dashed ? 'stroke-dasharray="4 3"' : ""} `
    + `points="${points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ")}"/>`;
  const dot = ([x, y], colour, r) => `<circle cx="${x.toFixed(1)}" cy="${y.toFixed(1)}" r="${r}" fill="${colour}"/>`;

  // K = 2: the simplex is a segment; its position against the step.
  function segment() {
    const W = 460, H = 220, steps = Math.max(...data.pins.map((pin) => pin.x.length)) - 1;
    const at = (s, y) => [34 + (W - 44) * s / Math.max(1, steps), 12 + (H - 42) * (1 - y)];
    let out = `<line x1="34" x2="34" y1="12" y2="${H - 30}" stroke="currentColor" opacity=".4"/>`
      + `<text x="0" y="18">ink</text><text x="0" y="${H - 28}">paper</text><text x="34" y="${H - 8}">step 0</text>`
      + `<text x="${W - 10}" y="${H - 8}" text-anchor="end">step ${steps}</text>`
      + `<line x1="${at(step, 0)[0]}" x2="${at(step, 0)[0]}" y1="12" y2="${H - 30}" stroke="currentColor" opacity=".4"/>`;
    data.pins.forEach((pin, i) => {
      out += line(pin.p.map((p, s) => at(s, p[1])), COLOURS[i], true) + line(pin.x.map((x, s) => at(s, x[1])), COLOURS[i]);
      const s = Math.min(step, pin.x.length - 1);
      out += dot(at(s, pin.x[s][1]), COLOURS[i], 4);
    });
    return `<svg viewBox="0 0 ${W} ${H}" role="img" aria-label="Position of each pinned cell on the segment, by step">${out}</svg>`;
  }

  // K > 2: the triangle of the last pin's three likeliest categories at the end; what the others hold is "rest".
  function triangle() {
    const W = 460, H = 400, A = [[30, H - 30], [W - 30, H - 30], [W / 2, 30]];
    const last = data.pins[data.pins.length - 1], end = last.p[last.p.length - 1], total = last.p.map((_, i) => i);
    const weight = end.map((v, k) => v + total.reduce((sum, s) => sum + last.p[s][k], 0) / total.length);
    const top = weight.map((v, k) => [v, k]).sort((a, b) => b[0] - a[0]).slice(0, 3).map(([, k]) => k);
    const place = (x) => {
      const sum = top.reduce((s, k) => s + x[k], 0) || 1;
      return [0, 1].map((d) => top.reduce((s, k, j) => s + A[j][d] * x[k] / sum, 0));
    };
    let out = `<polygon points="${A.map((a) => a.join(",")).join(" ")}" fill="none" stroke="currentColor" opacity=".5"/>`;
    top.forEach((k, j) => { out += `<text x="${A[j][0]}" y="${A[j][1] + (j < 2 ? 18 : -10)}" text-anchor="middle">${k}</text>`; });
    data.pins.forEach((pin, i) => {
      out += line(pin.p.map(place), COLOURS[i], true) + line(pin.x.map(place), COLOURS[i]);
      const x = pin.x[Math.min(step, pin.x.length - 1)];
      out += dot(place(x), COLOURS[i], 5);
    });
    const x = last.x[Math.min(step, last.x.length - 1)];
    const rest = 1 - top.reduce((s, k) => s + x[k], 0);
    out += `<text x="${W - 10}" y="20" text-anchor="end">rest ${(100 * rest).toFixed(0)} %</text>`;
    return `<svg viewBox="0 0 ${W} ${H}" role="img" aria-label="Paths on the triangle of the three likeliest categories">${out}</svg>`;
  }

  // All categories of the last pin at the scrubbed step: state solid, posterior outlined.
  function bars() {
    const pin = data.pins[data.pins.length - 1], i = data.pins.length - 1, W = 300, H = 220, K = data.K;
    const s = Math.min(step, pin.x.length - 1), w = (W - 20) / K;
    let out = `<text x="0" y="12">last pin, step ${s}: bars state, outlines guess</text>`;
    for (let k = 0; k < K; k++) {
      const left = 10 + k * w, hx = (H - 50) * pin.x[s][k], hp = (H - 50) * pin.p[s][k];
      out += `<rect x="${left + w * .15}" width="${w * .7}" y="${H - 24 - hx}" height="${hx}" fill="${COLOURS[i]}" opacity=".75"/>`
        + `<rect x="${left + w * .05}" width="${w * .9}" y="${H - 24 - hp}" height="${hp}" fill="none" stroke="currentColor"/>`;
      if (K <= 16) out += `<text x="${left + w / 2}" y="${H - 8}" text-anchor="middle">${K === 2 ? ["paper", "ink"][k] : k}</text>`;
    }
    return `<svg viewBox="0 0 ${W} ${H}" role="img" aria-label="All categories of the last pinned cell">${out}</svg>`;
  }

  function draw() {
    if (!data || !data.pins.length) { plots.innerHTML = legend.innerHTML = ""; hint.textContent = props.hint; return; }
    hint.textContent = "Solid: state. Dashed: the network's posterior. Click more cells to compare, up to four.";
    plots.innerHTML = `<div>${data.K === 2 ? segment() : triangle()}</div><div>${bars()}</div>`;
    legend.replaceChildren(...data.pins.map((pin, i) => {
      const item = document.createElement("span"), mark = document.createElement("i");
      mark.style.background = COLOURS[i];
      item.append(mark, pin.name);
      return item;
    }));
    element.dataset.pins = data.pins.length;
  }

  function receive() { data = props.value ? JSON.parse(props.value) : null; draw(); }
  document.addEventListener("dd-step", (event) => {
    if (event.detail.player !== props.player) return;
    step = event.detail.step;
    if (data) draw();
  });
  watch("value", receive);
  receive();
})();
