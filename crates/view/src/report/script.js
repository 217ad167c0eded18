// The page of `trapline report`. Its data is the JSON in #data: figures that were added up by group, interval and latency. Names in it are
// from other processes: they become text nodes and nothing else.
"use strict";

const DATA = JSON.parse(document.getElementById("data").textContent);
const { dims, measures, groups, cells } = DATA;
const UNKNOWN = "(unknown)";
const COLORS = 8;
const PARTS = measures.map((m, at) => at).filter((at) => measures[at].part);
// How many were timed is of interest only where it is not all of them.
const sumOf = (at) => cells.figures[at].reduce((sum, n) => sum + n, 0);
const SHOWN = measures.map((m, at) => at).filter((at) => !measures[at].part && !(measures[at].name === "timed" && sumOf(at) === sumOf(0)));
const TIME = measures.findIndex((m) => m.time && !m.part);
// Times are since the first event.
const FIRST = cells.bin.reduce((least, bin) => Math.min(least, bin), cells.bin[0] || 0);
cells.bin = Int32Array.from(cells.bin, (bin) => bin - FIRST);
cells.group = Int32Array.from(cells.group);
cells.figures = cells.figures.map((of) => Float64Array.from(of));
const BINS = 1 + cells.bin.reduce((most, bin) => Math.max(most, bin), 0);
const LEVELS = ["l1", "l2"].map((level) => ["count", "ns"].map((of) => measures.findIndex((m) => m.name === `${level}_${of}`)));
const HAS_TIMES = cells.octave.some((octave) => octave >= 0);
// Totals are of no time; in one interval nothing changes.
const OVER_TIME = DATA.has_time && BINS > 1;

// What is chosen: names by dimension, an interval of time, what rows and colours are, the order.
const MAIN = Math.max(0, dims.findIndex((d) => d.name === "name"));
const state = { filters: new Map(), from: null, to: null, dim: MAIN, by: MAIN, measure: TIME < 0 ? 0 : TIME, sort: TIME < 0 ? 0 : TIME, up: false, search: "", limit: 25 };
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

const FORMATS = [0, 1, 2].map((digits) => new Intl.NumberFormat("en", { maximumFractionDigits: digits }));

function trim(number, digits) {
  return FORMATS[digits].format(number);
}

function time(ns) {
  if (!ns) return "0";
  if (ns < 1e3) return `${trim(ns, 0)} ns`;
  if (ns < 1e6) return `${trim(ns / 1e3, ns < 1e5 ? 1 : 0)} µs`;
  if (ns < 1e9) return `${trim(ns / 1e6, ns < 1e8 ? 1 : 0)} ms`;
  return `${trim(ns / 1e9, ns < 1e11 ? 2 : 0)} s`;
}

function bytes(count) {
  for (const [unit, size] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 1024]]) {
    if (count >= size) return `${trim(count / size, 1)} ${unit}`;
  }
  return `${trim(count, 0)} B`;
}

const shortly = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

function figure(value, measure, short) {
  if (measures[measure].time) return time(value);
  if (measures[measure].name.endsWith("bytes")) return bytes(value);
  return short ? shortly.format(value) : trim(value, 0);
}

const TITLES = {
  total_ns: "Time", io_ns: "I/O", kvm_ns: "KVM", vmm_ns: "VMM", load_ns: "Time of loads", wait_ns: "Time asleep", fault_ns: "Time in host faults", guest_ns: "Time in the guest", first: "First accesses",
  l1_count: "L1 exits", l2_count: "L2 exits", l1_ns: "L1 time", l2_ns: "L2 time", to_vmm: "To the VMM", l2_reflected: "Passed on to L1", host_major: "Major host faults",
  host_minor: "Minor host faults", brought_bytes: "Loaded or added", faulted_bytes: "Size of faults", vm: "VM", vcpu: "vCPU", msr: "MSR", mmio: "MMIO address", rip: "Instruction", userspace: "Return to user space",
  busy: "EPC was full", secs_loads: "SECS loads", secs_evictions: "SECS evictions",
  ...(DATA.tool === "kvm" ? { count: "Exits", name: "Exit" } : {}),
};

function named(name, end) {
  if (name in TITLES) return TITLES[name];
  const text = name.replace(/_ns$/, end).replaceAll("_", " ");
  return text[0].toUpperCase() + text.slice(1);
}

function title(measure) {
  return named(measures[measure].name, measures[measure].part ? "" : " time");
}

// In the middle of a sentence: abbreviations keep their capitals.
function inText(text) {
  return /^.[A-Z0-9/]/.test(text) ? text : text[0].toLowerCase() + text.slice(1);
}

