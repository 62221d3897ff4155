"use strict";
// The page of a node. It has no libraries and loads nothing from elsewhere. All data is shown as
// text: nothing here parses HTML, and the policy of the page forbids it.
(() => {
const $ = id => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

// set sets attributes, and children that are nodes or texts.
function set(node, attributes, children) {
  for (const name in attributes) {
    const value = attributes[name];
    if (value === null || value === false) node.removeAttribute(name);
    else node.setAttribute(name, value === true ? "" : value);
  }
  if (children !== undefined) node.replaceChildren(...children);
  return node;
}
const el = (name, attributes, ...children) => set(document.createElement(name), attributes, children);
const svg = (name, attributes, ...children) => set(document.createElementNS(SVG, name), attributes, children);
function text(node, value) { if (node.textContent !== value) node.textContent = value; }

// Numbers as people read them.
const formats = [0, 1, 2].map(n => new Intl.NumberFormat("en", { maximumFractionDigits: n }));
const digits = (v, n) => formats[n].format(v);
const order = new Intl.Collator("en", { numeric: true }).compare;
const three = v => digits(v, v >= 100 ? 0 : v >= 10 ? 1 : 2);
function scaled(v, step, units) {
  let i = 0;
  while (v >= step && i < units.length - 1) { v /= step; i++; }
  return three(v) + " " + units[i];
}
const bits = bytes => scaled(bytes * 8, 1000, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"]);
const size = bytes => scaled(bytes, 1024, ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]);
const count = v => v >= 1e6 ? scaled(v, 1000, ["", "k", "M", "G"]) : three(v);
const percent = v => digits(v * 100, v > 0.99 && v < 1 ? 2 : 1) + " %";
const time = s => s <= 0 ? "–" : s < 0.001 ? digits(s * 1e6, 0) + " µs" : s < 1 ? digits(s * 1000, s < 0.01 ? 1 : 0) + " ms" : digits(s, 1) + " s";
const plural = (n, one, more) => n + " " + (n === 1 ? one : more || one + "s");
const regions = new Intl.DisplayNames(["en"], { type: "region" });
function countryName(code) { try { return regions.of(code); } catch { return code; } }

// ---- The node's API

let session = null;
const KEY = "kaiku-key";
const store = {
  get: () => { try { return localStorage.getItem(KEY) || ""; } catch { return store.key || ""; } },
  set: key => { store.key = key; try { key ? localStorage.setItem(KEY, key) : localStorage.removeItem(KEY); } catch { /* private mode */ } },
};

function request(method, path, body, signal) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (store.get()) headers["X-Kaiku-Key"] = store.get();
  return fetch(path, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body),
    credentials: "same-origin", cache: "no-store", redirect: "error" });
}

// api returns the answer, or throws an error whose message is for people.
async function api(method, path, body) {
  let response, answer;
  try {
    response = await request(method, path, body);
    answer = await response.json();
  } catch {
    throw new Error("The node doesn't answer. Is it running, and the tunnel open?");
  }
  if (response.ok) return answer;
  const error = new Error(answer && answer.error || "The node answered " + response.status + ".");
  error.status = response.status;
  if (response.status === 401 && path !== "/v1/session") showSignIn("Your session has ended. Sign in again.");
  throw error;
}
const may = scope => session && (session.scopes || []).includes(scope);

// ---- Signing in and out

function showSignIn(why) {
  stream.stop();
  forget();
  session = null;
  $("fleet").hidden = $("nav").hidden = $("signout").hidden = true;
  $("signin").hidden = false;
  if ($("ask").open) $("ask").close();
  text($("signin-error"), why || "");
  text($("who"), "");
  $("token").focus();
}

// forget removes what the last session has shown.
function forget() {
  following++;
  nodes.clear();
  rows.clear();
  dots.clear();
  points = [];
  lastEvent = null;
  if (frame) cancelAnimationFrame(frame);
  frame = 0;
  drawnArcs = drawnLabels = drawnSites = "";
  for (const id of ["rows", "dots", "arcs", "labels", "site-rows", "clients", "problems", "legend", "url-result", "client-result"]) {
    $(id).replaceChildren();
    delete $(id).dataset.said;
  }
  $("purge-result").hidden = true;
  for (const form of [$("purge-form"), $("url-form"), $("client-form")]) form.reset();
}

