// The simplex view: draws one or two runs that the server computed once. A picture is a function of the playhead
// (a fractional frame) and of the view options alone, so scrubbing back to a time gives the same picture.
// `element`, `props`, `trigger`, `watch` come from gr.HTML; lines and discs from raster.js, which stands before this file.

const root = element.querySelector('.sx-root');
const canvas = root.querySelector('canvas');
const ctx = canvas.getContext('2d', { alpha: false });
const $ = (name) => root.querySelector('[data-sx="' + name + '"]');
const bar = $('seek'), clock = $('clock'), tables = $('tables'), message = $('message');
const still = window.matchMedia('(prefers-reduced-motion: reduce)');

const HEIGHT = Math.sqrt(0.75);
const CORNERS = [[0, 0], [1, 0], [0.5, HEIGHT]];
const LEVELS = [-3, -2, -1, 0, 1, 2, 3]; // contours: log2 of density over the uniform law's
const RANGE = 4; // the density's numbers span log2 -RANGE..RANGE, as 0..TOP
const TOP = 65535;
const SECONDS = 8, REST = 0.8, TRAIL = 8, TRAILED = 200, OPAQUE = 0.55, GOLDEN = 2.399963;
const DISC = 0.085, LANE = 0.024, FLOW = 10; // D3PM: radius of a state, offset of an arrow, its greatest width in px
const NUMBERS_EVERY = 100; // ms between renewals of the numbers while playing
const THEMES = { // categories differ in hue and lightness, for every kind of colour vision; density is one hue of rising darkness
  light: { back: '#ffffff', ink: '#1f2430', dim: '#5b6272', rim: '#ffffff', corner: ['#1A80D8', '#D55E00', '#0B4D38'],
    ramp: ['#ffffff', '#f0edf8', '#dcd5ee', '#bfb3df', '#9585c7', '#6650a4'], arrow: '#1f2430', line: '#6d6480' },
  dark: { back: '#0f1118', ink: '#eceef4', dim: '#a6adbd', rim: '#0f1118', corner: ['#4A90E2', '#E8742A', '#B5F0D3'],
    ramp: ['#0f1118', '#1f1f38', '#322f5a', '#4a4380', '#6a5ea8', '#9788d2'], arrow: '#eceef4', line: '#8f88ab' },
};

let panels = [], times = [], frames = 0, pos = 0, playing = false, visible = false, asked = false;
let lastTick = 0, loop = 0, rest = 0, theme = THEMES.light, lut = null, layer = null, past = null, trailColours = [], dpr = 1, recorder = null;
let shownFrame = -1, toldAt = 0, family = 'sans-serif';
const drawn = { count: 0 };

// -- data ---------------------------------------------------------------------------------------------------------

function bytes(text) {
  const raw = atob(text), out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out;
}

function decode(p) {
  const raw = new Uint16Array(bytes(p.paths).buffer), n = p.n, [lo, hi] = p.span, unit = (hi - lo) / 65535;
  const xy = new Float32Array(raw.length);
  for (let i = 0; i < raw.length; i += 2) {
    const x2 = lo + raw[i + 1] * unit, x3 = 1 - (lo + raw[i] * unit) - x2;
    xy[i] = x2 + x3 / 2;
    xy[i + 1] = x3 * HEIGHT;
  }
  const panel = Object.assign({}, p, { raw, xy, unit, corner: bytes(p.corner), numbers: null });
  if (p.density) panel.density = new Uint16Array(bytes(p.density).buffer);
  if (p.field) {
    panel.selection = new Int16Array(bytes(p.field.selection).buffer);
    panel.mutation = new Int16Array(bytes(p.field.mutation).buffer);
  }
  return panel;
}

function load() {
  const data = props.value ? JSON.parse(props.value) : null;
  if (!data || !data.panels) return;
  finish();
  times = data.times;
  frames = times.length;
  panels = data.panels.map(decode);
  pos = 0;
  rest = 0;
  shownFrame = -1;
  bar.max = String(frames - 1);
  for (const control of root.querySelectorAll('button, input, select')) control.disabled = false;
  $('webm').disabled = recorder !== null;
  $('trails').disabled = panels.every((panel) => panel.jumps);
  for (const name of ['contours', 'lines']) $(name).disabled = panels.every((panel) => !panel.field);
  buildTables();
  explain();
  layout();
  play(!still.matches);
}

// -- what the particles say ---------------------------------------------------------------------------------------

