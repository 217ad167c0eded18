// The page of `trapline report`. Its data is the JSON in #data: figures that were added up by group, interval and latency. Names in it are
// from other processes: they become text nodes and nothing else.
"use strict";

const DATA = JSON.parse(document.getElementById("data").textContent);
const { dims, measures, groups, cells } = DATA;
const UNKNOWN = "(unknown)";
const COLORS = 8;
const PARTS = measures.map((m, at) => at).filter((at) => measures[at].part);
const SHOWN = measures.map((m, at) => at).filter((at) => !measures[at].part);
const TIME = measures.findIndex((m) => m.time && !m.part);
// Times are since the first event.
const FIRST = cells.bin.reduce((least, bin) => Math.min(least, bin), cells.bin[0] || 0);
cells.bin = cells.bin.map((bin) => bin - FIRST);
const BINS = 1 + cells.bin.reduce((most, bin) => Math.max(most, bin), 0);
const HAS_TIMES = cells.octave.some((octave) => octave >= 0);

// What is chosen: names by dimension, an interval of time, what rows and colours are, the order.
const state = { filters: new Map(), from: null, to: null, dim: 0, by: 0, measure: TIME < 0 ? 0 : TIME, sort: TIME < 0 ? 0 : TIME, up: false, search: "", limit: 50 };
const views = [];

// ---- Elements ----

function el(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) if (child !== null && child !== undefined) node.append(child);
  return node;
}

function fill(node, ...children) {
  node.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
}

function choice(label, options, chosen, change) {
  const select = el("select", { onchange: (event) => change(Number(event.target.value)) },
    options.map(([value, text]) => el("option", { value, selected: value === chosen }, text)));
  return el("label", {}, label, select);
}

// ---- Numbers ----

function trim(number, digits) {
  return number.toLocaleString("en", { maximumFractionDigits: digits });
}

function time(ns) {
  if (ns < 1e3) return `${trim(ns, 0)} ns`;
  if (ns < 1e6) return `${trim(ns / 1e3, ns < 1e5 ? 1 : 0)} µs`;
  if (ns < 1e9) return `${trim(ns / 1e6, ns < 1e8 ? 1 : 0)} ms`;
  return `${trim(ns / 1e9, ns < 1e11 ? 2 : 0)} s`;
}

function bytes(count) {
  for (const [unit, size] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 1024]]) {
    if (count >= size) return `${trim(count / size, 1)} ${unit}`;
  }
  return `${count} B`;
}

const shortly = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

function figure(value, measure, short) {
  if (measures[measure].time) return time(value);
  return short ? shortly.format(value) : trim(value, 0);
}

function title(measure) {
  const { name, part } = measures[measure];
  const text = name === "total_ns" ? "time" : name === "io_ns" ? "I/O" : name.replace(/_ns$/, part ? "" : " time").replaceAll("_", " ");
  return text[0].toUpperCase() + text.slice(1);
}

function dimTitle(dim) {
  const name = dims[dim].name.replaceAll("_", " ");
  return name[0].toUpperCase() + name.slice(1);
}

function word(dim, group) {
  return dims[dim].words[groups[group][dim]];
}

const MOMENT = (bin) => bin * DATA.bin_ns;

// ---- Sums over the cells ----

// Whether each group passes the filters, but for those of one dimension.
function chosen(but) {
  return groups.map((group) => [...state.filters].every(([dim, code]) => dim === but || group[dim] === code));
}

function eachCell(passes, visit, allTimes) {
  const from = allTimes || state.from === null ? 0 : state.from;
  const to = allTimes || state.to === null ? BINS - 1 : state.to;
  for (let at = 0; at < cells.group.length; at++) {
    if (cells.bin[at] >= from && cells.bin[at] <= to && passes[cells.group[at]]) visit(at);
  }
}

function sums(dim) {
  const rows = new Map();
  eachCell(chosen(null), (at) => {
    const code = dim < 0 ? 0 : groups[cells.group[at]][dim];
    let row = rows.get(code);
    if (!row) rows.set(code, (row = { code, figures: measures.map(() => 0) }));
    for (let m = 0; m < measures.length; m++) row.figures[m] += cells.figures[m][at];
  });
  return [...rows.values()];
}

// The names with the most, in the order of their sums over the whole run, so that colours stay; then the others.
function leaders(dim, measure) {
  const of = new Map();
  eachCell(chosen(dim), (at) => {
    const code = groups[cells.group[at]][dim];
    of.set(code, (of.get(code) || 0) + cells.figures[measure][at]);
  }, true);
  const order = [...of].filter(([, sum]) => sum > 0).sort((a, b) => b[1] - a[1]).map(([code]) => code);
  return { lead: order.slice(0, COLORS), rest: order.length > COLORS };
}

// ---- Drawing ----

