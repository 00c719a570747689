"use strict";
// The page works from its links: "#design-<candidate>" opens a design in the panel.
// A design's piece of HTML was escaped when the page was made; no script in it can run (see the policy).

const panel = document.getElementById("panel");
const parents = {};
for (const node of document.querySelectorAll(".node")) parents[node.dataset.name] = node.dataset.parent;

function lineage(name) {
  const names = new Set();
  while (name && !names.has(name)) { names.add(name); name = parents[name]; }
  return names;
}

function light(name) {
  const names = lineage(name);
  for (const edge of document.querySelectorAll(".edge")) edge.classList.toggle("lit", names.has(edge.dataset.child));
}

function show(name) {
  const piece = [...document.querySelectorAll("script.piece")].find((one) => one.dataset.name === name);
  if (!piece) return false;
  panel.innerHTML = JSON.parse(piece.textContent);
  for (const node of document.querySelectorAll("[data-name][aria-current]")) node.removeAttribute("aria-current");
  for (const node of document.querySelectorAll(".node")) {
    if (node.dataset.name === name) node.setAttribute("aria-current", "true");
  }
  light(name);
  return true;
}

function follow() {
  const found = location.hash.match(/^#design-([\d.]+)$/);
  if (!found || !show(found[1])) return false;
  panel.scrollIntoView();
  panel.querySelector("h3").focus({preventScroll: true});
  return true;
}

function sort(button) {
  const heading = button.closest("th"), table = heading.closest("table"), body = table.tBodies[0];
  const down = heading.getAttribute("aria-sort") !== "descending";
  for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = (row) => row.cells[heading.cellIndex].dataset.value;
  const order = (a, b) => (a === "") - (b === "") || (down ? -1 : 1) * (Number(a) - Number(b));
  body.append(...[...body.rows].sort((a, b) => order(value(a), value(b))));
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='#design-'], .node");
  // The same link again changes no hash, so it is followed here.
  if (link && link.getAttribute("href") === location.hash) { follow(); event.preventDefault(); }
  const heading = event.target.closest("th button");
  if (heading) sort(heading);
});
for (const node of document.querySelectorAll(".node")) {
  for (const kind of ["mouseenter", "focus"]) node.addEventListener(kind, () => light(node.dataset.name));
  for (const kind of ["mouseleave", "blur"]) node.addEventListener(kind, () => {
    light(document.querySelector(".node[aria-current]")?.dataset.name);
  });
}
document.getElementById("theme").addEventListener("click", () => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches, root = document.documentElement;
  root.dataset.theme = (root.dataset.theme || (dark ? "dark" : "light")) === "dark" ? "light" : "dark";
});
addEventListener("hashchange", follow);
if (!follow() && panel.dataset.first) show(panel.dataset.first);