function measure(panel, frame) {
  // Mean, variance and standard errors of each coordinate, mean entropy and state counts of a frame's particles.
  const { raw, n, span, unit } = panel, base = frame * n * 2;
  const mean = [0, 0, 0], m2 = [0, 0, 0], m4 = [0, 0, 0], counts = [0, 0, 0, 0];
  let entropy = 0;
  const x = [0, 0, 0];
  const at = (i) => {
    x[0] = span[0] + raw[base + 2 * i] * unit;
    x[1] = span[0] + raw[base + 2 * i + 1] * unit;
    x[2] = 1 - x[0] - x[1];
  };
  for (let i = 0; i < n; i++) {
    at(i);
    for (let j = 0; j < 3; j++) {
      mean[j] += x[j] / n;
      if (x[j] > 1e-12) entropy -= x[j] * Math.log(x[j]) / n;
    }
    counts[x[0] > 0.9 ? 0 : x[1] > 0.9 ? 1 : x[2] > 0.9 ? 2 : 3]++;
  }
  for (let i = 0; i < n; i++) {
    at(i);
    for (let j = 0; j < 3; j++) {
      const d = (x[j] - mean[j]) * (x[j] - mean[j]);
      m2[j] += d / n;
      m4[j] += d * d / n;
    }
  }
  return { mean, var: m2, m4, entropy, fractions: counts.map((c) => c / n) };
}

function compare(panel, frame) {
  const live = measure(panel, frame), theory = panel.theory[frame], n = panel.n;
  if (panel.jumps) {
    live.entropy = -live.fractions.reduce((sum, f) => sum + (f > 0 ? f * Math.log(f) : 0), 0);
  }
  const off = live.mean.map((m, j) => {
    const seMean = Math.sqrt(theory.var[j] / n);
    let fourth = live.m4[j] - live.var[j] * live.var[j];
    if (panel.jumps) { // few states: the theory's own fourth moment, since rare states may not have been seen
      const at = (k) => (k === j ? 1 : k < 3 ? 0 : 1 / 3) - theory.mean[j];
      fourth = theory.fractions.reduce((sum, f, k) => sum + f * at(k) ** 4, 0) - theory.var[j] * theory.var[j];
    }
    const seVar = Math.sqrt(Math.max(fourth, 0) / n + 2 * (theory.var[j] / n) ** 2);
    const slack = 2e-5 * (panel.span[1] - panel.span[0]); // the paths' own resolution
    const z = (d, se) => Math.abs(d) <= slack ? 0 : Math.abs(d) / Math.max(se, slack);
    return Math.max(z(m - theory.mean[j], seMean), z(live.var[j] - theory.var[j], seVar));
  });
  return { live, theory, off };
}

const row = (name, cells) => '<tr><th scope="row">' + name + '</th>' + cells.map((c) => '<td>' + c + '</td>').join('') + '</tr>';
const fixed = (v, d = 3) => v === null || v === undefined ? '–' : (Math.abs(v) < 5e-5 ? 0 : v).toFixed(d);

function buildTables() {
  tables.innerHTML = panels.map((p) => '<div class="sx-table"><div class="sx-title"></div><div class="sx-note"></div><table><thead><tr><th></th>' +
    '<th>mean</th><th>theory</th><th>variance</th><th>theory</th><th title="largest distance from theory, in standard errors">off, s.e.</th>' +
    '</tr></thead><tbody></tbody></table><div class="sx-extra"></div></div>').join('');
  [...tables.children].forEach((box, i) => {
    box.querySelector('.sx-title').textContent = panels[i].title;
    box.querySelector('.sx-note').textContent = panels[i].note;
  });
}

function showNumbers(frame) {
  panels.forEach((panel, i) => {
    const box = tables.children[i], { live, theory, off } = compare(panel, frame);
    panel.numbers = { frame, live, theory, off };
    box.querySelector('tbody').innerHTML = [0, 1, 2].map((j) => row(
      '<span class="sx-dot" style="background:' + theme.corner[j] + '"></span>x' + (j + 1),
      [fixed(live.mean[j]), fixed(theory.mean[j]), fixed(live.var[j], 4), fixed(theory.var[j], 4), off[j].toFixed(1)],
    )).join('');
    let extra = panel.jumps ? 'entropy of the fractions ' : 'mean entropy of a cell ';
    if (panel.span[0] < 0) extra = 'entropy: not defined off the triangle';
    else extra += fixed(live.entropy) + (theory.entropy === null ? ' (no closed form)' : ', theory ' + fixed(theory.entropy)) + ' nats';
    if (panel.jumps) {
      const names = ['1', '2', '3', 'mask'].slice(0, theory.fractions.length);
      extra += ' · ' + names.map((s, j) => s + ': ' + fixed(live.fractions[j]) + ' (' + fixed(theory.fractions[j]) + ')').join(' ');
    }
    box.querySelector('.sx-extra').textContent = extra;
  });
}