function style(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// A canvas that is drawn for its width and the display's pixels, with a text for those who do not see it.
function plot(height, label, draw) {
  const canvas = el("canvas", { role: "img", "aria-label": label });
  const tip = el("div", { class: "tip", hidden: true });
  const box = el("div", { class: "plot" }, canvas, tip);
  const own = { box, canvas, tip, height, width: 0, label: (text) => canvas.setAttribute("aria-label", text) };
  own.draw = () => {
    const scale = Math.min(window.devicePixelRatio || 1, 3);
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize) / 15;
    own.width = box.clientWidth || 600;
    own.rem = rem;
    own.tall = own.height * rem;
    canvas.width = Math.round(own.width * scale);
    canvas.height = Math.round(own.tall * scale);
    canvas.style.height = `${own.tall}px`;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    pen.font = `${11 * rem}px ${getComputedStyle(document.body).fontFamily}`;
    draw(pen, own);
  };
  own.hover = (text) => {
    canvas.addEventListener("pointermove", (event) => {
      const at = canvas.getBoundingClientRect();
      const [x, y] = [event.clientX - at.left, event.clientY - at.top];
      const said = text(x, y);
      tip.hidden = !said;
      if (!said) return;
      tip.textContent = said;
      tip.style.left = `${Math.max(0, Math.min(x + 12, own.width - tip.offsetWidth))}px`;
      tip.style.top = `${Math.max(0, y - tip.offsetHeight - 8)}px`;
    });
    canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
    return own;
  };
  views.push(own.draw);
  return own;
}

const LEFT = 62;
const FOOT = 20;

function axes(pen, own, most, label, bins, binNs) {
  const [left, bottom] = [LEFT * own.rem, own.tall - FOOT * own.rem];
  pen.strokeStyle = style("--line");
  pen.fillStyle = style("--soft");
  pen.textAlign = "right";
  for (let part = 0; part <= 2 && most !== null; part++) {
    const y = Math.round(bottom - ((bottom - 8) * part) / 2) + 0.5;
    pen.beginPath();
    pen.moveTo(left, y);
    pen.lineTo(own.width, y);
    pen.stroke();
    pen.fillText(label((most * part) / 2), left - 6, y + 4);
  }
  if (!binNs) return;
  const ticks = Math.max(2, Math.min(8, Math.floor((own.width - left) / (90 * own.rem))));
  for (let tick = 0; tick <= ticks; tick++) {
    pen.textAlign = tick === 0 ? "left" : tick === ticks ? "right" : "center";
    pen.fillText(time((bins * binNs * tick) / ticks), left + ((own.width - left) * tick) / ticks, own.tall - 4);
  }
}

// A light colour for few and a strong one for many, in both themes.
function heatColor(share) {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const stops = dark ? [[38, 52, 92], [133, 68, 140], [235, 106, 90], [255, 224, 130]] : [[222, 232, 250], [120, 160, 235], [120, 60, 170], [90, 10, 60]];
  const at = Math.min(0.999, Math.max(0, share)) * (stops.length - 1);
  const low = Math.floor(at);
  return `rgb(${stops[low].map((c, n) => Math.round(c + (stops[low + 1][n] - c) * (at - low))).join(",")})`;
}

function rows(head, body) {
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Figures of the chart" }, el("table", {},
    el("thead", {}, el("tr", {}, head.map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, body.map((row) => el("tr", {}, row.map((text, at) => el("td", { class: at ? "num" : null }, text)))))));
}

// The same figures as a table, which is made when it is opened.
function asTable(make) {
  const inside = el("div");
  const refresh = () => { if (details.open) fill(inside, make()); };
  const details = el("details", { ontoggle: refresh }, el("summary", {}, "Show as a table"), inside);
  views.push(refresh);
  return details;
}

function section(heading, ...children) {
  const id = `h${document.querySelectorAll("h2").length}-${heading.replace(/\W+/g, "-").toLowerCase()}`;
  return el("section", { "aria-labelledby": id }, el("h2", { id }, heading), children);
}

let waiting = false;
function refresh() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    views.forEach((view) => view());
  });
}

function setTime(from, to) {
  state.from = from === null ? null : Math.max(0, Math.min(from, to));
  state.to = from === null ? null : Math.min(BINS - 1, Math.max(from, to));
  refresh();
}

function setFilter(dim, code) {
  if (code === null) state.filters.delete(dim);
  else state.filters.set(dim, code);
  refresh();
}

// ---- The head ----

function head() {
  const [run] = DATA.runs;
  const names = DATA.runs.map((r) => r.name).join(", ");
  const about = run ? `${run.host || "unknown host"}, Linux ${run.kernel || "of unknown release"}, ${run.start.slice(0, 19).replace("T", " ")} UTC` : "";
  const tiles = el("div", { class: "tiles" });
  const all = measures.map((m, at) => cells.figures[at].reduce((sum, n) => sum + n, 0));
  const tile = (text, value, help) => el("div", { class: "tile", title: help || null }, el("b", {}, value), el("span", {}, text));
  const longest = DATA.runs.reduce((most, r) => Math.max(most, r.duration_ns), 0);
  const lost = DATA.runs.reduce((sum, r) => sum + (r.facts.find(([name]) => name === "lost_events") || [0, 0])[1], 0);
  fill(tiles,
    tile("duration", time(longest)),
    SHOWN.slice(0, 5).filter((m) => measures[m].name !== "timed").map((m) => tile(title(m).toLowerCase(), figure(all[m], m, true), `${measures[m].help} ${figure(all[m], m)}`)),
    TIME >= 0 && longest ? tile("of the duration", `${trim((all[TIME] / longest) * 100, 1)} %`) : null,
    tile("events lost", trim(lost, 0)));
  return el("header", {}, el("h1", {}, `trapline ${DATA.tool}: ${names}`), el("p", { class: "soft" }, about), tiles);
}

