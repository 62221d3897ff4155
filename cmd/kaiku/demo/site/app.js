"use strict";

// Shows how each part of the page came: what the edge said of it in Cache-Status (RFC 9211), which the browser keeps with
// its copy, and how long the first byte took.
const parts = ["/", "/style.css", "/app.js", "/img/dawn.png", "/img/noon.png", "/img/dusk.png"];

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
    [timing && timing.transferSize > 0 ? took.toFixed(1) + " ms" : "own copy"],
  ]) {
    const cell = document.createElement("td");
    for (const word of text.split(/(?<=\/)/)) cell.append(word, document.createElement("wbr")); // long paths break after a slash
    if (cls) cell.className = cls;
    row.append(cell);
  }
  document.getElementById("parts").append(row);
}

addEventListener("load", async () => {
  for (const path of parts) await show(path);
});