function explain() {
  // What the picture's shades and arrows mean, for the layers that are shown.
  $('shades').hidden = !(view('heat') || view('contours')) || panels.every((panel) => !panel.density);
  const words = [], arrows = view('arrows');
  if (arrows !== 'none' && panels.some((panel) => panel.field)) words.push('arrows: reverse drift per unit of the process\' own time');
  if (arrows !== 'none' && panels.some((panel) => panel.flows)) {
    words.push('wide arrows: reverse jump rates per unit of −log ᾱ; hollow: selection against a jump');
  }
  if (arrows === 'mutation' && panels.some((panel) => panel.flows && panel.flows.mutation.flat().every((rate) => rate === 0))) {
    words.push('no mutation in the absorbing chain: unmasking is all selection');
  }
  if (view('lines') && panels.some((panel) => panel.field)) words.push('lines: probability-flow ODE');
  $('words').textContent = words.join(' · ');
}

// -- colours and geometry -----------------------------------------------------------------------------------------

function retheme() {
  theme = document.body.classList.contains('dark') ? THEMES.dark : THEMES.light;
  const stops = theme.ramp.map((c) => [1, 3, 5].map((i) => parseInt(c.slice(i, i + 2), 16)));
  family = getComputedStyle(root).fontFamily || family;
  lut = new Uint32Array(256);
  for (let v = 0; v < 256; v++) {
    const s = v / 255 * (stops.length - 1), i = Math.min(Math.floor(s), stops.length - 2), f = s - i;
    const [r, g, b] = [0, 1, 2].map((c) => Math.round(stops[i][c] + f * (stops[i + 1][c] - stops[i][c])));
    lut[v] = (255 << 24) | (b << 16) | (g << 8) | r;
  }
  $('ramp').style.background = 'linear-gradient(to right,' + theme.ramp.join(',') + ')';
}

function makeDiscs(panel) { // smaller where there are many, and in a small panel
  const r = (panel.n > 1200 ? 2.1 : panel.n > 500 ? 2.6 : 3.3) * Math.min(1, Math.sqrt(panel.place.W / dpr / 800) + 0.1) * dpr;
  return theme.corner.map((colour) => makeDisc(r, 0.7 * dpr, colour, theme.rim));
}

function layout() {
  dpr = Math.min(window.devicePixelRatio || 1, 2);
  const width = Math.max(root.clientWidth, 200), count = Math.max(panels.length, 1);
  const columns = count > 1 && width >= 620 ? 2 : 1, rows = Math.ceil(count / columns);
  const w = width / columns, h = Math.min(w * 0.92, 560);
  canvas.style.height = h * rows + 'px';
  canvas.width = Math.round(width * dpr);
  canvas.height = Math.round(h * rows * dpr);
  panels.forEach((panel, i) => {
    const [x0, y0, x1, y1] = panel.box, left = (i % columns) * w * dpr, top = Math.floor(i / columns) * h * dpr;
    const head = 44 * dpr, W = w * dpr, H = h * dpr - head - 22 * dpr; // title and upper label, lower labels
    const scale = Math.min(W / (x1 - x0), H / (y1 - y0));
    const ox = left + (W - scale * (x1 - x0)) / 2 - scale * x0, oy = top + head + (H + scale * (y1 - y0)) / 2 + scale * y0;
    panel.place = { left, top, W, H: h * dpr, scale, X: (x) => ox + scale * x, Y: (y) => oy - scale * y };
  });
  retheme();
  trailColours = theme.corner.map(packed);
  for (const panel of panels) panel.discs = makeDiscs(panel);
  layer = makeLayer(canvas.width, canvas.height);
  past = null;
  shownFrame = -1;
  draw();
}

// Position between key frames: [first key, second key, fraction].
function between(keys, at) {
  let hi = 1;
  while (hi < keys.length - 1 && keys[hi] < at) hi++;
  const span = keys[hi] - keys[hi - 1];
  return [hi - 1, hi, Math.min(Math.max((at - keys[hi - 1]) / span, 0), 1)];
}

function triangle(panel) {
  const { X, Y } = panel.place;
  ctx.beginPath();
  CORNERS.forEach(([x, y], i) => (i ? ctx.lineTo(X(x), Y(y)) : ctx.moveTo(X(x), Y(y))));
  ctx.closePath();
}

// -- layers -------------------------------------------------------------------------------------------------------

function densityAt(panel, at) {
  const [nx, ny] = panel.grid, size = nx * ny, [a, b, f] = between(panel.keys, at);
  const out = panel.now || (panel.now = new Float32Array(size)), d = panel.density;
  for (let i = 0; i < size; i++) out[i] = d[a * size + i] + f * (d[b * size + i] - d[a * size + i]);
  return out;
}