function findings() {
  const list = DATA.findings.map((f) => {
    const share = f.share_ppm / 1e4;
    const process = dims.findIndex((d) => d.name === "process");
    const code = process < 0 || f.pid === null ? -1 : dims[process].words.findIndex((w) => w.endsWith(`(${f.pid})`));
    const file = dims.findIndex((d) => d.name === "file");
    const subject = file < 0 || !f.subject ? -1 : dims[file].words.indexOf(f.subject);
    const show = () => {
      state.filters.clear();
      if (code >= 0) state.filters.set(process, code);
      if (subject >= 0) state.filters.set(file, subject);
      refresh();
      document.getElementById("who").scrollIntoView({ block: "start" });
    };
    return el("article", { class: "finding" },
      el("h3", {}, f.finding),
      el("div", { class: "meter", role: "img", "aria-label": `${trim(share, 1)} % of the duration` }, el("i", { style: `width:${Math.min(100, share)}%` })),
      el("p", { class: "soft" }, `${trim(share, 1)} % of the duration; ${f.confidence}. ${f.evidence}.`),
      el("p", {}, el("b", {}, "What to do: "), `${f.advice}.`),
      code >= 0 ? el("p", {}, el("button", { type: "button", onclick: show }, "Show its figures")) : null);
  });
  const none = DATA.unjudged && DATA.unjudged.startsWith("Findings are left out") ? null : el("p", {}, "Nothing stands out.");
  return section("Findings", list.length ? el("div", { class: "findings" }, list) : none, DATA.unjudged ? el("p", { class: "soft" }, `${DATA.unjudged}.`) : null);
}

// What latency and tables are of: the chosen time and names, each with a button that takes it away.
function bar() {
  const node = el("nav", { class: "bar", "aria-label": "Chosen time and names" });
  const live = el("span", { role: "status", "aria-live": "polite" });
  views.push(() => {
    const chips = [...state.filters].map(([dim, code]) => el("button", { class: "chip", type: "button", title: "Remove", onclick: () => setFilter(dim, null) }, `${dimTitle(dim)}: ${dims[dim].words[code]} ✕`));
    if (state.from !== null) {
      chips.unshift(el("button", { class: "chip", type: "button", title: "Remove", onclick: () => setTime(null) }, `${time(MOMENT(state.from))} – ${time(MOMENT(state.to + 1))} ✕`));
    }
    const [row] = sums(-1);
    live.textContent = SHOWN.slice(0, 3).map((m) => `${title(m)} ${figure(row ? row.figures[m] : 0, m)}`).join(", ");
    const reset = chips.length ? el("button", { type: "button", onclick: () => { state.filters.clear(); setTime(null); } }, "Show all") : null;
    fill(node, chips.length ? null : el("span", { class: "soft" }, "Whole run:"), chips, live, reset);
  });
  return node;
}

// ---- Time ----

// Choosing an interval with the pointer or the keys.
function brush(own, binAt) {
  let start = null;
  own.canvas.tabIndex = 0;
  own.canvas.setAttribute("aria-keyshortcuts", "ArrowLeft ArrowRight Shift+ArrowRight Escape");
  own.canvas.addEventListener("pointerdown", (event) => {
    start = binAt(event.offsetX);
    own.canvas.setPointerCapture(event.pointerId);
  });
  own.canvas.addEventListener("pointermove", (event) => {
    if (start !== null && binAt(event.offsetX) !== start) setTime(start, binAt(event.offsetX));
  });
  own.canvas.addEventListener("pointerup", (event) => {
    if (start !== null && binAt(event.offsetX) === start) setTime(null);
    start = null;
  });
  own.canvas.addEventListener("keydown", (event) => {
    const step = Math.max(1, Math.round(BINS / 40));
    const moves = { ArrowLeft: -step, ArrowRight: step };
    if (event.key === "Escape") return setTime(null);
    if (!(event.key in moves)) return undefined;
    event.preventDefault();
    const move = moves[event.key];
    if (state.from === null) return setTime(move > 0 ? 0 : BINS - step, move > 0 ? step - 1 : BINS - 1);
    const to = Math.min(BINS - 1, Math.max(0, state.to + move));
    if (event.shiftKey) return setTime(Math.min(state.from, to), to);
    return setTime(Math.max(0, state.from + move), to);
  });
}

function shade(pen, own) {
  if (state.from === null) return;
  const step = (own.width - LEFT * own.rem) / BINS;
  pen.fillStyle = style("--select");
  pen.fillRect(LEFT * own.rem + state.from * step, 0, (state.to - state.from + 1) * step, own.tall - FOOT * own.rem);
}

