// Keeps the page as the server sees it: a reading is announced, and the sections that have changed are replaced.
"use strict";

const main = document.querySelector("main[data-live]");
const state = document.getElementById("connection");

async function update() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!answer.ok || answer.redirected) throw new Error(String(answer.status));
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  document.title = fresh.title;
  for (const section of fresh.querySelectorAll("[data-part]")) {
    const shown = document.querySelector(`[data-part="${section.dataset.part}"]`);
    // What somebody is typing into stays as it is.
    if (!shown || shown.contains(document.activeElement) && shown.querySelector("form")) continue;
    if (shown.innerHTML === section.innerHTML) continue;
    const open = new Set([...shown.querySelectorAll("details[open][id]")].map((each) => each.id));
    const focused = shown.contains(document.activeElement) ? document.activeElement.id : "";
    const scrolled = new Map([...shown.querySelectorAll("[id][tabindex]")].map((each) => [each.id, each.scrollLeft]));
    shown.innerHTML = section.innerHTML;
    for (const each of shown.querySelectorAll("details[id]")) if (open.has(each.id)) each.open = true;
    for (const [id, left] of scrolled) { const each = document.getElementById(id); if (each) each.scrollLeft = left; }
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }
}

if (main && "EventSource" in window) {
  const source = new EventSource(main.dataset.live);
  let busy = false;
  source.addEventListener("reading", async () => {
    if (busy) return;
    busy = true;
    try {
      await update();
      state.textContent = "live";
      state.classList.remove("lost");
    } catch {
      lost();
    } finally {
      busy = false;
    }
  });
  source.addEventListener("error", lost);
}

function lost() {
  state.textContent = "not live: the board does not answer, this is what it knew last";
  state.classList.add("lost");
}