function drawHeat(panel, values) {
  const [nx, ny] = panel.grid, [x0, y0, x1, y1] = panel.box, { X, Y } = panel.place;
  if (!panel.image) {
    panel.bitmap = document.createElement('canvas');
    panel.bitmap.width = nx;
    panel.bitmap.height = ny;
    panel.image = panel.bitmap.getContext('2d').createImageData(nx, ny);
    panel.pixels = new Uint32Array(panel.image.data.buffer);
  }
  for (let r = 0; r < ny; r++) { // canvas rows run downwards
    const from = (ny - 1 - r) * nx, to = r * nx;
    for (let c = 0; c < nx; c++) panel.pixels[to + c] = lut[values[from + c] >> 8];
  }
  panel.bitmap.getContext('2d').putImageData(panel.image, 0, 0);
  const dx = (x1 - x0) / (nx - 1) / 2, dy = (y1 - y0) / (ny - 1) / 2; // values sit on the nodes
  const left = X(x0 - dx), top = Y(y1 + dy);
  ctx.imageSmoothingEnabled = true;
  ctx.drawImage(panel.bitmap, left, top, X(x1 + dx) - left, Y(y0 - dy) - top);
}

function drawContours(panel, values) {
  const [nx, ny] = panel.grid, [x0, y0, x1, y1] = panel.box, { X, Y } = panel.place;
  const ux = (x1 - x0) / (nx - 1), uy = (y1 - y0) / (ny - 1);
  let low = TOP, high = 0;
  for (const v of values) { low = Math.min(low, v); high = Math.max(high, v); }
  if (high - low < TOP / RANGE / 2 / 20) return; // flat to a twentieth of a factor of 2: a line would follow rounding
  ctx.strokeStyle = theme.line;
  for (const level of LEVELS) {
    const v = (level / RANGE + 1) / 2 * TOP;
    ctx.lineWidth = (level === 0 ? 1.8 : 0.8) * dpr;
    ctx.beginPath();
    for (let j = 0; j < ny - 1; j++) {
      for (let i = 0; i < nx - 1; i++) {
        const o = j * nx + i, a = values[o], b = values[o + 1], c = values[o + nx + 1], d = values[o + nx];
        const code = (a > v) | ((b > v) << 1) | ((c > v) << 2) | ((d > v) << 3);
        if (code === 0 || code === 15) continue;
        const points = []; // where the level crosses the cell's sides, in order round it
        if ((a > v) !== (b > v)) points.push([i + (v - a) / (b - a), j]);
        if ((b > v) !== (c > v)) points.push([i + 1, j + (v - b) / (c - b)]);
        if ((d > v) !== (c > v)) points.push([i + (v - d) / (c - d), j + 1]);
        if ((a > v) !== (d > v)) points.push([i, j + (v - a) / (d - a)]);
        for (let k = 0; k + 1 < points.length; k += 2) {
          ctx.moveTo(X(x0 + ux * points[k][0]), Y(y0 + uy * points[k][1]));
          ctx.lineTo(X(x0 + ux * points[k + 1][0]), Y(y0 + uy * points[k + 1][1]));
        }
      }
    }
    ctx.stroke();
  }
}

function fieldAt(panel, at) {
  // A function (x, y) -> [mutation x, y, selection x, y], bilinear in space and linear in time.
  const { nx, ny, scales, mutationScale } = panel.field, [x0, y0, x1, y1] = panel.box, size = nx * ny * 2;
  const [a, b, f] = between(panel.keys, at);
  const ga = scales[a] / 32767 * (1 - f), gb = scales[b] / 32767 * f, gm = mutationScale / 32767;
  return (x, y) => {
    const u = Math.min(Math.max((x - x0) / (x1 - x0) * (nx - 1), 0), nx - 1.001);
    const v = Math.min(Math.max((y - y0) / (y1 - y0) * (ny - 1), 0), ny - 1.001);
    const i = Math.floor(u), j = Math.floor(v), p = u - i, q = v - j, out = [0, 0, 0, 0];
    for (let k = 0; k < 4; k++) {
      const o = 2 * ((j + (k >> 1)) * nx + i + (k & 1)), w = ((k & 1) ? p : 1 - p) * ((k >> 1) ? q : 1 - q);
      for (let c = 0; c < 2; c++) {
        out[c] += w * gm * panel.mutation[o + c];
        out[2 + c] += w * (ga * panel.selection[a * size + o + c] + gb * panel.selection[b * size + o + c]);
      }
    }
    return out;
  };
}

function sites(panel) {
  // Where arrows stand: a triangular lattice, or a square one where there is no triangle to stay in.
  if (panel.sites) return panel.sites;
  const out = [], [x0, y0, x1, y1] = panel.box;
  if (panel.span[0] < 0) {
    for (let i = 1; i < 13; i++) for (let j = 1; j < 13; j++) out.push([x0 + (x1 - x0) * i / 13, y0 + (y1 - y0) * j / 13]);
  } else {
    const m = 12;
    for (let i = 0; i <= m; i++) for (let j = 0; i + j <= m; j++) {
      const e = 0.035, a = e + (1 - 3 * e) * i / m, b = e + (1 - 3 * e) * j / m, c = 1 - a - b;
      out.push([b + c / 2, c * HEIGHT]);
    }
  }
  return (panel.sites = out);
}