async function begin() {
  try {
    session = await api("GET", "/v1/session");
  } catch (error) {
    if (error.status === 401) return showSignIn("");
    $("fleet").hidden = false;
    text($("link"), error.message);
    return void setTimeout(begin, 3000);
  }
  $("signin").hidden = true;
  $("fleet").hidden = $("nav").hidden = false;
  $("signout").hidden = !session.signed_in;
  text($("who"), session.node + (session.version ? " · " + session.version : ""));
  for (const node of document.querySelectorAll("[data-scope]")) node.hidden = !may(node.dataset.scope);
  for (const id of ["overview", "nodes", "sites"]) $(id).hidden = !may("read");
  for (const link of $("nav").querySelectorAll("a:not([data-scope])")) link.hidden = !may("read");
  const asks = session.edge ? "" : "Only an edge knows what it has stored. Open an edge's page for this.";
  text($("url-where"), session.edge ? "What " + session.node + " has stored, for how long, and why." : asks);
  $("url-form").querySelector("button").disabled = !session.edge;
  const servers = session.name_servers || [];
  text($("client-where"), session.name_server ? "Which edges " + session.node + " answers a client with, and why."
    : servers.length ? "This node is not a name server. Open the page of " + servers.join(" or ") + ", or use kaiku explain dns."
    : "This node is not a name server. Use kaiku explain dns.");
  $("client-form").querySelector("button").disabled = !session.name_server;
  const host = (session.hosts || []).find(h => !h.includes("*") && h !== "localhost" && !/^[\d.[]/.test(h)) || "www.example.com";
  $("client-name").placeholder = host;
  $("client").placeholder = "192.0.2.1";
  $("url").placeholder = "https://" + host + "/";
  purgeHint();
  if (may("read")) stream.start();
  else text($("link"), "");
}

$("signin-form").addEventListener("submit", async event => {
  event.preventDefault();
  text($("signin-error"), "");
  try {
    store.set((await api("POST", "/v1/session", { token: $("token").value })).key);
    $("token").value = "";
    await begin();
    $("overview").focus();
  } catch (error) {
    text($("signin-error"), error.message);
    $("token").focus();
  }
});

$("signout").addEventListener("click", async () => {
  try { await api("DELETE", "/v1/session"); } catch { /* it has ended anyway */ }
  store.set("");
  showSignIn("");
});

// ---- The stream of events

const nodes = new Map();
let points = [], now = null, lastEvent = null, changed = new Set();

const stream = {
  control: null,
  start() {
    stream.stop();
    const control = stream.control = new AbortController();
    stream.read(control).catch(() => {}).then(() => {
      if (stream.control !== control) return;
      text($("link"), "The connection is lost. Trying again …");
      $("link").className = "error";
      setTimeout(() => { if (stream.control === control) begin(); }, 2000);
    });
  },
  stop() {
    if (stream.control) stream.control.abort();
    stream.control = null;
  },
  async read(control) {
    const response = await request("GET", "/v1/live", undefined, control.signal);
    if (!response.ok) throw new Error();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "", watch = 0;
    const alive = () => { clearTimeout(watch); watch = setTimeout(() => control.abort(), 15000); };
    try {
      for (;;) {
        alive();
        const { done, value } = await reader.read();
        if (done) return;
        rest += value;
        for (let end; (end = rest.indexOf("\n\n")) >= 0; rest = rest.slice(end + 2)) {
          if (rest.startsWith("data: ")) take(JSON.parse(rest.slice(6, end)));
        }
      }
    } finally { clearTimeout(watch); }
  },
};

function take(event) {
  if (event.whole) {
    nodes.clear();
    changed = null; // all
  }
  for (const n of event.nodes || []) {
    nodes.set(n.node, n);
    if (changed) changed.add(n.node);
  }
  now = event.now;
  lastEvent = event;
  points = points.concat(event.past || []).filter(p => p.at > event.at - 3600e3);
  if (!frame) frame = requestAnimationFrame(draw);
}

let frame = 0;
function draw() {
  frame = 0;
  const all = [...nodes.values()];
  $("link").className = "soft";
  text($("link"), "Live from " + lastEvent.node);
  drawProblems(all);
  drawTiles(all);
  drawMap(all);
  drawCharts();
  drawRows(all);
  drawSites(all);
  changed = new Set();
}

// ---- What is wrong

let downAt = new Map(); // name servers that find a node down, by node

function stateOf(n) {
  if (!n.leased) return ["bad", "no contact"];
  if (!n.live) return ["bad", "cut off"];
  if (downAt.has(n.node)) return ["bad", "not answering"];
  if (n.draining) return ["warn", "draining"];
  if (!n.ready) return ["warn", "not ready"];
  if (n.behind) return ["warn", "behind"];
  return ["good", "healthy"];
}

function drawProblems(all) {
  downAt = new Map();
  for (const n of all) {
    for (const name of n.live && n.report && n.report.down || []) downAt.set(name, (downAt.get(name) || []).concat(n.node));
  }
  const list = [];
  for (const n of all) {
    const [kind, state] = stateOf(n);
    if (kind === "good") continue;
    const why = state === "not answering" ? " for " + downAt.get(n.node).join(", ") : state === "behind" ? " by " + plural(n.behind, "purge") : "";
    list.push([kind, n.node + " is " + (state === "no contact" ? "without contact to the control plane" : state + why) + "."]);
  }
  for (const n of all) {
    if (n.disk) list.push([n.disk === "full" ? "bad" : "warn", "The disk of the control node " + n.node + " is " + n.disk + "."]);
    const c = n.report && n.report.certificates;
    if (c && c.missing) list.push(["warn", n.node + " has no certificate for " + plural(c.missing, "host") + "."]);
    if (c && c.days_left !== undefined && c.days_left < 14) list.push([c.days_left < 3 ? "bad" : "warn", "The certificate of " + c.name + " on " + n.node + " " + (c.days_left <= 0 ? "has expired." : "expires in " + plural(Math.floor(c.days_left), "day") + ".")]);
  }
  for (const s of sitesOf(all)) {
    if (s.bad.length) list.push([s.good ? "warn" : "bad", "The origin of " + s.site + " has servers down, as " + few(s.bad.map(b => b.node)) + " " + (s.bad.length === 1 ? "sees" : "see") + " it."]);
  }
  for (const fault of lastEvent.faults || []) list.push(["warn", lastEvent.node + ": " + fault]);
  if (lastEvent.error) list.push(["warn", "Reports of other nodes can't be had: " + lastEvent.error]);
  list.sort((a, b) => (a[0] === "bad" ? 0 : 1) - (b[0] === "bad" ? 0 : 1));
  const more = list.length - 8;
  const lines = list.slice(0, 8);
  if (more > 0) lines.push(["warn", "And " + more + " more; see the nodes and the sites below."]);
  const said = JSON.stringify(lines);
  if ($("problems").dataset.said !== said) { // only a change is announced
    $("problems").dataset.said = said;
    set($("problems"), {}, [lines.length ? el("ul", {}, ...lines.map(([kind, line]) => el("li", { class: kind }, line)))
      : el("p", {}, all.length === 1 ? "The node is healthy." : "All " + all.length + " nodes are healthy.")]);
  }
  document.title = (list.length ? "(" + list.length + ") " : "") + "Kaiku · " + lastEvent.node;
}

const few = names => names.length > 4 ? names.slice(0, 3).join(", ") + " and " + (names.length - 3) + " others" : names.join(", ");

// ---- Tiles

const tiles = new Map();
function tile(name, value, note, kind) {
  let t = tiles.get(name);
  if (!t) {
    t = { value: el("dd", {}), note: el("dd", { class: "note" }) };
    $("tiles").append(el("div", {}, el("dt", {}, name), t.value, t.note));
    tiles.set(name, t);
  }
  t.value.className = kind || "";
  text(t.value, value);
  text(t.note, note || "");
}

function drawTiles(all) {
  const p = now, ratio = (a, b) => b > 0 ? percent(Math.min(1, a / b)) : "–";
  tile("Requests", count(p.requests) + " /s", "of " + plural(p.edges, "edge"));
  tile("Traffic", bits(p.bytes), "sent to clients");
  tile("Hit ratio", ratio(p.hits, p.requests), ratio(p.hit_body, p.bodies) + " by bytes");
  tile("Origin saved", p.requests > 0 ? percent(Math.max(0, 1 - p.origin / p.requests)) : "–", count(p.origin) + " /s reach origins");
  tile("Response time", time(p.p50), "p50; p99 is " + time(p.p99));
  tile("Errors", p.requests > 0 ? percent(p.errors / p.requests) : "–", "status 500 and above", p.errors > p.requests * 0.05 ? "bad" : p.errors > p.requests * 0.01 ? "warn" : "");
  let used = 0, disk = 0, objects = 0, first = null, missing = 0;
  for (const n of all) {
    const r = n.report || {};
    if (r.store) { used += r.store.bytes; disk += r.store.disk; objects += r.store.objects; }
    if (r.certificates) {
      missing += r.certificates.missing || 0;
      if (r.certificates.days_left !== undefined && (!first || r.certificates.days_left < first.days_left)) first = r.certificates;
    }
  }
  tile("Stores", disk ? percent(used / disk) : "–", disk ? size(used) + " of " + size(disk) + ", " + count(objects) + " objects" : "no store");
  tile("Certificates", first ? plural(Math.floor(first.days_left), "day") : "–", first ? "left for " + first.name : missing ? plural(missing, "host") + " without one" : "none in use",
    first && first.days_left < 3 ? "bad" : first && first.days_left < 14 || missing ? "warn" : "");
}

// ---- The map

// project is the Equal Earth projection, as in world.mjs.
function project(lat, lon) {
  const t = Math.asin(Math.sqrt(3) / 2 * Math.sin(lat * Math.PI / 180)), t2 = t * t, t6 = t2 * t2 * t2, scale = 1000 / 5.4133;
  return [500 + scale * 2 * Math.sqrt(3) * lon * Math.PI / 180 * Math.cos(t) / (3 * (0.034164 * t6 * t2 + 0.006251 * t6 - 0.243318 * t2 + 1.340264)),
    243.3 - scale * t * (0.003796 * t6 * t2 + 0.000893 * t6 - 0.081106 * t2 + 1.340264)];
}
const countries = new Map($("countries").textContent.split(" ").map(c => [c.slice(0, 2), c.slice(2).split(",").map(Number)]));
const dots = new Map();
let drawnArcs = "", drawnLabels = "";

const placed = n => Array.isArray(n.location) && n.location.length === 2;

function drawMap(all) {
  const most = Math.max(1, ...all.map(n => n.report && n.report.rates ? n.report.rates.requests : 0));
  for (const [name, dot] of dots) if (!nodes.has(name)) { dot.remove(); dots.delete(name); }
  const summary = new Map();
  for (const n of all) {
    const [kind, state] = stateOf(n);
    summary.set(state, (summary.get(state) || 0) + 1);
    if (!placed(n)) continue;
    let dot = dots.get(n.node);
    if (!dot) {
      dot = svg("circle", {}, svg("title", {}));
      dots.set(n.node, dot);
      $("dots").append(dot);
    }
    const [x, y] = project(n.location[0], n.location[1]);
    const rate = n.report && n.report.rates ? n.report.rates.requests : 0;
    const r = (all.length > 200 ? 3 : 5) + 5 * Math.sqrt(rate / most) * (rate > 0 ? 1 : 0);
    const look = [x.toFixed(1), y.toFixed(1), r.toFixed(1), kind].join();
    if (dot.look !== look) {
      dot.look = look;
      set(dot, { cx: x.toFixed(1), cy: y.toFixed(1), r: r.toFixed(1), class: "dot " + kind });
    }
    text(dot.firstChild, n.node + ": " + state + (n.report && n.report.rates ? ", " + count(rate) + " requests/s" : ""));
  }
  drawLabels(all);
  const served = servedOf(all);
  drawArcs(served);
  drawClients(served);
  const states = [...summary].map(([state, n]) => n + " " + state).join(", ");
  text($("map-text"), "Map of " + plural(all.length, "node") + ": " + states + "." + (served.length ? " Clients in " + few([...new Set(served.map(s => countryName(s.country)))]) + " are served." : ""));
  if ($("legend").dataset.said !== states) {
    $("legend").dataset.said = states;
    const kinds = { healthy: "good", draining: "warn", "not ready": "warn", behind: "warn" };
    set($("legend"), {}, [...summary].map(([state, n]) => el("span", { class: "state " + (kinds[state] || "bad") }, n + " " + state)));
  }
}

// drawLabels names the places of nodes, as long as there are few. Nodes at one place share a label.
function drawLabels(all) {
  const places = [];
  for (const n of all) {
    if (!placed(n)) continue;
    const [x, y] = project(n.location[0], n.location[1]);
    const near = places.find(p => Math.abs(p.x - x) < 14 && Math.abs(p.y - y) < 10);
    if (near) near.names.push(n.node);
    else if (places.length < 200) places.push({ x, y, names: [n.node] });
  }
  const said = JSON.stringify(places);
  if (said === drawnLabels) return;
  drawnLabels = said;
  set($("labels"), {}, places.length > 40 ? [] : places.map(p => svg("text", { x: p.x > 900 ? p.x - 10 : p.x + 10, y: p.y - 7, class: "label", "text-anchor": p.x > 900 ? "end" : "start" },
    p.names.length > 2 ? p.names[0] + " +" + (p.names.length - 1) : p.names.join(", "))));
}

// servedOf sums what name servers report: how many answers sent clients of a country to a node.
function servedOf(all) {
  const sums = new Map();
  for (const n of all) {
    const served = n.live && n.report && n.report.served || {};
    for (const node in served) for (const country in served[node]) {
      const key = node + " " + country;
      if (!sums.has(key)) sums.set(key, { node, country, n: 0 });
      sums.get(key).n += served[node][country];
    }
  }
  return [...sums.values()].sort((a, b) => b.n - a.n);
}

function drawArcs(served) {
  const list = served.filter(s => countries.has(s.country) && nodes.has(s.node) && placed(nodes.get(s.node))).slice(0, 120);
  const most = list.length ? list[0].n : 1;
  const said = JSON.stringify(list.map(s => [s.node, s.country, Math.round(8 * s.n / most), nodes.get(s.node).location]));
  if (said === drawnArcs) return;
  drawnArcs = said;
  const ends = new Map();
  const paths = list.map(s => {
    const [x1, y1] = project(...nodes.get(s.node).location), [x2, y2] = project(...countries.get(s.country));
    const bend = Math.min(70, Math.hypot(x2 - x1, y2 - y1) * 0.3);
    if (!ends.has(s.country)) ends.set(s.country, [x2, y2]);
    return svg("path", { class: "arc", "stroke-width": (1 + 3 * Math.sqrt(s.n / most)).toFixed(1), d: `M${x1.toFixed(1)} ${y1.toFixed(1)}Q${((x1 + x2) / 2).toFixed(1)} ${((y1 + y2) / 2 - bend).toFixed(1)} ${x2.toFixed(1)} ${y2.toFixed(1)}` });
  });
  // A name has its place unless it would lie over a node, or over the name of another one.
  const large = matchMedia("(max-width: 40rem)").matches ? 2 : 1, taken = [];
  for (const n of nodes.values()) {
    if (!placed(n) || ends.size > 40) continue;
    const [x, y] = project(...n.location);
    taken.push([x - 9, y - 9, x + 9, y + 9], [x + 8, y - 7 - 12 * large, x + 8 + 8 * large * n.node.length, y - 5]);
  }
  for (const [country, [x, y]] of ends) {
    const name = countryName(country), half = 3.3 * large * name.length, low = y + 5 + 12 * large;
    const box = [x - half, low - 11 * large, x + half, low + 2];
    paths.push(svg("circle", { class: "place", cx: x.toFixed(1), cy: y.toFixed(1), r: 3 }));
    if (ends.size > 40 || taken.some(t => t[0] < box[2] && box[0] < t[2] && t[1] < box[3] && box[1] < t[3])) continue;
    taken.push(box);
    paths.push(svg("text", { class: "label country", x: x.toFixed(1), y: low.toFixed(1), "text-anchor": "middle" }, name));
  }
  set($("arcs"), {}, paths);
}

function drawClients(served) {
  const by = new Map();
  let sum = 0;
  for (const s of served) {
    if (!by.has(s.country)) by.set(s.country, { country: s.country, n: 0, nodes: [] });
    by.get(s.country).n += s.n;
    by.get(s.country).nodes.push(s.node);
    sum += s.n;
  }
  text($("clients-none"), by.size ? "" : "The name servers have sent nobody to an edge in the last minutes.");
  const list = [...by.values()].sort((a, b) => b.n - a.n).slice(0, 8).map(c => [countryName(c.country), percent(c.n / sum), "to " + few(c.nodes)]);
  const said = JSON.stringify(list);
  if ($("clients").dataset.said === said) return;
  $("clients").dataset.said = said;
  set($("clients"), {}, list.map(([name, share, to]) => el("li", {}, el("span", {}, name), el("b", {}, share), el("span", { class: "soft" }, to))));
}

// ---- Charts

const charts = [
  { name: "Requests", unit: v => count(v) + " /s", key: "all", of: p => p.requests, second: { key: "not from the store", of: p => Math.max(0, p.requests - p.hits) } },
  { name: "Traffic", unit: bits, of: p => p.bytes },
  { name: "Hit ratio", unit: percent, max: 1, of: p => p.requests > 0 ? p.hits / p.requests : null },
  { name: "Time, p99", unit: time, of: p => p.p99 > 0 ? p.p99 : null },
];

function drawCharts() {
  for (const c of charts) {
    if (!c.head) {
      c.head = el("b", {});
      c.svg = svg("svg", { viewBox: "0 0 600 84", preserveAspectRatio: "none", role: "img" });
      c.top = el("span", {});
      const keys = c.second ? el("span", {}, el("span", { class: "key" }), c.key + "\u2003", el("span", { class: "key second" }), c.second.key) : el("span", {});
      $("charts").append(el("div", { class: "chart card" }, el("div", { class: "head" }, el("span", {}, c.name), c.head), c.svg,
        el("div", { class: "axis" }, el("span", {}, "1 h ago"), el("span", {}, "now")), el("div", { class: "axis" }, c.top, keys)));
    }
    const values = points.map(p => [p.at, c.of(p)]);
    const most = c.max || Math.max(0, ...values.map(v => v[1] || 0)), top = most || 1;
    const current = c.of(now);
    text(c.head, current === null ? "–" : c.unit(current));
    text(c.top, most ? "highest " + c.unit(Math.max(0, ...values.map(v => v[1] || 0))) : "");
    c.svg.setAttribute("aria-label", c.name + " in the last hour: now " + (current === null ? "none" : c.unit(current)) + ", " + (c.top.textContent || "nothing yet"));
    const line = of => {
      let d = "", pen = false, last = 0;
      for (const p of points) {
        const v = of(p);
        if (v === null || p.at - last > 60e3) pen = false;
        last = p.at;
        if (v === null) continue;
        const x = 600 * (1 - (lastEvent.at - p.at) / 3600e3), y = 80 - 76 * Math.min(1, v / top);
        d += (pen ? "L" : "M") + x.toFixed(1) + " " + y.toFixed(1);
        pen = true;
      }
      return d;
    };
    const d = line(c.of), parts = [svg("path", { class: "base", d: "M0 80.5H600" })];
    if (d) {
      const area = d.split("M").slice(1).map(s => {
        const at = s.split("L");
        return "M" + at[0].split(" ")[0] + " 80L" + s + "L" + at[at.length - 1].split(" ")[0] + " 80Z";
      }).join("");
      parts.push(svg("path", { class: "area", d: area }), svg("path", { class: "line", d }));
    }
    if (c.second) parts.push(svg("path", { class: "line second", d: line(c.second.of) }));
    set(c.svg, {}, parts);
  }
}

// ---- The table of nodes

const rows = new Map();
const firstRows = 50;
let showAll = false;

function rowOf(name) {
  let row = rows.get(name);
  if (row) return row;
  const cells = Array.from({ length: 11 }, (_, i) => el("td", i >= 3 && i < 9 ? { class: "num" } : {}));
  const state = el("span", {}), button = el("button", { type: "button", class: "quiet row" });
  cells[0].append(state);
  cells[10].append(button);
  button.addEventListener("click", () => askDrain(nodes.get(name), button));
  row = { tr: el("tr", {}, el("th", { scope: "row" }, name), ...cells), cells, state, button };
  rows.set(name, row);
  return row;
}

function fillRow(n) {
  const row = rowOf(n.node), r = n.report || {}, rates = r.rates, [kind, state] = stateOf(n), c = r.certificates;
  row.state.className = "state " + kind;
  text(row.state, state);
  const p99 = r.seconds ? quantile(r.seconds, 0.99) : 0;
  const values = [n.region || "", (n.roles || []).map(role => role === "geodns" ? "name server" : role).join(", "),
    rates ? count(rates.requests) : "", rates && rates.requests > 0 ? percent(rates.hits / rates.requests) : "",
    rates ? bits(rates.bytes) : "", p99 ? time(p99) : "", r.store && r.store.disk ? percent(r.store.bytes / r.store.disk) : "",
    c && c.days_left !== undefined ? plural(Math.floor(c.days_left), "day") : "", n.version || ""];
  values.forEach((v, i) => text(row.cells[i + 1], v || "–"));
  const able = may("drain") && session.fleet && n.leased && (n.roles || []).includes("edge");
  row.button.hidden = !able;
  text(row.button, n.draining ? "Undrain" : "Drain");
  row.button.setAttribute("aria-label", (n.draining ? "Undrain " : "Drain ") + n.node);
  return row;
}

const bounds = [.0001, .0003, .001, .003, .01, .03, .1, .3, 1, 3, 10];
function quantile(seconds, q) {
  const all = seconds.reduce((a, b) => a + b, 0);
  let rank = q * all, low = 0;
  if (!all) return 0;
  for (let i = 0; i < bounds.length; i++) {
    if (seconds[i] && rank <= seconds[i]) return low + (bounds[i] - low) * rank / seconds[i];
    rank -= seconds[i];
    low = bounds[i];
  }
  return low;
}

function drawRows(all) {
  for (const [name, row] of rows) if (!nodes.has(name)) { row.tr.remove(); rows.delete(name); }
  const rank = { bad: 0, warn: 1, good: 2 }, words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const list = all.filter(n => {
    const line = [n.node, n.region, stateOf(n)[1], ...(n.roles || [])].join(" ").toLowerCase();
    return words.every(w => line.includes(w));
  }).sort((a, b) => rank[stateOf(a)[0]] - rank[stateOf(b)[0]] || order(a.node, b.node));
  const shown = showAll ? list : list.slice(0, firstRows);
  const trs = shown.map(n => (!changed || changed.has(n.node) || !rows.has(n.node) || downAt.size ? fillRow(n) : rows.get(n.node)).tr);
  const body = $("rows");
  if (trs.length !== body.children.length || trs.some((tr, i) => body.children[i] !== tr)) {
    const focused = document.activeElement;
    body.replaceChildren(...trs);
    if (focused && body.contains(focused)) focused.focus({ preventScroll: true });
  }
  $("actions-head").hidden = !(may("drain") && session.fleet);
  for (const row of rows.values()) row.cells[10].hidden = $("actions-head").hidden;
  text($("shown"), list.length > shown.length ? "The first " + shown.length + " of " + list.length + " nodes."
    : words.length ? plural(list.length, "node") + " of " + all.length : "");
  $("all").hidden = list.length <= shown.length;
}

$("filter").addEventListener("input", () => { if (lastEvent) drawRows([...nodes.values()]); });
$("all").addEventListener("click", () => {
  showAll = true;
  drawRows([...nodes.values()]);
  $("filter").focus();
});

// ---- Sites

let drawnSites = "";

function sitesOf(all) {
  const by = new Map();
  for (const n of all) {
    for (const s of n.live && n.report && n.report.sites || []) {
      if (!by.has(s.site)) by.set(s.site, { site: s.site, edges: 0, good: 0, bad: [] });
      const of = by.get(s.site);
      of.edges++;
      if (s.up === s.servers) of.good++;
      else of.bad.push({ node: n.node, up: s.up, servers: s.servers, why: s.why || "" });
    }
  }
  return [...by.values()].sort((a, b) => b.bad.length - a.bad.length || order(a.site, b.site));
}

function drawSites(all) {
  const list = sitesOf(all), said = JSON.stringify(list);
  if (said === drawnSites) return;
  drawnSites = said;
  set($("site-rows"), {}, list.map(s => {
    const kind = !s.bad.length ? "good" : s.good || s.bad.some(b => b.up) ? "warn" : "bad";
    const state = !s.bad.length ? "all servers up" : s.bad.every(b => !b.up) ? "no server up on " + few(s.bad.map(b => b.node))
      : "servers down on " + few(s.bad.map(b => b.node + " (" + b.up + " of " + b.servers + " up)"));
    return el("tr", {}, el("th", { scope: "row" }, s.site), el("td", {}, el("span", { class: "state " + kind }, state)),
      el("td", {}, plural(s.edges, "edge")), el("td", { class: "text" }, s.bad.length ? s.bad[0].why || "–" : "–"));
  }));
}

// ---- Draining

let askAgain = null; // what the open dialog is about

function askDrain(n, button) {
  const drain = !n.draining, dialog = $("ask");
  text($("ask-title"), (drain ? "Drain " : "Undrain ") + n.node + "?");
  text($("ask-text"), drain ? "Name servers stop sending new clients to it within seconds. Clients that have its address stay until the TTL has expired. It stays drained until you undrain it, also after a restart."
    : "Name servers send clients to it again within seconds.");
  text($("ask-yes"), drain ? "Drain" : "Undrain");
  text($("ask-error"), "");
  $("ask-yes").disabled = false;
  askAgain = async () => {
    $("ask-yes").disabled = true;
    try {
      await api(drain ? "PUT" : "DELETE", "/v1/nodes/" + encodeURIComponent(n.node) + "/drain");
      dialog.close();
    } catch (error) {
      text($("ask-error"), error.message);
      $("ask-yes").disabled = false;
    }
  };
  dialog.returnTo = button;
  dialog.showModal();
  $("ask-no").focus();
}
$("ask-no").addEventListener("click", () => $("ask").close());
$("ask-yes").addEventListener("click", () => askAgain && askAgain());
$("ask").addEventListener("close", () => {
  askAgain = null;
  const to = $("ask").returnTo;
  if (to && to.isConnected) to.focus();
});

// ---- Purging

const lists = {
  urls: ["URLs, one on each line", host => "https://" + host + "/style.css"],
  tags: ["Tags, one on each line", () => "product-17"],
  prefixes: ["Prefixes of URLs, one on each line", host => "https://" + host + "/images/"],
  hosts: ["Hosts, one on each line", host => host],
};
const chosen = () => new FormData($("purge-form")).get("what");
function purgeHint() {
  const [label, example] = lists[chosen()];
  text($("purge-label"), label);
  $("purge-list").placeholder = example($("client-name").placeholder || "www.example.com");
}
for (const choice of $("purge-form").querySelectorAll("[name=what]")) choice.addEventListener("change", purgeHint);

let following = 0;

$("purge-form").addEventListener("submit", async event => {
  event.preventDefault();
  text($("purge-error"), "");
  const list = $("purge-list").value.split("\n").map(l => l.trim()).filter(Boolean);
  if (!list.length) return text($("purge-error"), "Write what to purge.");
  const button = $("purge-form").querySelector("button");
  button.disabled = true;
  try {
    const body = { [chosen()]: list };
    if ($("soft").checked) body.soft = true;
    const answer = await api("POST", "/v1/purge", body);
    followPurge(answer.sequence, list);
  } catch (error) {
    text($("purge-error"), error.message);
  }
  button.disabled = false;
});

async function followPurge(sequence, list) {
  const turn = ++following, began = Date.now();
  $("purge-result").hidden = false;
  text($("purge-head"), "Purge " + sequence + ": " + (list.length === 1 ? list[0] : plural(list.length, "entry", "entries")));
  set($("purge-edges"), {}, []);
  $("purge-bar").value = 0;
  if (!may("read")) return text($("purge-state"), "The purge is in the log. Your token may not see how far the edges are.");
  text($("purge-state"), "The purge is in the log. Waiting for the edges …");
  while (turn === following) {
    try {
      const edges = (await api("GET", "/v1/purges/" + sequence)).edges || [];
      if (turn !== following) return;
      const done = edges.filter(e => e.applied).length;
      $("purge-bar").max = Math.max(1, edges.length);
      $("purge-bar").value = done;
      const open = edges.filter(e => !e.applied), show = edges.length > 60 ? open.slice(0, 60) : edges;
      set($("purge-edges"), {}, show.map(e => el("li", {}, el("span", { class: "state " + (e.applied ? "good" : e.live ? "warn" : "bad") },
        e.node + (e.applied ? ": done" : e.live ? ": not yet" : ": no contact")))));
      if (!open.length) {
        return text($("purge-state"), "Done: it is true on " + (edges.length === 1 ? "the only edge." : "all " + edges.length + " edges."));
      }
      const lost = open.filter(e => !e.live).length;
      text($("purge-state"), done + " of " + edges.length + " edges have applied it." + (lost ? " " + plural(lost, "edge") + " without contact will apply it before serving anything stored." : ""));
    } catch (error) {
      text($("purge-state"), error.message);
      if (error.status) return;
    }
    await new Promise(ok => setTimeout(ok, Date.now() - began < 20e3 ? 300 : 2000));
  }
}

// ---- Explaining

const moment = t => t ? new Date(t).toISOString().replace("T", " ").replace(/\.\d+Z$/, " UTC") : "";
function facts(to, list) {
  to.append(el("dl", {}, ...list.filter(([, value]) => value !== undefined && value !== null && value !== "").flatMap(([name, value]) =>
    [el("dt", {}, name), el("dd", {}, String(value))])));
}

async function explain(form, path, show) {
  const result = form.querySelector(".result"), error = form.querySelector(".error");
  text(error, "");
  result.replaceChildren();
  try {
    show(result, await api("GET", path));
  } catch (e) {
    text(error, e.message);
  }
}

$("url-form").addEventListener("submit", event => {
  event.preventDefault();
  explain($("url-form"), "/v1/explain?url=" + encodeURIComponent($("url").value.trim()), (to, e) => {
    if (!(e.objects || []).length) facts(to, [["Stored", "no"], ["Why", e.why_not], ["Key", e.key]]);
    for (const o of e.objects || []) {
      const state = o.ttl > 0 ? "fresh for " + plural(o.ttl, "second") : "stale for " + plural(-o.ttl, "second");
      facts(to, [["Stored", state + (o.purged ? ", by a soft purge" : "")], ["Status", o.status], ["Size", size(o.size) + (o.have !== o.size ? ", of which " + size(o.have) + " are stored" : "")],
        ["Since", moment(o.stored)], ["Lifetime", o.source ? plural(o.lifetime, "second") + " by " + o.source : "none: it is revalidated on each request"],
        ["Hint", o.hint], ["Age", plural(o.age, "second")], ["Variant", Object.entries(o.variant || {}).map(v => v.join(": ")).join(", ")],
        ["Validator", o.validator], ["Tags", (o.tags || []).join(" ")], ["Kept in", o.memory ? "RAM and on disk" : "on disk"], ["Key", o.key]]);
    }
    if ((e.rules || []).length) facts(to, [["Rules", e.rules.join(", ")]]);
    if (e.last_failure) facts(to, [["Last fetch", "failed " + moment(e.last_failure.at) + ": " + e.last_failure.error], ["Hint", e.last_failure.hint]]);
    facts(to, (e.servers || []).map(s => ["Origin", s.server + " is " + s.state + (s.why ? ": " + s.why : "")]));
  });
});

$("client-form").addEventListener("submit", event => {
  event.preventDefault();
  const query = "name=" + encodeURIComponent($("client-name").value.trim()) + "&client=" + encodeURIComponent($("client").value.trim());
  explain($("client-form"), "/v1/explain/dns?" + query, (to, e) => {
    facts(to, [["Client", e.Client], ["Place", e.Place ? digits(e.Place.Lat, 2) + ", " + digits(e.Place.Lon, 2) + (e.Country ? " (" + countryName(e.Country) + ")" : "") : "unknown"],
      ["Holds for", e.Network], ["Answers", plural(e.Answers, "node") + ", scope /" + e.Scope], ["IPv6", e.IPv6]]);
    for (const n of e.Nodes || []) {
      facts(to, [[n.Node, (n.A && n.AAAA ? "answered, A and AAAA" : n.A ? "answered, A" : n.AAAA ? "answered, AAAA" : "not answered") + ": " + n.Reason],
        ["Distance", digits(n.Distance, 0) + " km"], ["State", !n.Healthy ? "unhealthy" : n.Draining ? "draining" : n.Stale ? "behind" : "healthy"],
        ["Load", n.Load ? percent(n.Load) : ""]]);
    }
  });
});

$("map").setAttribute("viewBox", "20 0 960 440");
begin();
})();
