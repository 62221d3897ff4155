// Makes world.svg, the land of the page's map, from Natural Earth's coastlines (public domain):
//
//   npm pack world-atlas && tar xzf world-atlas-*.tgz
//   node world.mjs package/land-110m.json ../../../geodns/centroids.txt >world.svg
//
// The projection is Equal Earth. page.js has the same function. Antarctica is left out.
import { readFileSync } from "node:fs";

const width = 1000;
const scale = width / 5.4133;

function project(lat, lon) {
  const t = Math.asin(Math.sqrt(3) / 2 * Math.sin(lat * Math.PI / 180)), t2 = t * t, t6 = t2 * t2 * t2;
  return [width / 2 + scale * 2 * Math.sqrt(3) * lon * Math.PI / 180 * Math.cos(t) /
    (3 * (0.034164 * t6 * t2 + 0.006251 * t6 - 0.243318 * t2 + 1.340264)),
  243.3 - scale * t * (0.003796 * t6 * t2 + 0.000893 * t6 - 0.081106 * t2 + 1.340264)];
}

const atlas = JSON.parse(readFileSync(process.argv[2]));
const { scale: [sx, sy], translate: [tx, ty] } = atlas.transform;
const arcs = atlas.arcs.map(arc => {
  let x = 0, y = 0;
  return arc.map(([dx, dy]) => [(x += dx) * sx + tx, (y += dy) * sy + ty]);
});
const ring = list => list.flatMap((n, i) => {
  const points = n < 0 ? arcs[~n].toReversed() : arcs[n];
  return i ? points.slice(1) : points;
});

// pieces cuts a ring where it jumps from one side of the map to the other.
function pieces(points) {
  const jumps = i => Math.abs(points[i][0] - points[(i + 1) % points.length][0]) > 180;
  const first = points.findIndex((_, i) => jumps(i));
  if (first < 0) return [points];
  const out = [[]];
  for (let i = 1; i <= points.length; i++) {
    const at = (first + i) % points.length;
    out.at(-1).push(points[at]);
    if (jumps(at)) out.push([]);
  }
  return out;
}

// Points nearer than a pixel to the last one are left out, and islands smaller than two.
let path = "";
const polygons = atlas.objects.land.geometries.flatMap(g => g.type === "Polygon" ? [g.arcs] : g.arcs);
for (const points of polygons.flat().flatMap(list => pieces(ring(list).slice(1)))) {
  if (!points.length || Math.max(...points.map(p => p[1])) < -60) continue;
  let last = null, text = "", n = 0;
  const box = [Infinity, Infinity, -Infinity, -Infinity];
  for (const [lon, lat] of points) {
    const at = project(Math.max(lat, -60), lon).map(v => Math.round(v * 2));
    box[0] = Math.min(box[0], at[0]); box[1] = Math.min(box[1], at[1]);
    box[2] = Math.max(box[2], at[0]); box[3] = Math.max(box[3], at[1]);
    if (last && Math.hypot(at[0] - last[0], at[1] - last[1]) < 2) continue;
    const step = last && at.map((v, i) => v - last[i]);
    text += step ? (n === 1 ? "l" : step[0] < 0 ? "" : " ") + step[0] + (step[1] < 0 ? "" : " ") + step[1] : `M${at[0]} ${at[1]}`;
    last = at; n++;
  }
  if (n > 3 && Math.max(box[2] - box[0], box[3] - box[1]) >= 5) path += text + "z";
}
// Where each country is, for the arcs: code, latitude and longitude in whole degrees.
const places = readFileSync(process.argv[3], "utf8").split("\n")
  .filter(l => /^[A-Z]{2}\s/.test(l)).map(l => l.trim().split(/\s+/))
  .map(([code, lat, lon]) => code + Math.round(lat) + "," + Math.round(lon)).join(" ");
process.stdout.write(`<path class="land" transform="scale(.5)" d="${path}"/><metadata id="countries">${places}</metadata>\n`);