function drawArrows(panel, at, kind) {
  const field = fieldAt(panel, at), { X, Y, scale } = panel.place;
  const longest = (panel.span[0] < 0 ? 0.2 : 0.07) * scale;
  const colour = packed(theme.arrow), width = 1.3 * dpr;
  for (const [x, y] of sites(panel)) {
    const [mx, my, sx, sy] = field(x, y);
    const vx = (kind !== 'selection' ? mx : 0) + (kind !== 'mutation' ? sx : 0);
    const vy = (kind !== 'selection' ? my : 0) + (kind !== 'mutation' ? sy : 0);
    const size = Math.hypot(vx, vy), length = longest * size / (size + 0.7);
    if (length < 1.5 * dpr) continue;
    const dx = vx / size * length, dy = -vy / size * length, px = X(x), py = Y(y);
    line(layer, px, py, px + dx, py + dy, width, colour, 1);
    head(px + dx, py + dy, dx, dy, 0.32, 0.7, width, colour);
  }
}

function head(x, y, dx, dy, long, wide, width, colour) {
  // An arrow's head at (x, y), its barbs `long` times the vector (dx, dy) back and `wide` of that aside.
  line(layer, x - long * (dx + wide * dy), y - long * (dy - wide * dx), x, y, width, colour, 1);
  line(layer, x - long * (dx - wide * dy), y - long * (dy + wide * dx), x, y, width, colour, 1);
}

function drawStreamlines(panel, at) {
  // Lines along the probability flow, 1/2 selection, by the midpoint rule in arc length, both ways from every seed.
  const field = fieldAt(panel, at), { X, Y } = panel.place, free = panel.span[0] < 0, h = free ? 0.05 : 0.018;
  const inside = (x, y) => free || (y > 0 && y < HEIGHT * 2 * x && y < HEIGHT * 2 * (1 - x));
  const direction = (x, y) => {
    const [, , sx, sy] = field(x, y), size = Math.hypot(sx, sy);
    return size > 1e-6 ? [sx / size, sy / size] : null;
  };
  const colour = packed(theme.dim), width = 1.1 * dpr;
  sites(panel).forEach(([sx, sy], i) => {
    if (i % 2) return;
    for (const way of [1, -1]) {
      let x = sx, y = sy;
      for (let k = 0; k < 9; k++) {
        const d = direction(x, y), e = d && direction(x + way * h / 2 * d[0], y + way * h / 2 * d[1]);
        if (!e) break;
        const nx = x + way * h * e[0], ny = y + way * h * e[1];
        if (!inside(nx, ny)) break;
        line(layer, X(x), Y(y), X(nx), Y(ny), width, colour, 0.7);
        x = nx;
        y = ny;
      }
      const d = way === 1 && direction(x, y);
      if (d) head(X(x), Y(y), d[0], -d[1], 5 * dpr, 0.6, width, colour);
    }
  });
}

function drawFlows(panel, at, kind) {
  // D3PM: reverse jump rates between states as arrows, wide where jumps are frequent. Selection can be negative, fewer
  // jumps than mutation alone would make: such arrows are hollow.
  const { X, Y, scale } = panel.place, frame = Math.min(Math.floor(at), frames - 2), f = at - frame, { flows } = panel;
  const places = [...CORNERS, [0.5, HEIGHT / 3]].map(([x, y]) => [X(x), Y(y)]);
  ctx.fillStyle = ctx.strokeStyle = theme.arrow;
  ctx.lineWidth = 1.2 * dpr;
  flows.mutation.forEach((row, i) => row.forEach((mutation, j) => {
    const [now, next] = [flows.selection[frame][i][j], flows.selection[frame + 1][i][j]];
    const rate = (kind !== 'selection' ? mutation : 0) + (kind !== 'mutation' ? now + f * (next - now) : 0);
    const width = FLOW * dpr * Math.abs(rate) / (Math.abs(rate) + 0.7);
    if (i === j || width < 0.4 * dpr) return;
    const [x0, y0] = places[i], [x1, y1] = places[j], d = Math.hypot(x1 - x0, y1 - y0), ux = (x1 - x0) / d, uy = (y1 - y0) / d;
    const oneWay = flows.mutation[j][i] === 0 && flows.selection[frame][j][i] === 0;
    const barb = width / 2 + 4 * dpr, long = 2 * barb, from = (DISC + 0.01) * scale, to = d - from, side = oneWay ? 0 : LANE * scale;
    const corner = (along, aside) => [x0 + along * ux - (side + aside) * uy, y0 + along * uy + (side + aside) * ux];
    const outline = [[from, -width / 2], [to - long, -width / 2], [to - long, -barb], [to, 0], [to - long, barb],
      [to - long, width / 2], [from, width / 2]].map(([a, b]) => corner(a, b));
    ctx.beginPath();
    outline.forEach(([x, y], k) => (k ? ctx.lineTo(x, y) : ctx.moveTo(x, y)));
    ctx.closePath();
    ctx.globalAlpha = 0.75;
    if (rate > 0) ctx.fill();
    else ctx.stroke();
    ctx.globalAlpha = 1;
  }));
}