function timeline() {
  let made = null;
  const collect = () => {
    const { lead, rest } = leaders(state.by, state.measure);
    const place = new Map(lead.map((code, at) => [code, at]));
    const stacks = Array.from({ length: lead.length + 1 }, () => new Float64Array(BINS));
    eachCell(chosen(null), (at) => {
      const series = place.get(groups[cells.group[at]][state.by]);
      stacks[series === undefined ? lead.length : series][cells.bin[at]] += cells.figures[state.measure][at];
    }, true);
    const tops = Array.from({ length: BINS }, (_, bin) => stacks.reduce((sum, s) => sum + s[bin], 0));
    made = { lead, rest, stacks, tops, most: Math.max(...tops, 1) };
  };
  const binAt = (x) => Math.max(0, Math.min(BINS - 1, Math.floor(((x - LEFT * own.rem) / (own.width - LEFT * own.rem)) * BINS)));
  const own = plot(210, "Timeline", (pen) => {
    collect();
    const bottom = own.tall - FOOT * own.rem;
    axes(pen, own, made.most, (value) => figure(value, state.measure, true), BINS, DATA.bin_ns);
    const step = (own.width - LEFT * own.rem) / BINS;
    const used = new Float64Array(BINS);
    made.stacks.forEach((series, at) => {
      pen.fillStyle = style(`--s${at < made.lead.length ? at : COLORS}`);
      for (let bin = 0; bin < BINS; bin++) {
        if (!series[bin]) continue;
        const [low, high] = [used[bin], used[bin] + series[bin]].map((v) => (v / made.most) * (bottom - 8));
        pen.fillRect(LEFT * own.rem + bin * step, bottom - high, Math.max(step - (step > 4 ? 1 : 0), 0.8), Math.max(high - low, 0.8));
        used[bin] += series[bin];
      }
    });
    shade(pen, own);
    const highest = made.tops.indexOf(made.most);
    own.label(`${title(state.measure)} over time by ${dimTitle(state.by).toLowerCase()}; most at ${time(MOMENT(Math.max(highest, 0)))}: ${figure(made.most, state.measure)} in ${time(DATA.bin_ns)}. Arrow keys choose an interval, Escape the whole run.`);
    fill(legend, made.lead.map((code, at) => el("li", {}, el("i", { style: `background:var(--s${at})` }), el("span", {}, dims[state.by].words[code]))),
      made.rest ? el("li", {}, el("i", { style: `background:var(--s${COLORS})` }), el("span", {}, "others")) : null);
  }).hover((x) => {
    if (!made || x < LEFT * own.rem) return "";
    const bin = binAt(x);
    const parts = made.stacks.map((s, at) => [s[bin], at < made.lead.length ? dims[state.by].words[made.lead[at]] : "others"]).filter(([n]) => n > 0).sort((a, b) => b[0] - a[0]);
    return [`${time(MOMENT(bin))}: ${figure(made.tops[bin], state.measure)}`, ...parts.slice(0, 6).map(([n, name]) => `${figure(n, state.measure)}  ${name}`)].join("\n");
  });
  brush(own, binAt);
  const legend = el("ul", { class: "legend" });
  const controls = el("div", { class: "controls" },
    choice("Figure", SHOWN.concat(PARTS).map((m) => [m, title(m)]), state.measure, (m) => { state.measure = m; refresh(); }),
    choice("by", dims.map((d, at) => [at, dimTitle(at)]).filter(([at]) => dims[at].words.length > 1 || at === 0), state.by, (by) => { state.by = by; refresh(); }),
    el("span", { class: "soft" }, "Drag over a time to choose it: latency and tables follow."));
  return section("When", controls, own.box, legend, asTable(() => rows(["From", title(state.measure)],
    made.tops.map((n, bin) => [time(MOMENT(bin)), figure(n, state.measure)]).filter((row, bin) => made.tops[bin] > 0))));
}

// ---- Latency ----

function latency() {
  const count = 0;
  const used = cells.octave.filter((octave) => octave >= 0);
  const [low, high] = used.reduce(([low, high], octave) => [Math.min(low, octave), Math.max(high, octave)], [99, 0]);
  const levels = high - low + 1;
  const label = (octave) => time(DATA.octaves[octave]);
  const binAt = (x) => Math.max(0, Math.min(BINS - 1, Math.floor(((x - LEFT * heat.rem) / (heat.width - LEFT * heat.rem)) * BINS)));
  let made = null;
  const collect = () => {
    made = { grid: new Float64Array(BINS * levels), hist: new Float64Array(levels) };
    eachCell(chosen(null), (at) => { if (cells.octave[at] >= 0) made.grid[cells.bin[at] * levels + cells.octave[at] - low] += cells.figures[count][at]; }, true);
    eachCell(chosen(null), (at) => { if (cells.octave[at] >= 0) made.hist[cells.octave[at] - low] += cells.figures[count][at]; });
    made.most = made.grid.reduce((most, n) => Math.max(most, n), 1);
  };
  const tall = Math.max(120, Math.min(300, levels * 15 + FOOT));
  const heat = plot(tall, "Latency by time", (pen) => {
    collect();
    const bottom = heat.tall - FOOT * heat.rem;
    axes(pen, heat, null, null, BINS, DATA.bin_ns);
    const [wide, high1] = [(heat.width - LEFT * heat.rem) / BINS, bottom / levels];
    pen.textAlign = "right";
    for (let level = 0; level < levels; level++) {
      const y = bottom - (level + 1) * high1;
      if (level % Math.ceil(levels / 10) === 0) pen.fillText(label(level + low), LEFT * heat.rem - 6, y + high1);
      for (let bin = 0; bin < BINS; bin++) {
        const n = made.grid[bin * levels + level];
        if (!n) continue;
        pen.fillStyle = heatColor(Math.log1p(n) / Math.log1p(made.most));
        pen.fillRect(LEFT * heat.rem + bin * wide, y, wide + 0.4, high1 - 0.5);
      }
      pen.fillStyle = style("--soft");
    }
    shade(pen, heat);
    heat.label(`Latency heat map: ${title(count).toLowerCase()} by time and latency, from ${label(low)} on. The histogram beside it has the sums.`);
  }).hover((x, y) => {
    if (!made || x < LEFT * heat.rem) return "";
    const level = Math.floor(((heat.tall - FOOT * heat.rem - y) / (heat.tall - FOOT * heat.rem)) * levels);
    const n = level >= 0 && level < levels ? made.grid[binAt(x) * levels + level] : 0;
    return n ? `${time(MOMENT(binAt(x)))}, from ${label(level + low)} on:\n${trim(n, 0)} ${title(count).toLowerCase()}` : "";
  });
  brush(heat, binAt);
  const hist = plot(tall, "Histogram", (pen) => {
    const most = made.hist.reduce((m, n) => Math.max(m, n), 1);
    const step = hist.tall / levels;
    pen.textBaseline = "middle";
    for (let level = 0; level < levels; level++) {
      const y = hist.tall - (level + 1) * step;
      pen.fillStyle = style("--soft");
      pen.textAlign = "right";
      pen.fillText(label(level + low), LEFT * hist.rem - 6, y + step / 2);
      const wide = (made.hist[level] / most) * (hist.width - (LEFT + 52) * hist.rem);
      pen.fillStyle = style("--s0");
      pen.fillRect(LEFT * hist.rem, y + 1, made.hist[level] ? Math.max(wide, 1) : 0, step - 2);
      pen.fillStyle = style("--soft");
      pen.textAlign = "left";
      if (made.hist[level]) pen.fillText(shortly.format(made.hist[level]), LEFT * hist.rem + wide + 5, y + step / 2);
    }
    hist.label(`Histogram of latency: ${[...made.hist].map((n, level) => (n ? `from ${label(level + low)}: ${trim(n, 0)}` : "")).filter(Boolean).join(", ")}`);
  });
  return el("div", { class: "pair" }, section("Latency over time", heat.box),
    section("Latency", hist.box, asTable(() => rows(["From", title(count)], [...made.hist].map((n, level) => [label(level + low), trim(n, 0)]).filter((row) => row[1] !== "0")))));
}