function dimTitle(dim) {
  return named(dims[dim].name, "");
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

// The sums of each group over the chosen time, for each figure.
let summed = { of: "" };
function groupSums() {
  const of = `${state.from} ${state.to}`;
  if (summed.of !== of) {
    summed = { of, figures: measures.map(() => new Float64Array(groups.length)), cells: new Int32Array(groups.length) };
    eachCell(groups, (at) => {
      const group = cells.group[at];
      summed.cells[group]++;
      for (let m = 0; m < measures.length; m++) summed.figures[m][group] += cells.figures[m][at];
    });
  }
  return summed;
}

// Those of each name of a dimension, or of all.
function sums(dim) {
  const rows = new Map();
  const of = groupSums();
  chosen(null).forEach((is, group) => {
    if (!is || !of.cells[group]) return;
    const code = dim < 0 ? 0 : groups[group][dim];
    let row = rows.get(code);
    if (!row) rows.set(code, (row = { code, figures: measures.map(() => 0) }));
    for (let m = 0; m < measures.length; m++) row.figures[m] += of.figures[m][group];
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

// A canvas that is drawn for its width and the display's pixels, with a text for those who do not see it. With `over`, what is below
// it stays as it is while only the chosen time changes.
function plot(height, label, draw, over) {
  const canvas = el("canvas", { role: "img", "aria-label": label });
  const tip = el("div", { class: "tip", hidden: true });
  const box = el("div", { class: "plot" }, canvas, tip);
  const own = { box, canvas, tip, height, width: 0, label: (text) => canvas.setAttribute("aria-label", text) };
  own.draw = () => {
    const scale = Math.min(window.devicePixelRatio || 1, 3);
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize) / 15;
    own.width = document.documentElement.dataset.print ? 720 : box.clientWidth || 600;
    own.rem = rem;
    own.tall = own.height * rem;
    canvas.width = Math.round(own.width * scale);
    canvas.height = Math.round(own.tall * scale);
    canvas.style.height = `${own.tall}px`;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    pen.font = `${11 * rem}px ${getComputedStyle(document.body).fontFamily}`;
    const key = over ? [own.width, scale, own.tall, style("--bg"), state.by, state.measure, ...[...state.filters].flat()].join(" ") : null;
    if (key === null || key !== own.key) {
      draw(pen, own);
      own.key = key;
      own.below = key === null ? null : el("canvas", { width: canvas.width, height: canvas.height });
      if (own.below) own.below.getContext("2d").drawImage(canvas, 0, 0);
    } else {
      pen.drawImage(own.below, 0, 0, canvas.width / scale, canvas.height / scale);
    }
    if (over) over(pen, own);
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

// Round numbers from 0 to the most or, with `over`, to the first that is not below it; about so many.
function ticks(most, about, label, over) {
  const rough = most / about;
  const ten = 10 ** Math.floor(Math.log10(rough));
  const step = label === bytes ? 2 ** Math.ceil(Math.log2(rough)) : [1, 2, 5, 10].map((n) => n * ten).find((n) => n >= rough * 0.99);
  return Array.from({ length: 1 + (over ? Math.ceil(most / step - 1e-9) : Math.floor(most / step + 1e-9)) }, (_, n) => n * step);
}

function footTicks(pen, own, most, label) {
  const wide = own.width - LEFT * own.rem;
  for (const at of ticks(most, Math.max(2, Math.min(10, wide / (90 * own.rem))), label)) {
    const x = LEFT * own.rem + (at / most) * wide;
    const half = pen.measureText(label(at)).width / 2;
    pen.textAlign = "center";
    pen.fillText(label(at), Math.min(Math.max(x, LEFT * own.rem + half), own.width - half), own.tall - 4);
  }
}

// Gives the figure at the upper end.
function axes(pen, own, most, label, bins, binNs) {
  const [left, bottom] = [LEFT * own.rem, own.tall - FOOT * own.rem];
  pen.strokeStyle = style("--line");
  pen.fillStyle = style("--soft");
  pen.textAlign = "right";
  const marks = most === null ? [] : ticks(most, 3, label, true);
  for (const value of marks) {
    const y = Math.round(bottom - ((bottom - 8) * value) / marks.at(-1)) + 0.5;
    pen.beginPath();
    pen.moveTo(left, y);
    pen.lineTo(own.width, y);
    pen.stroke();
    pen.fillText(label(value), left - 6, y + 4);
  }
  if (binNs) footTicks(pen, own, bins * binNs, time);
  return marks.at(-1);
}

// A light colour for few and a strong one for many, in both themes.
function heatColor(share) {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches && !document.documentElement.dataset.print;
  const stops = dark ? [[38, 52, 92], [133, 68, 140], [235, 106, 90], [255, 224, 130]] : [[222, 232, 250], [120, 160, 235], [120, 60, 170], [90, 10, 60]];
  const at = Math.min(0.999, Math.max(0, share)) * (stops.length - 1);
  const low = Math.floor(at);
  return `rgb(${stops[low].map((c, n) => Math.round(c + (stops[low + 1][n] - c) * (at - low))).join(",")})`;
}

function rows(label, head, body) {
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `${label}, as a table` }, el("table", {},
    el("thead", {}, el("tr", {}, head.map((text, at) => el("th", { scope: "col", class: at ? "num" : null }, text)))),
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

function date(run) {
  return `${run.start.slice(0, 19).replace("T", " ")} UTC`;
}

const OF_TIME = { faults: "time in faults", kvm: "time to handle exits", sgx: "time of loads" };

function head() {
  const [run] = DATA.runs;
  const names = DATA.runs.map((r) => r.name).join(", ");
  // Of several runs: all machines, kernels and starts that differ.
  const all_of = (get) => [...new Set(DATA.runs.map(get))].join(", ");
  const about = run ? `${all_of((r) => r.host || "unknown host")}; Linux ${all_of((r) => r.kernel || "of unknown release")}; ${all_of(date)}` : "";
  const tiles = el("div", { class: "tiles" });
  const all = measures.map((m, at) => sumOf(at));
  const tile = (text, value, help, warn) => el("div", { class: "tile", title: help || null }, el("b", { class: warn ? "warn" : null }, value), el("span", {}, text));
  const longest = DATA.runs.reduce((most, r) => Math.max(most, r.duration_ns), 0);
  const all_ns = DATA.runs.reduce((sum, r) => sum + r.duration_ns, 0);
  const lost = DATA.runs.reduce((sum, r) => sum + (r.facts.find(([name]) => name === "lost_events") || [0, 0])[1], 0);
  const first = SHOWN.slice(0, 5);
  // The time is what the share of the duration is of.
  if (TIME >= 0 && !first.includes(TIME)) first[first.length - 1] = TIME;
  fill(tiles,
    tile("duration", time(longest)),
    first.filter((m) => measures[m].name !== "timed").map((m) => tile(m === TIME ? OF_TIME[DATA.tool] || "time" : inText(title(m)), figure(all[m], m, true), `${measures[m].help} ${figure(all[m], m)}`)),
    TIME >= 0 && all_ns ? tile("of the duration", `${trim((all[TIME] / all_ns) * 100, 1)} %`, "The time of all threads together, as a share of the duration.") : null,
    tile("events lost", trim(lost, 0), null, lost > 0));
  return el("header", {}, el("h1", {}, `trapline ${DATA.tool}: ${names}`), el("p", { class: "soft" }, about), tiles);
}

// What is between backquotes is to be typed.
function prose(text) {
  return text.split("`").map((part, at) => (at % 2 ? el("code", {}, part) : part));
}

// A process, or an exit.
function isName(word) {
  return dims.some((d) => d.words.some((w) => w === word || w.startsWith(`${word} (`)));
}

function sentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1)}.`;
}

// Of several runs, which one: by its host if that tells it from the others.
function runName(run) {
  const hosts = new Set(DATA.runs.map((r) => r.host));
  return hosts.size === DATA.runs.length && run.host ? run.host : run.name;
}

function findings() {
  return section("Findings", DATA.runs.map((run) => [
    DATA.runs.length > 1 ? el("h3", {}, runName(run)) : null,
    run.findings.length ? findingsOf(run) : run.verdict ? el("p", {}, sentence(run.verdict)) : null,
    run.unjudged ? el("p", { class: "soft" }, `${run.unjudged}.`) : null,
  ]));
}

function findingsOf(run) {
  const list = run.findings.map((f) => {
    const share = f.share_ppm / 1e4;
    const process = dims.findIndex((d) => d.name === "process");
    // Another machine can have a process of the same number.
    const is = [(w) => w === `${f.comm} (${f.pid})`, (w) => DATA.runs.length === 1 && w.endsWith(`(${f.pid})`)];
    const code = process < 0 || f.pid === null ? -1 : is.map((of) => dims[process].words.findIndex(of)).find((at) => at >= 0) ?? -1;
    const recording = dims.findIndex((d) => d.name === "recording");
    const of = recording < 0 ? -1 : dims[recording].words.findIndex((w) => w === run.name || w === `${run.host}: ${run.name}`);
    const file = dims.findIndex((d) => d.name === "file");
    const subject = file < 0 || !f.subject ? -1 : dims[file].words.indexOf(f.subject);
    const show = () => {
      state.filters.clear();
      if (of >= 0) state.filters.set(recording, of);
      if (code >= 0) state.filters.set(process, code);
      if (subject >= 0) state.filters.set(file, subject);
      refresh();
      document.getElementById("who").scrollIntoView({ block: "start" });
    };
    return el("article", { class: "finding" },
      el("h3", {}, code >= 0 || isName(f.finding.split(" ")[0]) ? f.finding : f.finding[0].toUpperCase() + f.finding.slice(1)),
      code >= 0 && !f.finding.includes(`(${f.pid})`) ? el("p", { class: "soft" }, dims[process].words[code]) : null,
      el("div", { class: "meter", role: "img", "aria-label": `${trim(share, 1)} % of the duration` }, el("i", { style: `width:${Math.min(100, share)}%` })),
      el("p", { class: "soft" }, `${trim(share, 1)} % of the duration; ${f.confidence}. ${f.evidence}.`),
      el("p", {}, el("b", {}, "What to do: "), prose(`${f.advice}.`)),
      code >= 0 ? el("p", {}, el("button", { type: "button", onclick: show, "aria-label": `Show only this: ${f.finding}` }, "Show only this")) : null);
  });
  return el("div", { class: "findings" }, list);
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

// The interval below a pointer.
function binAt(own, x) {
  return Math.max(0, Math.min(BINS - 1, Math.floor(((x - LEFT * own.rem) / (own.width - LEFT * own.rem)) * BINS)));
}

// Choosing an interval with the pointer or the keys.
function brush(own) {
  let start = null;
  own.canvas.tabIndex = 0;
  own.canvas.setAttribute("aria-keyshortcuts", "ArrowLeft ArrowRight Shift+ArrowRight Escape");
  own.canvas.addEventListener("pointerdown", (event) => {
    start = binAt(own, event.offsetX);
    own.canvas.setPointerCapture(event.pointerId);
  });
  own.canvas.addEventListener("pointermove", (event) => {
    if (start !== null && binAt(own, event.offsetX) !== start) setTime(start, binAt(own, event.offsetX));
  });
  own.canvas.addEventListener("pointerup", (event) => {
    if (start !== null && binAt(own, event.offsetX) === start) setTime(null);
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

const [BY_PARTS, BY_LEVEL] = [-1, -2];

function timeline() {
  let made = null;
  const options = dims.map((d, at) => [at, dimTitle(at)]).filter(([at]) => dims[at].words.length > 1 || at === MAIN);
  if (PARTS.length) options.push([BY_PARTS, "What the time was spent on"]);
  if (LEVELS.every(([count]) => count >= 0)) options.push([BY_LEVEL, "Level of the guest"]);
  const collect = () => {
    // By the parts of a figure, or by a name.
    const parts = state.by === BY_PARTS ? PARTS : state.by === BY_LEVEL ? LEVELS.map((of) => of[measures[state.measure].time ? 1 : 0]) : null;
    const { lead, rest } = parts ? { lead: parts, rest: false } : leaders(state.by, state.measure);
    const place = new Map(lead.map((code, at) => [code, at]));
    const stacks = Array.from({ length: lead.length + 1 }, () => new Float64Array(BINS));
    eachCell(chosen(null), (at) => {
      if (parts) return parts.forEach((m, n) => { stacks[n][cells.bin[at]] += cells.figures[m][at]; });
      const series = place.get(groups[cells.group[at]][state.by]);
      stacks[series === undefined ? lead.length : series][cells.bin[at]] += cells.figures[state.measure][at];
      return undefined;
    }, true);
    const tops = Array.from({ length: BINS }, (_, bin) => stacks.reduce((sum, s) => sum + s[bin], 0));
    const names = [...lead.map((code) => (parts ? title(code) : dims[state.by].words[code])), "others"];
    made = { lead, rest, stacks, tops, names, none: !tops.some((n) => n > 0), most: Math.max(...tops, 1), measure: parts ? parts[0] : state.measure };
  };
  const own = plot(210, "Timeline", (pen) => {
    collect();
    const bottom = own.tall - FOOT * own.rem;
    const top = axes(pen, own, made.most, measures[made.measure].name.endsWith("bytes") ? bytes : (value) => figure(value, made.measure, true), BINS, DATA.bin_ns);
    const step = (own.width - LEFT * own.rem) / BINS;
    const used = new Float64Array(BINS);
    made.stacks.forEach((series, at) => {
      pen.fillStyle = style(`--s${at < made.lead.length ? at : COLORS}`);
      for (let bin = 0; bin < BINS; bin++) {
        if (!series[bin]) continue;
        const [low, high] = [used[bin], used[bin] + series[bin]].map((v) => (v / top) * (bottom - 8));
        pen.fillRect(LEFT * own.rem + bin * step, bottom - high, Math.max(step - (step > 4 ? 1 : 0), 0.8), Math.max(high - low, 0.8));
        used[bin] += series[bin];
      }
    });
    const highest = made.tops.indexOf(made.most);
    own.label(`${title(state.measure)} over time by ${inText(options.find(([by]) => by === state.by)[1])}; most at ${time(MOMENT(Math.max(highest, 0)))}: ${figure(made.most, state.measure)} in ${time(DATA.bin_ns)}. Arrow keys choose an interval, Escape the whole run.`);
    fill(legend, made.lead.map((code, at) => el("li", {}, el("i", { style: `background:var(--s${at})` }), el("span", {}, made.names[at]))),
      made.rest ? el("li", {}, el("i", { style: `background:var(--s${COLORS})` }), el("span", {}, "others")) : null,
      made.none ? el("li", { class: "soft" }, `${title(state.measure)}: 0 at all times.`) : null);
  }, shade).hover((x) => {
    if (!made || x < LEFT * own.rem) return "";
    const bin = binAt(own, x);
    const parts = made.stacks.map((s, at) => [s[bin], made.names[at]]).filter(([n]) => n > 0).sort((a, b) => b[0] - a[0]);
    return [`${time(MOMENT(bin))}: ${figure(made.tops[bin], state.measure)}`, ...parts.slice(0, 6).map(([n, name]) => `${figure(n, state.measure)}  ${name}`)].join("\n");
  });
  brush(own);
  const legend = el("ul", { class: "legend" });
  const controls = el("div", { class: "controls" },
    choice("Figure", SHOWN.concat(PARTS).map((m) => [m, title(m)]), state.measure, (m) => { state.measure = m; refresh(); }),
    choice("by", options, state.by, (by) => { state.by = by; refresh(); }),
    el("span", { class: "soft" }, "Drag to choose a time, or use the arrow keys: everything follows."));
  return section("Over time", controls, own.box, legend, asTable(() => rows("Over time", ["From", title(state.measure)],
    made.tops.map((n, bin) => [time(MOMENT(bin)), figure(n, state.measure)]).filter((row, bin) => made.tops[bin] > 0))));
}

// ---- Latency ----

// How many took how long, and when.
function latencyOverTime({ count, low, levels, label, tall }) {
  let made = null;
  const collect = () => {
    made = { grid: new Float64Array(BINS * levels) };
    eachCell(chosen(null), (at) => { if (cells.octave[at] >= 0) made.grid[cells.bin[at] * levels + cells.octave[at] - low] += cells.figures[count][at]; }, true);
    made.most = made.grid.reduce((most, n) => Math.max(most, n), 1);
  };
  const heat = plot(tall, "Latency by time", (pen) => {
    collect();
    const colors = Array.from({ length: 64 }, (_, at) => heatColor(at / 63));
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
        pen.fillStyle = colors[Math.round((63 * Math.log1p(n)) / Math.log1p(made.most))];
        pen.fillRect(LEFT * heat.rem + bin * wide, y, wide + 0.4, high1 - 0.5);
      }
      pen.fillStyle = style("--soft");
    }
    heat.label(`Latency heat map: ${title(count).toLowerCase()} by time and latency, from ${label(low)} on. The histogram beside it has the sums.`);
  }, shade).hover((x, y) => {
    if (!made || x < LEFT * heat.rem) return "";
    const level = Math.floor(((heat.tall - FOOT * heat.rem - y) / (heat.tall - FOOT * heat.rem)) * levels);
    const n = level >= 0 && level < levels ? made.grid[binAt(heat, x) * levels + level] : 0;
    return n ? `${time(MOMENT(binAt(heat, x)))}, from ${label(level + low)} on:\n${trim(n, 0)} ${title(count).toLowerCase()}` : "";
  });
  brush(heat);
  return section("Latency over time", heat.box);
}

function latency() {
  const count = 0;
  const used = cells.octave.filter((octave) => octave >= 0);
  const [low, high] = used.reduce(([low, high], octave) => [Math.min(low, octave), Math.max(high, octave)], [99, 0]);
  const levels = high - low + 1;
  const label = (octave) => time(DATA.octaves[octave]);
  const tall = Math.max(120, Math.min(300, levels * 15 + FOOT));
  let sum = new Float64Array(levels);
  const hist = plot(tall, "Histogram", (pen) => {
    sum = new Float64Array(levels);
    eachCell(chosen(null), (at) => { if (cells.octave[at] >= 0) sum[cells.octave[at] - low] += cells.figures[count][at]; });
    const most = sum.reduce((m, n) => Math.max(m, n), 1);
    const step = hist.tall / levels;
    pen.textBaseline = "middle";
    for (let level = 0; level < levels; level++) {
      const y = hist.tall - (level + 1) * step;
      pen.fillStyle = style("--soft");
      pen.textAlign = "right";
      pen.fillText(label(level + low), LEFT * hist.rem - 6, y + step / 2);
      const wide = (sum[level] / most) * (hist.width - (LEFT + 52) * hist.rem);
      pen.fillStyle = style("--s0");
      pen.fillRect(LEFT * hist.rem, y + 1, sum[level] ? Math.max(wide, 1) : 0, step - 2);
      pen.fillStyle = style("--soft");
      pen.textAlign = "left";
      if (sum[level]) pen.fillText(shortly.format(sum[level]), LEFT * hist.rem + wide + 5, y + step / 2);
    }
    hist.label(`Histogram of latency: ${[...sum].map((n, level) => (n ? `from ${label(level + low)}: ${trim(n, 0)}` : "")).filter(Boolean).join(", ")}`);
  });
  const sums = section("Latency histogram", hist.box, asTable(() => rows("Latency histogram", ["From", title(count)], [...sum].map((n, level) => [label(level + low), trim(n, 0)]).filter((row) => row[1] !== "0"))));
  return OVER_TIME ? el("div", { class: "pair" }, latencyOverTime({ count, low, levels, label, tall }), sums) : sums;
}

// ---- Who ----

function share(part, all) {
  const percent = all ? (part / all) * 100 : 0;
  return el("span", { class: "share", "aria-hidden": "true" }, el("i", { style: `width:${percent}%` }));
}

function split(figures) {
  const all = PARTS.reduce((sum, m) => sum + figures[m], 0);
  if (!all && figures[TIME]) return el("span", { class: "soft" }, "not recorded");
  const text = PARTS.filter((m) => figures[m] > 0).map((m) => `${title(m)} ${time(figures[m])}`).join(", ");
  return el("div", { class: "split", role: "img", title: text, "aria-label": text || "no time" },
    PARTS.map((m, at) => (figures[m] ? el("i", { style: `width:${(figures[m] / all) * 100}%;background:var(--s${at % COLORS})` }) : null)));
}

function who() {
  const order = dims.map((d, at) => at).filter((at) => at === 0 || dims[at].words.length > 1 || dims[at].words[0] !== UNKNOWN);
  const tabs = el("div", { class: "tabs", role: "group", "aria-label": "A row is one" });
  const body = el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Rows" });
  const more = el("div", { class: "more" });
  const search = el("input", { type: "search", placeholder: "part of a name", "aria-label": "Filter names", oninput: (event) => { state.search = event.target.value; refresh(); } });
  const legend = el("ul", { class: "legend" }, PARTS.map((m, at) => el("li", {}, el("i", { style: `background:var(--s${at % COLORS})` }), el("span", { title: measures[m].help }, title(m)))));
  const drill = (code) => {
    setFilter(state.dim, code);
    const further = order.filter((dim) => dim !== state.dim && !state.filters.has(dim) && dims[dim].words.length > 1);
    const next = further.find((dim) => dim > state.dim) ?? further[0];
    if (next !== undefined) state.dim = next;
    state.limit = 25;
  };
  const column = (at, text, help) => {
    const is = state.sort === at;
    const press = () => { state.up = is ? !state.up : at < 0; state.sort = at; refresh(); };
    return el("th", { scope: "col", class: at < 0 ? null : "num", "aria-sort": is ? (state.up ? "ascending" : "descending") : null },
      el("button", { type: "button", title: help || null, onclick: press, "data-sort": at }, `${text}${is ? (state.up ? " ▲" : " ▼") : ""}`));
  };
  views.push(() => {
    fill(tabs, order.map((dim) => el("button", { type: "button", "aria-pressed": String(dim === state.dim), "data-dim": dims[dim].name, onclick: () => { state.dim = dim; state.limit = 25; refresh(); } }, dimTitle(dim))));
    const all = sums(state.dim);
    const total = measures.map((m, at) => all.reduce((sum, row) => sum + row.figures[at], 0));
    const name = (row) => dims[state.dim].words[row.code];
    const wanted = state.search.toLowerCase();
    const found = all.filter((row) => name(row).toLowerCase().includes(wanted));
    const compare = (a, b) => (state.sort < 0 ? name(a).localeCompare(name(b)) : a.figures[state.sort] - b.figures[state.sort]);
    found.sort((a, b) => (state.up ? 1 : -1) * compare(a, b));
    const line = (row) => el("tr", {},
      el("td", { class: "key" }, el("button", { type: "button", onclick: () => drill(row.code) }, name(row))),
      PARTS.length ? el("td", {}, split(row.figures)) : null,
      SHOWN.map((m) => el("td", { class: "num" }, figure(row.figures[m], m), m === state.sort ? share(row.figures[m], total[m]) : null)));
    const focus = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.sort : undefined;
    fill(body, el("table", {},
      el("thead", {}, el("tr", {}, column(-1, dimTitle(state.dim)), PARTS.length ? el("th", { scope: "col" }, "Time spent on") : null, SHOWN.map((m) => column(m, title(m), measures[m].help)))),
      el("tbody", {}, found.slice(0, state.limit).map(line)),
      found.length > 1 ? el("tfoot", {}, el("tr", {}, el("th", { scope: "row" }, "All"), PARTS.length ? el("td", {}, split(total)) : null, SHOWN.map((m) => el("td", { class: "num" }, figure(total[m], m))))) : null));
    if (focus !== undefined) body.querySelector(`[data-sort="${focus}"]`).focus();
    fill(more, found.length > state.limit ? el("button", { type: "button", onclick: () => { state.limit *= 4; refresh(); } }, `Show more (${trim(found.length - state.limit, 0)} rows)`) : null,
      found.length ? null : el("p", { class: "soft" }, "No name has this in it."));
  });
  const note = DATA.folded ? el("p", { class: "soft" }, "The smallest groups are added up as (others), so that the page stays small; every sum has them.") : null;
  const node = section("Who", el("div", { class: "controls" }, tabs, search, el("span", { class: "soft" }, "Choose a name to see what is in it.")), body, more, PARTS.length ? legend : null, note);
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
    const [a, b, c, kernel, match] = [0, 1, 2, 3, 4].map((at) => style(`--f${at}`));
    const palette = [a, b, c];
    pen.textBaseline = "middle";
    boxes.forEach(([node, x, y, wide], at) => {
      const is = wanted && node.name.toLowerCase().includes(wanted);
      found += is ? 1 : 0;
      pen.fillStyle = is ? match : node.name.endsWith("_[k]") ? kernel : palette[(node.name.charCodeAt(0) + node.name.length) % 3];
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
    own.label(`Flame graph of ${weight ? "time" : "faults"}, ${boxes.length} functions shown; ${top.name}. Arrow keys move between functions, Enter zooms, Escape shows all.`);
    matches.textContent = wanted ? `${found} functions match` : "";
  });
  const at = (x, y) => boxes.find(([, left, up, wide]) => x >= left && x < left + wide && y >= up && y < up + 17 * own.rem);
  own.hover((x, y) => { const box = at(x, y); return box ? say(box[0]) : ""; });
  const zoom = (node) => { top = node; chosenAt = 0; own.draw(); said.textContent = say(node).replace("\n", ": "); };
  own.canvas.tabIndex = 0;
  own.canvas.addEventListener("click", (event) => { const box = at(event.offsetX, event.offsetY); if (box) zoom(box[0]); });
  own.canvas.addEventListener("keydown", (event) => {
    const [node] = boxes[chosenAt] || [top];
    const level = boxes.filter(([other]) => other.depth === node.depth).map(([other]) => other);
    const moves = { ArrowRight: level[level.indexOf(node) + 1], ArrowLeft: level[level.indexOf(node) - 1], ArrowUp: nodes[node.caller], ArrowDown: boxes.find(([other]) => other.caller === node.at && other.at)?.[0] };
    if (event.key === "Escape") zoom(nodes[0]);
    else if (event.key === "Enter") zoom(node);
    else if (event.key in moves) {
      event.preventDefault();
      choose(moves[event.key]);
    }
  });
  const choose = (node) => {
    const found = boxes.findIndex(([other]) => other === node);
    if (found < 0) return;
    chosenAt = found;
    said.textContent = say(node).replace("\n", ": ");
    own.draw();
  };
  own.canvas.addEventListener("focus", () => own.draw());
  own.canvas.addEventListener("blur", () => own.draw());
  const said = el("p", { class: "soft", role: "status", "aria-live": "polite" });
  const matches = el("span", { class: "soft", role: "status" });
  const search = el("input", { type: "search", placeholder: "part of a function's name", "aria-label": "Search functions", oninput: (event) => { wanted = event.target.value.toLowerCase(); own.draw(); },
    onkeydown: (event) => {
      const match = boxes.find(([node]) => wanted && node.name.toLowerCase().includes(wanted));
      if (event.key !== "Enter" || !match) return;
      own.canvas.focus();
      choose(match[0]);
    } });
  const controls = el("div", { class: "controls" },
    hasTime ? choice("Width is", [[1, "time"], [0, "faults"]], weight, (w) => { weight = w; own.draw(); }) : null, search, matches,
    el("button", { type: "button", onclick: () => zoom(nodes[0]) }, "Show all"), el("span", { class: "soft" }, "Of the whole run."));
  const leaves = () => [...nodes].sort((a, b) => b.figures[weight] - a.figures[weight]).slice(0, 200);
  return section("Code", controls, own.box, said, asTable(() => rows("Code", ["Function", "Faults", "Time"], leaves().map((n) => [n.name, trim(n.figures[0], 0), time(n.figures[1])]))));
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
    const colors = Array.from({ length: 64 }, (_, at) => heatColor(0.15 + (0.85 * at) / 63));
    for (const [row, bin, ...n] of points) {
      if (row < from || row >= to || !n[kind]) continue;
      pen.fillStyle = colors[Math.round((63 * Math.log1p(n[kind])) / Math.log1p(most[kind]))];
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
    // Where there is space, what an area is.
    before = 0;
    pen.textAlign = "left";
    pen.fillStyle = style("--soft");
    let free = 0;
    for (const [name, , units] of areas) {
      const y = (Math.max(before, from) - from) * high + 11 * own.rem;
      before += units;
      if (before <= from || before - units >= to || y < free || (before - Math.max(before - units, from)) * high < 12 * own.rem) continue;
      free = y + 12 * own.rem;
      const short = name.split(/[ /]/).at(-1);
      pen.fillText(short.length > 10 ? `${short.slice(0, 9)}…` : short, 0, y);
    }
    if (state.from !== null) {
      const xOf = (bin) => Math.max(LEFT * own.rem, LEFT * own.rem + (((bin + FIRST) * DATA.bin_ns) / DATA.heat.bin_ns - first) * wide);
      pen.fillStyle = style("--select");
      pen.fillRect(xOf(state.from), 0, xOf(state.to + 1) - xOf(state.from), bottom);
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
  const accesses = (first, units) => points.reduce((sum, p) => (p[0] >= first && p[0] < first + units ? sum + p[2] : sum), 0);
  return section("Addresses over time", controls, own.box, asTable(() => {
    let before = 0;
    return rows("Addresses", ["Area", "From", "Size", "Accesses"], areas.map(([name, address, units]) => [name, address, bytes(units * unit), trim(accesses((before += units) - units, units), 0)]));
  }));
}

// A line or steps of points [x, y]; x can be a power of two.
function curve(heading, points, xLabel, yLabel, head, says) {
  const [right, most] = [Math.max(...points.map((p) => p[0]), 1), Math.max(...points.map((p) => p[1]), 1e-9)];
  const own = plot(200, heading, (pen) => {
    const [left, bottom] = [LEFT * own.rem, own.tall - FOOT * own.rem];
    const top = axes(pen, own, most, yLabel, 0, 0);
    pen.fillStyle = style("--soft");
    footTicks(pen, own, right, xLabel);
    pen.strokeStyle = style("--s0");
    pen.lineWidth = 1.8 * own.rem;
    pen.beginPath();
    points.forEach(([x, y], at) => {
      const to = [left + (x / right) * (own.width - left), bottom - (y / top) * (bottom - 8)];
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
  return section(heading, own.box, asTable(() => rows(heading, head, points.map(([x, y]) => [xLabel(x), yLabel(y)]))));
}

function memory() {
  const windows = (DATA.workingset || []).filter((w) => w.at_ns !== null && w.pages !== null).map((w) => [w.at_ns, w.bytes]);
  const misses = (DATA.missratio || []).filter((m) => m.miss_ppm !== null).map((m) => [m.bytes, m.miss_ppm / 1e4]);
  const percent = (n) => `${trim(n, 1)} %`;
  const size = bytes;
  return el("div", { class: "pair" },
    windows.length > 1 ? curve("Working set", windows, time, size, ["At", "Size"], `at most ${size(Math.max(...windows.map((w) => w[1])))}`) : null,
    misses.length > 1 ? curve("Miss ratio by size of memory", misses, size, percent, ["Memory", "Misses"], `${percent(misses[0][1])} at ${size(misses[0][0])}, ${percent(misses.at(-1)[1])} at ${size(misses.at(-1)[0])}`) : null);
}

// ---- The foot ----

function foot() {
  const pair = ([name, value, unit, help, loss]) => {
    const text = value === null ? "unknown" : value === "" ? "none" : unit === "ns" ? time(value) : unit === "bytes" ? bytes(value) : name.endsWith("_mb") ? `${value} MiB` : value === true ? "yes" : value === false ? "no" : typeof value === "number" ? trim(value, 0) : String(value);
    return el("div", { title: help }, el("span", { class: "soft" }, name.replace(/_(ns|mb)$/, "").replaceAll("_", " ")), el("b", { class: loss && value > 0 ? "warn" : null }, text));
  };
  const fact = (name, text) => el("div", {}, el("span", { class: "soft" }, name), el("b", {}, text));
  return section("Conditions and losses", DATA.runs.map((run) => {
    const lost = run.facts.filter((f) => f[4] && f[1] > 0);
    const uncounted = run.counted !== null && run.counted > run.events;
    return el("div", {},
      el("h3", {}, run.name),
      lost.map(([name, n, , help]) => el("p", {}, el("b", { class: "warn" }, `${trim(n, 0)} ${name.replaceAll("_", " ")}. `), help)),
      run.broken ? el("p", { class: "warn" }, `${run.broken}. What was lost ${run.has_facts ? "is known up to shortly before" : "is not known"}.`) : null,
      lost.length || run.broken ? null : el("p", {}, "Nothing was lost."),
      uncounted ? el("p", { class: "warn" }, `The kernel counted ${trim(run.counted, 0)} faults; ${trim(run.events, 0)} of them are in the recording and in this page.`) : null,
      run.sampled > 1 ? el("p", {}, `One in ${run.sampled} minor faults was timed.`) : null,
      el("div", { class: "facts" }, [["host", run.host], ["kernel", run.kernel], ["variant", run.variant], ["trapline", run.version], ["start", date(run)], ["duration", time(run.duration_ns)]].map(([n, t]) => fact(n, t || "unknown")),
        run.settings.filter((f) => !["unshown_events", "layout", "cumulative", "kept_since_ns", "kept_ranges"].includes(f[0])).map(pair), run.facts.filter((f) => !["duration_ns", "sampled"].includes(f[0])).map(pair)));
  }), el("p", { class: "soft" }, `Made by trapline ${DATA.version}. This page loads nothing: all figures are in it.`));
}

function start() {
  const page = document.getElementById("page");
  const hasCells = cells.group.length > 0;
  const sections = [head(), findings()];
  if (hasCells) sections.push(bar());
  if (hasCells && OVER_TIME) sections.push(timeline());
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
  // On paper: light, and as wide as it is.
  window.addEventListener("beforeprint", () => {
    document.documentElement.dataset.print = "yes";
    views.forEach((view) => view());
  });
  window.addEventListener("afterprint", () => {
    delete document.documentElement.dataset.print;
    refresh();
  });
}

start();