function drawStates(panel, at) {
  // D3PM: a disc for every state, shaded by its theoretical fraction as the density is.
  const theory = panel.theory[Math.floor(at)].fractions, { X, Y, scale } = panel.place;
  theory.forEach((f, j) => {
    const [x, y] = j < 3 ? CORNERS[j] : [0.5, HEIGHT / 3];
    const v = Math.round(Math.min(Math.max((Math.log2(Math.max(3 * f, 1e-9)) / RANGE + 1) / 2, 0), 1) * 255), rgba = lut[v];
    ctx.fillStyle = 'rgb(' + (rgba & 255) + ',' + ((rgba >> 8) & 255) + ',' + ((rgba >> 16) & 255) + ')';
    ctx.strokeStyle = theme.line;
    ctx.lineWidth = dpr;
    ctx.beginPath();
    ctx.arc(X(x), Y(y), DISC * scale, 0, 7);
    if (view('heat')) ctx.fill();
    ctx.stroke();
  });
}

function particle(panel, i, frame, f, out) {
  const { n, xy } = panel, o = (frame * n + i) * 2, next = frame + 1 < frames ? o + n * 2 : o;
  if (panel.jumps) {
    const g = f < 0.6 ? 0 : (f - 0.6) / 0.4, e = g * g * (3 - 2 * g);
    const r = 0.075 * Math.sqrt((i + 0.5) / n), angle = i * GOLDEN;
    out[0] = xy[o] + e * (xy[next] - xy[o]) + r * Math.cos(angle);
    out[1] = xy[o + 1] + e * (xy[next + 1] - xy[o + 1]) + r * Math.sin(angle);
  } else {
    out[0] = xy[o] + f * (xy[next] - xy[o]);
    out[1] = xy[o + 1] + f * (xy[next + 1] - xy[o + 1]);
  }
}

function drawTrails(panel, frame) {
  // Where the first particles were during the last frames, up to this one; fading.
  const { X, Y } = panel.place, { n, xy } = panel, many = Math.min(n, TRAILED), first = Math.max(0, frame - TRAIL);
  for (let i = 0; i < many; i++) {
    const colour = trailColours[panel.corner[i]];
    for (let k = first; k < frame; k++) {
      const o = (k * n + i) * 2, next = o + 2 * n, opacity = OPAQUE * Math.max(1 - (frame - k) / (TRAIL + 1), 0.1);
      line(layer, X(xy[o]), Y(xy[o + 1]), X(xy[next]), Y(xy[next + 1]), 1.2 * dpr, colour, opacity);
    }
  }
}

function drawPast(frame) {
  // The trails change with the frame only: so they are kept for the pictures between two frames.
  if (past && past.frame === frame) return layer.px.set(past.px);
  clearLayer(layer);
  if (view('trails')) {
    for (const panel of panels) {
      setClip(panel);
      if (!panel.jumps) drawTrails(panel, frame);
    }
  }
  past = { frame, px: layer.px.slice() };
}

function drawTips(panel, frame, f) {
  // The newest piece of every trail, to where its particle is between two frames.
  const { X, Y } = panel.place, { n, xy } = panel, many = Math.min(n, TRAILED), point = [0, 0];
  for (let i = 0; i < many; i++) {
    const o = (frame * n + i) * 2;
    particle(panel, i, frame, f, point);
    line(layer, X(xy[o]), Y(xy[o + 1]), X(point[0]), Y(point[1]), 1.2 * dpr, trailColours[panel.corner[i]], OPAQUE);
  }
}

function drawParticles(panel, at) {
  const frame = Math.floor(at), f = at - frame, { X, Y } = panel.place, point = [0, 0];
  for (let i = 0; i < panel.n; i++) {
    particle(panel, i, frame, f, point);
    stamp(layer, panel.discs[panel.corner[i]], X(point[0]), Y(point[1]));
  }
}

function within(panel, paint) { // what is drawn for a panel stays inside it
  const { left, top, W, H } = panel.place;
  ctx.save();
  ctx.beginPath();
  ctx.rect(left, top, W, H);
  ctx.clip();
  paint();
  ctx.restore();
}