// ---- Who ----

function share(part, all) {
  const percent = all ? (part / all) * 100 : 0;
  return el("span", { class: "share", "aria-hidden": "true" }, el("i", { style: `width:${percent}%` }));
}

function split(figures) {
  const all = PARTS.reduce((sum, m) => sum + figures[m], 0);
  const text = PARTS.filter((m) => figures[m] > 0).map((m) => `${title(m)} ${time(figures[m])}`).join(", ");
  return el("div", { class: "split", role: "img", title: text, "aria-label": text || "no time" },
    PARTS.map((m, at) => (figures[m] ? el("i", { style: `width:${(figures[m] / all) * 100}%;background:var(--s${at % COLORS})` }) : null)));
}

function who() {
  const order = dims.map((d, at) => at).filter((at) => at === 0 || dims[at].words.length > 1 || dims[at].words[0] !== UNKNOWN);
  const tabs = el("div", { class: "tabs", role: "group", "aria-label": "A row is one" });
  const body = el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Who" });
  const more = el("div");
  const search = el("input", { type: "search", placeholder: "part of a name", "aria-label": "Filter names", oninput: (event) => { state.search = event.target.value; refresh(); } });
  const legend = el("ul", { class: "legend" }, PARTS.map((m, at) => el("li", {}, el("i", { style: `background:var(--s${at % COLORS})` }), el("span", { title: measures[m].help }, title(m)))));
  const drill = (code) => {
    setFilter(state.dim, code);
    const next = order.find((dim) => dim > state.dim && !state.filters.has(dim) && dims[dim].words.length > 1);
    if (next !== undefined) state.dim = next;
    state.limit = 50;
  };
  const column = (at, text, help) => {
    const is = state.sort === at;
    const press = () => { state.up = is ? !state.up : at < 0; state.sort = at; refresh(); };
    return el("th", { scope: "col", class: at < 0 ? null : "num", "aria-sort": is ? (state.up ? "ascending" : "descending") : null },
      el("button", { type: "button", title: help || null, onclick: press, "data-sort": at }, `${text}${is ? (state.up ? " ▲" : " ▼") : ""}`));
  };
  views.push(() => {
    fill(tabs, order.map((dim) => el("button", { type: "button", "aria-pressed": String(dim === state.dim), "data-dim": dims[dim].name, onclick: () => { state.dim = dim; state.limit = 50; refresh(); } }, dimTitle(dim))));
    const all = sums(state.dim);
    const total = measures.map((m, at) => all.reduce((sum, row) => sum + row.figures[at], 0));
    const name = (row) => dims[state.dim].words[row.code];
    const wanted = state.search.toLowerCase();
    const found = all.filter((row) => name(row).toLowerCase().includes(wanted));
    const compare = (a, b) => (state.sort < 0 ? name(a).localeCompare(name(b)) : a.figures[state.sort] - b.figures[state.sort]);
    found.sort((a, b) => (state.up ? 1 : -1) * compare(a, b));
    const line = (row) => el("tr", {},
      el("td", { class: "key" }, el("button", { type: "button", onclick: () => drill(row.code) }, name(row))),
      SHOWN.map((m) => el("td", { class: "num" }, figure(row.figures[m], m), m === state.sort ? share(row.figures[m], total[m]) : null)),
      PARTS.length ? el("td", {}, split(row.figures)) : null);
    const focus = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.sort : undefined;
    fill(body, el("table", {},
      el("thead", {}, el("tr", {}, column(-1, dimTitle(state.dim)), SHOWN.map((m) => column(m, title(m), measures[m].help)), PARTS.length ? el("th", { scope: "col" }, "What the time was spent on") : null)),
      el("tbody", {}, found.slice(0, state.limit).map(line)),
      found.length > 1 ? el("tfoot", {}, el("tr", {}, el("th", { scope: "row" }, "All"), SHOWN.map((m) => el("th", { class: "num" }, figure(total[m], m))), PARTS.length ? el("td", {}, split(total)) : null)) : null));
    if (focus !== undefined) body.querySelector(`[data-sort="${focus}"]`).focus();
    fill(more, found.length > state.limit ? el("button", { type: "button", onclick: () => { state.limit *= 4; refresh(); } }, `Show more: ${found.length - state.limit} rows are left out`) : null,
      found.length ? null : el("p", { class: "soft" }, "Nothing here has such a name."));
  });
  const note = DATA.folded ? el("p", { class: "soft" }, `The smallest groups are added up as (others), so that the page stays small: their sums are in every figure.`) : null;
  const node = section("Who", el("div", { class: "controls" }, tabs, search, el("span", { class: "soft" }, "A name goes on to what is in it.")), body, more, PARTS.length ? legend : null, note);
  node.id = "who";
  node.classList.add("long");
  return node;
}

