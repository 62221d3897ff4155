"use strict";

// Fills the table with a row for each file of the page: the edge, hit or miss, age, and time to the first byte. Edge and
// hit come from Cache-Status (RFC 9211), which the browser stores with the file.
const files = ["/", "/style.css", "/app.js", "/img/dawn.png", "/img/noon.png", "/img/dusk.png"];

async function show(path) {
  const timing = performance.getEntriesByName(new URL(path, location).href)[0];
  const took = timing ? timing.responseStart - timing.requestStart : NaN;
  const answer = await fetch(path, { cache: "force-cache" });
  const status = (answer.headers.get("Cache-Status") || "").split(",").pop().trim();
  const [edge, ...rest] = status.split(";").map((s) => s.trim());
  const hit = rest.includes("hit");
  const row = document.createElement("tr");
  for (const [text, cls] of [
    [path],
    [edge],
    hit ? ["hit", "hit"] : [rest.some((p) => p.startsWith("fwd=")) ? "miss" : "?", "miss"],
    [answer.headers.has("Age") ? answer.headers.get("Age") + " s" : "–"],
    [timing && timing.transferSize > 0 ? took.toFixed(1) + " ms" : "browser cache"],
  ]) {
    const cell = document.createElement("td");
    for (const word of text.split(/(?<=\/)/)) cell.append(word, document.createElement("wbr")); // lets a long path break after a slash
    if (cls) cell.className = cls;
    row.append(cell);
  }
  document.getElementById("files").append(row);
}

addEventListener("load", async () => {
  for (const path of files) await show(path);
});