function drawGround(panel, at) {
  // The heat-map, its contours and the triangle: few, large shapes, drawn by the canvas.
  if (panel.density && (view('heat') || view('contours'))) {
    ctx.save();
    if (panel.span[0] >= 0) {
      triangle(panel);
      ctx.clip();
    }
    const values = densityAt(panel, at);
    if (view('heat')) drawHeat(panel, values);
    if (view('contours')) drawContours(panel, values);
    ctx.restore();
  }
  ctx.strokeStyle = theme.dim;
  ctx.lineWidth = 1.4 * dpr;
  triangle(panel);
  ctx.stroke();
  if (panel.jumps) drawStates(panel, at);
}

function setClip(panel) {
  const { left, top, W, H } = panel.place;
  layer.clip = [left, top, left + W, top + H].map(Math.round);
}

function drawMoving(panel, at) {
  // Many small shapes, drawn into the layer.
  setClip(panel);
  if (panel.field && view('lines')) drawStreamlines(panel, at);
  if (view('trails') && !panel.jumps) drawTips(panel, Math.floor(at), at % 1);
  drawParticles(panel, at);
  if (panel.field && view('arrows') !== 'none') drawArrows(panel, at, view('arrows'));
}

function drawLabels(panel) {
  const { X, Y, left, top, W } = panel.place;
  const font = (size, weight = 400) => (ctx.font = weight + ' ' + size * dpr + 'px ' + family);
  CORNERS.forEach(([x, y], j) => {
    const disc = panel.jumps ? DISC * panel.place.scale : 0, gap = 5 * dpr;
    ctx.textAlign = 'center';
    ctx.textBaseline = j < 2 ? 'top' : 'bottom';
    font(13, 600);
    const wide = ctx.measureText('category ' + (j + 1)).width / 2 + 4 * dpr;
    ctx.lineWidth = 3 * dpr;
    ctx.strokeStyle = theme.back;
    ctx.fillStyle = theme.corner[j];
    const px = Math.min(Math.max(X(x), left + wide), left + W - wide), py = Y(y) + (j < 2 ? disc + gap : -disc - gap);
    ctx.strokeText('category ' + (j + 1), px, py);
    ctx.fillText('category ' + (j + 1), px, py);
  });
  if (panel.jumps && panel.theory[0].fractions.length === 4) {
    ctx.fillStyle = theme.dim;
    ctx.textBaseline = 'top';
    ctx.textAlign = 'center';
    font(12);
    ctx.fillText('mask', X(0.5), Y(HEIGHT / 3 - 0.1));
  }
  ctx.textAlign = 'left';
  ctx.textBaseline = 'top';
  ctx.fillStyle = theme.ink;
  font(14, 600);
  ctx.fillText(panel.title, left + 8 * dpr, top + 6 * dpr);
}

const view = (name) => {
  const control = $(name);
  return control.type === 'checkbox' ? control.checked : control.value;
};

function draw() {
  ctx.fillStyle = theme.back;
  ctx.fillRect(0, 0, canvas.width, canvas.height);
  if (!panels.length) return;
  const at = still.matches ? Math.floor(pos + 1e-6) : pos;
  drawPast(Math.floor(at));
  for (const panel of panels) {
    within(panel, () => drawGround(panel, at));
    drawMoving(panel, at);
  }
  pasteLayer(layer, ctx);
  for (const panel of panels) {
    within(panel, () => {
      if (panel.flows && view('arrows') !== 'none') drawFlows(panel, at, view('arrows'));
      drawLabels(panel);
    });
  }
  const frame = Math.min(Math.floor(at + 1e-6), frames - 1), now = performance.now();
  if (frame !== shownFrame && !(playing && now - toldAt < NUMBERS_EVERY && frame < frames - 1)) {
    shownFrame = frame;
    toldAt = now;
    showNumbers(frame);
    const taus = panels.map((p) => p.unitName + ' = ' + fixed(p.native[frame], p.jumps ? 0 : 3)).join(', ');
    clock.textContent = 't = ' + times[frame].toFixed(3) + ' · step ' + frame + ' of ' + (frames - 1);
    clock.title = taus;
    canvas.setAttribute('aria-label', panels.map((p) => p.title).join(' and ') + ' on the triangle at time t = ' +
      times[frame].toFixed(3) + ' (' + taus + '). Space plays or pauses, arrow keys step.');
  }
  bar.value = String(at);
  root.dataset.frame = String(frame);
  root.dataset.pos = at.toFixed(4);
  drawn.count++;
  root.dataset.drawn = String(drawn.count);
}

// -- the clock ----------------------------------------------------------------------------------------------------

function nextTick() { // one loop only, however often play and pause were pressed
  loop = loop || requestAnimationFrame(tick);
}