// ---- Code ----

function flame() {
  const nodes = DATA.flame.map(([name, caller, count, ns], at) => ({ at, name, caller, figures: [count, ns], below: [], depth: 0 }));
  nodes.forEach((node) => {
    if (!node.at) return;
    node.depth = nodes[node.caller].depth + 1;
    nodes[node.caller].below.push(node);
  });
  const hasTime = nodes[0].figures[1] > 0;
  let [weight, top, wanted, boxes, chosenAt] = [hasTime ? 1 : 0, nodes[0], "", [], 0];
  const say = (node) => `${node.name}\n${trim(node.figures[0], 0)} faults${hasTime ? `, ${time(node.figures[1])}` : ""}, ${trim((node.figures[weight] / (nodes[0].figures[weight] || 1)) * 100, 1)} %`;
  const palette = ["--s1", "--s7", "--s6"];
  const own = plot(300, "Flame graph", (pen) => {
    const line = 17 * own.rem;
    boxes = [];
    const place = (node, x, wide) => {
      if (wide < 0.7) return;
      boxes.push([node, x, (node.depth - top.depth) * line, wide]);
      let at = x;
      node.below.sort((a, b) => (a.name < b.name ? -1 : 1));
      for (const child of node.below) {
        const part = (child.figures[weight] / (node.figures[weight] || 1)) * wide;
        place(child, at, part);
        at += part;
      }
    };
    place(top, 0, own.width);
    const depth = 1 + boxes.reduce((most, [node]) => Math.max(most, node.depth - top.depth), 0);
    if (own.height !== Math.max(depth * 17 + 2, 40)) {
      own.height = Math.max(depth * 17 + 2, 40);
      own.draw();
      return;
    }
    let found = 0;
    pen.textBaseline = "middle";
    boxes.forEach(([node, x, y, wide], at) => {
      const is = wanted && node.name.toLowerCase().includes(wanted);
      found += is ? 1 : 0;
      pen.fillStyle = is ? style("--s4") : node.name.endsWith("_[k]") ? style("--s5") : style(palette[(node.name.charCodeAt(0) + node.name.length) % 3]);
      pen.fillRect(x, y, Math.max(wide - 0.6, 0.6), line - 1);
      if (at === chosenAt && document.activeElement === own.canvas) {
        pen.strokeStyle = style("--ink");
        pen.strokeRect(x + 0.5, y + 0.5, wide - 1.5, line - 2);
      }
      if (wide < 30 * own.rem) return;
      pen.fillStyle = "#10131a";
      const most = Math.floor((wide - 6) / (6.2 * own.rem));
      pen.fillText(node.name.length > most ? `${node.name.slice(0, Math.max(1, most - 1))}…` : node.name, x + 3, y + line / 2);
    });
    own.label(`Flame graph of ${weight ? "time" : "faults"}, ${boxes.length} functions shown; ${top.name}. Arrow keys move, Enter zooms, Escape shows all.`);
    matches.textContent = wanted ? `${found} functions match` : "";
  });
  const at = (x, y) => boxes.find(([, left, up, wide]) => x >= left && x < left + wide && y >= up && y < up + 17 * own.rem);
  own.hover((x, y) => { const box = at(x, y); return box ? say(box[0]) : ""; });
  const zoom = (node) => { top = node; chosenAt = 0; own.draw(); said.textContent = say(node).replace("\n", ": "); };
  own.canvas.tabIndex = 0;
  own.canvas.addEventListener("click", (event) => { const box = at(event.offsetX, event.offsetY); if (box) zoom(box[0]); });
  own.canvas.addEventListener("keydown", (event) => {
    const moves = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    if (event.key === "Escape") zoom(nodes[0]);
    else if (event.key === "Enter" && boxes[chosenAt]) zoom(boxes[chosenAt][0]);
    else if (event.key in moves) {
      event.preventDefault();
      chosenAt = Math.max(0, Math.min(boxes.length - 1, chosenAt + moves[event.key]));
      said.textContent = say(boxes[chosenAt][0]).replace("\n", ": ");
      own.draw();
    }
  });
  const said = el("p", { class: "soft", role: "status", "aria-live": "polite" });
  const matches = el("span", { class: "soft", role: "status" });
  const search = el("input", { type: "search", placeholder: "part of a function's name", "aria-label": "Search functions", oninput: (event) => { wanted = event.target.value.toLowerCase(); own.draw(); } });
  const controls = el("div", { class: "controls" },
    hasTime ? choice("Width is", [[1, "time"], [0, "faults"]], weight, (w) => { weight = w; own.draw(); }) : null, search, matches,
    el("button", { type: "button", onclick: () => zoom(nodes[0]) }, "Show all"), el("span", { class: "soft" }, "Of the whole run: stacks are not recorded by time."));
  const leaves = () => [...nodes].sort((a, b) => b.figures[weight] - a.figures[weight]).slice(0, 200);
  return section("Code", controls, own.box, said, asTable(() => rows(["Function", "Faults", "Time"], leaves().map((n) => [n.name, trim(n.figures[0], 0), time(n.figures[1])]))));
}