function tick(now) {
  loop = 0;
  if (!playing || !visible) {
    lastTick = 0;
    return;
  }
  if (lastTick) {
    const dt = Math.min((now - lastTick) / 1000, 0.25), speed = Number(view('speed'));
    if (pos >= frames - 1) {
      rest += dt;
      if (rest > REST) {
        rest = 0;
        if (view('loop') && !recorder) pos = 0;
        else play(false);
      }
    } else {
      const rate = (frames - 1) / SECONDS * speed;
      pos = Math.min(pos + dt * (still.matches ? Math.min(rate, 4) : rate), frames - 1);
    }
    draw();
  }
  lastTick = now;
  if (playing) nextTick();
  else finish();
}

function play(on) {
  if (on && !playing && pos >= frames - 1) pos = 0;
  const started = on && !playing;
  playing = on;
  $('play').textContent = on ? 'Pause' : 'Play';
  root.dataset.playing = String(on);
  if (started) {
    lastTick = 0;
    nextTick();
  } else if (!on) {
    finish();
    draw(); // the numbers may lag behind while playing
  }
}

function seek(to) {
  pos = Math.min(Math.max(to, 0), frames - 1);
  rest = 0;
  draw();
}

function step(by) {
  play(false);
  seek(by > 0 ? Math.floor(pos + 1e-6) + by : Math.ceil(pos - 1e-6) + by);
}

// -- export -------------------------------------------------------------------------------------------------------

function save(blob, name) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  root.dataset.saved = name + ' ' + blob.size;
}

function finish() { // a recording ends with the playing, however that ends
  if (recorder && recorder.state === 'recording') recorder.stop();
}

function record() {
  const kinds = ['video/webm;codecs=vp9', 'video/webm;codecs=vp8', 'video/webm', 'video/mp4'];
  const kind = window.MediaRecorder && kinds.find((k) => MediaRecorder.isTypeSupported(k));
  if (!kind || !canvas.captureStream) {
    message.textContent = 'This browser cannot record a canvas; save a PNG instead.';
    return;
  }
  const chunks = [];
  recorder = new MediaRecorder(canvas.captureStream(30), { mimeType: kind, videoBitsPerSecond: 6e6 });
  recorder.ondataavailable = (e) => chunks.push(e.data);
  recorder.onstop = () => {
    save(new Blob(chunks, { type: kind.split(';')[0] }), kind.includes('mp4') ? 'simplex.mp4' : 'simplex.webm');
    recorder = null;
    message.textContent = '';
    $('webm').disabled = false;
  };
  message.textContent = 'Recording one pass…';
  $('webm').disabled = true;
  play(false);
  seek(0);
  recorder.start();
  play(true);
}

// -- wiring -------------------------------------------------------------------------------------------------------

$('play').addEventListener('click', () => play(!playing));
$('back').addEventListener('click', () => step(-1));
$('next').addEventListener('click', () => step(1));
$('png').addEventListener('click', () => canvas.toBlob((blob) => save(blob, 'simplex-t' + times[Math.floor(pos)].toFixed(3) + '.png')));
$('webm').addEventListener('click', record);
bar.addEventListener('input', () => {
  play(false);
  seek(Number(bar.value));
});
for (const name of ['heat', 'contours', 'trails', 'arrows', 'lines']) {
  $(name).addEventListener('change', () => {
    past = null;
    explain();
    draw();
  });
}

function onKey(event) {
  if (!root.isConnected) return document.removeEventListener('keydown', onKey);
  const target = event.target, own = root.contains(target);
  if (!visible || !panels.length || event.ctrlKey || event.metaKey || event.altKey) return;
  if (!own && target !== document.body) return;
  const choosing = own && target.matches('select'), pressing = own && target.matches('button, select, input[type=checkbox]');
  if (event.key === ' ' && !pressing) play(!playing);
  else if (event.key === 'ArrowRight' && !choosing) step(event.shiftKey ? 10 : 1);
  else if (event.key === 'ArrowLeft' && !choosing) step(event.shiftKey ? -10 : -1);
  else if (event.key === 'Home' && own && !choosing) step(-frames);
  else if (event.key === 'End' && own && !choosing) step(frames);
  else return;
  event.preventDefault();
}
document.addEventListener('keydown', onKey);

if (still.matches) $('trails').checked = false;
new ResizeObserver(() => {
  if (Math.round(Math.max(root.clientWidth, 200) * dpr) !== canvas.width) layout();
}).observe(root);
new MutationObserver(layout).observe(document.body, { attributes: true, attributeFilter: ['class'] });
new IntersectionObserver((entries) => {
  visible = entries[entries.length - 1].isIntersecting;
  if (visible && !asked && !panels.length) {
    asked = true;
    trigger('ready');
  }
  if (visible && playing) nextTick();
}, { rootMargin: '300px' }).observe(root);
watch('value', load);
root.simplex = { seek: (to) => { play(false); seek(to); }, play, numbers: () => panels.map((p) => p.numbers), frames: () => frames,
  particles: () => panels.map((p) => p.n) };
retheme();
load();