// ---- Accesses ----

function addresses() {
  const { areas, unit } = DATA.heat;
  const first = DATA.heat.cells.reduce((least, [, bin]) => Math.min(least, bin), Infinity);
  const points = DATA.heat.cells.map(([row, bin, ...n]) => [row, bin - first, ...n]);
  const all = areas.reduce((sum, [, , units]) => sum + units, 0);
  const bins = 1 + points.reduce((most, [, bin]) => Math.max(most, bin), 0);
  const most = [0, 1].map((kind) => points.reduce((m, p) => Math.max(m, p[2 + kind]), 1));
  let [from, to, kind, start] = [0, all, 0, null];
  const place = (row) => {
    let before = 0;
    for (const [name, address, units] of areas) {
      if (row < before + units) return [name, `0x${(BigInt(address) + BigInt((row - before) * unit)).toString(16)}`];
      before += units;
    }
    return ["", ""];
  };
  const rowAt = (y) => Math.max(0, Math.min(all - 1, Math.floor(from + (y / (own.tall - FOOT * own.rem)) * (to - from))));
  const grid = new Map(points.map((p) => [p[0] * 1024 + p[1], p]));
  const own = plot(360, "Addresses by time", (pen) => {
    const bottom = own.tall - FOOT * own.rem;
    axes(pen, own, null, null, bins, DATA.heat.bin_ns);
    const [wide, high] = [(own.width - LEFT * own.rem) / bins, bottom / (to - from)];
    for (const [row, bin, ...n] of points) {
      if (row < from || row >= to || !n[kind]) continue;
      pen.fillStyle = heatColor(0.15 + 0.85 * (Math.log1p(n[kind]) / Math.log1p(most[kind])));
      pen.fillRect(LEFT * own.rem + bin * wide, (row - from) * high, Math.max(wide, 1), Math.max(high, 1));
    }
    let before = 0;
    pen.strokeStyle = style("--line");
    for (const [, , units] of areas) {
      before += units;
      if (before <= from || before >= to) continue;
      pen.beginPath();
      pen.moveTo(LEFT * own.rem, (before - from) * high);
      pen.lineTo(own.width, (before - from) * high);
      pen.stroke();
    }
    own.label(`Heat map of ${kind ? "writes" : "accesses"} by address and time: ${areas.length} areas, from ${place(from)[1]} to ${place(to - 1)[1]}. Plus and minus zoom, arrow keys move, Escape shows all.`);
  }).hover((x, y) => {
    const row = rowAt(y);
    const bin = Math.floor(((x - LEFT * own.rem) / (own.width - LEFT * own.rem)) * bins);
    const point = grid.get(row * 1024 + bin);
    const [name, address] = place(row);
    return bin < 0 ? "" : `${address}  ${name}\n${time(bin * DATA.heat.bin_ns)}: ${point ? `${trim(point[2], 0)} accesses, ${trim(point[3], 0)} writes` : "no access"}`;
  });
  const zoom = (a, b) => {
    const size = Math.max(4, Math.min(all, b - a));
    from = Math.max(0, Math.min(all - size, Math.round(a)));
    to = Math.min(all, from + Math.round(size));
    own.draw();
  };
  own.canvas.tabIndex = 0;
  own.canvas.addEventListener("pointerdown", (event) => { start = rowAt(event.offsetY); own.canvas.setPointerCapture(event.pointerId); });
  own.canvas.addEventListener("pointerup", (event) => {
    const end = rowAt(event.offsetY);
    if (start !== null && Math.abs(end - start) > 2) zoom(Math.min(start, end), Math.max(start, end) + 1);
    start = null;
  });
  own.canvas.addEventListener("dblclick", () => zoom(0, all));
  own.canvas.addEventListener("keydown", (event) => {
    const part = (to - from) / 4;
    const moves = { "+": [from + part, to - part], "-": [from - part, to + part], ArrowUp: [from - part, to - part], ArrowDown: [from + part, to + part], Escape: [0, all] };
    if (!(event.key in moves)) return;
    event.preventDefault();
    zoom(...moves[event.key]);
  });
  const controls = el("div", { class: "controls" }, choice("Show", [[0, "accesses"], [1, "writes"]], 0, (k) => { kind = k; own.draw(); }),
    el("button", { type: "button", onclick: () => zoom(0, all) }, "Show all addresses"),
    el("span", { class: "soft" }, `A row is ${bytes(unit)}; memory between the areas is left out. Drag over addresses to zoom.`));
  const sumOf = (first, units) => points.reduce((sum, p) => (p[0] >= first && p[0] < first + units ? sum + p[2] : sum), 0);
  return section("Addresses over time", controls, own.box, asTable(() => {
    let before = 0;
    return rows(["Area", "From", "Size", "Accesses"], areas.map(([name, address, units]) => [name, address, bytes(units * unit), trim(sumOf((before += units) - units, units), 0)]));
  }));
}

// A line or steps of points [x, y]; x can be a power of two.
function curve(heading, points, xLabel, yLabel, head, says) {
  const [right, most] = [Math.max(...points.map((p) => p[0]), 1), Math.max(...points.map((p) => p[1]), 1e-9)];
  const own = plot(200, heading, (pen) => {
    const [left, bottom] = [LEFT * own.rem, own.tall - FOOT * own.rem];
    axes(pen, own, most, yLabel, 0, 0);
    pen.fillStyle = style("--soft");
    for (let tick = 0; tick <= 4; tick++) {
      pen.textAlign = tick === 0 ? "left" : tick === 4 ? "right" : "center";
      pen.fillText(xLabel((right * tick) / 4), left + ((own.width - left) * tick) / 4, own.tall - 4);
    }
    pen.strokeStyle = style("--s0");
    pen.lineWidth = 1.8 * own.rem;
    pen.beginPath();
    points.forEach(([x, y], at) => {
      const to = [left + (x / right) * (own.width - left), bottom - (y / most) * (bottom - 8)];
      if (at) pen.lineTo(...to);
      else pen.moveTo(...to);
    });
    pen.stroke();
    own.label(`${heading}: ${says}`);
  }).hover((x) => {
    const at = ((x - LEFT * own.rem) / (own.width - LEFT * own.rem)) * right;
    const near = points.reduce((best, p) => (Math.abs(p[0] - at) < Math.abs(best[0] - at) ? p : best), points[0]);
    return near ? `${xLabel(near[0])}: ${yLabel(near[1])}` : "";
  });
  return section(heading, own.box, asTable(() => rows(head, points.map(([x, y]) => [xLabel(x), yLabel(y)]))));
}

function memory() {
  const windows = (DATA.workingset || []).filter((w) => w.at_ns !== null && w.pages !== null).map((w) => [w.at_ns, w.bytes]);
  const misses = (DATA.missratio || []).filter((m) => m.miss_ppm !== null).map((m) => [m.bytes, m.miss_ppm / 1e4]);
  const percent = (n) => `${trim(n, 1)} %`;
  const size = (n) => bytes(Math.round(n));
  return el("div", { class: "pair" },
    windows.length > 1 ? curve("Working set", windows, time, size, ["At", "Size"], `at most ${size(Math.max(...windows.map((w) => w[1])))}`) : null,
    misses.length > 1 ? curve("Miss ratio by size of memory", misses, size, percent, ["Memory", "Misses"], `${percent(misses[0][1])} at ${size(misses[0][0])}, ${percent(misses.at(-1)[1])} at ${size(misses.at(-1)[0])}`) : null);
}

// ---- The foot ----

function foot() {
  const pair = ([name, value, unit, help, loss]) => {
    const text = value === null ? "unknown" : unit === "ns" ? time(value) : unit === "bytes" ? bytes(value) : value === true ? "yes" : value === false ? "no" : typeof value === "number" ? trim(value, 0) : String(value);
    return el("div", { title: help }, el("span", { class: "soft" }, name.replace(/_ns$/, "").replaceAll("_", " ")), el("b", { class: loss && value > 0 ? "warn" : null }, text));
  };
  const fact = (name, text) => el("div", {}, el("span", { class: "soft" }, name), el("b", {}, text));
  return section("Conditions and losses", DATA.runs.map((run) => {
    const lost = run.facts.filter((f) => f[4] && f[1] > 0);
    const uncounted = run.counted !== null && run.counted > run.events;
    return el("div", {},
      el("h3", {}, run.name),
      lost.map(([name, n, , help]) => el("p", {}, el("b", { class: "warn" }, `${trim(n, 0)} ${name.replaceAll("_", " ")}. `), help)),
      lost.length ? null : el("p", {}, "Nothing was lost."),
      uncounted ? el("p", { class: "warn" }, `The kernel counted ${trim(run.counted, 0)} faults; ${trim(run.events, 0)} of them are in the recording and in this page.`) : null,
      run.sampled > 1 ? el("p", {}, `One in ${run.sampled} minor faults was timed.`) : null,
      el("div", { class: "facts" }, [["host", run.host], ["kernel", run.kernel], ["variant", run.variant], ["trapline", run.version], ["start", run.start], ["duration", time(run.duration_ns)]].map(([n, t]) => fact(n, t || "unknown")),
        run.settings.map(pair), run.facts.filter((f) => !["duration_ns", "sampled"].includes(f[0])).map(pair)));
  }), el("p", { class: "soft" }, `Made by trapline ${DATA.version}. This page loads nothing: all figures are in it.`));
}

function start() {
  const page = document.getElementById("page");
  const hasCells = cells.group.length > 0;
  const sections = [head(), findings()];
  if (hasCells) sections.push(bar());
  if (hasCells && DATA.has_time && BINS > 1) sections.push(timeline());
  if (hasCells && HAS_TIMES) sections.push(latency());
  if (hasCells) sections.push(who());
  else sections.push(el("section", {}, el("p", {}, "The recording has no events and no rows.")));
  if (DATA.flame) sections.push(flame());
  if (DATA.heat && DATA.heat.cells.length) sections.push(addresses(), memory());
  sections.push(foot());
  fill(page, sections);
  refresh();
  new ResizeObserver(refresh).observe(page);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refresh);
  window.addEventListener("beforeprint", () => views.forEach((view) => view()));
}

start();
