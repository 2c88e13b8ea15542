"use strict";
// Airflow shows these pages in a frame of its own origin, so that its theme and its router can be reached.
const airflow = (() => {
  try {
    return window.parent !== window && window.parent.document ? window.parent : null;
  } catch {
    return null;
  }
})();

// -- light and dark ----------------------------------------------------------------------------------------
function colourBehind(element) {
  for (let under = element; under; under = under.parentElement) {
    const colour = airflow.getComputedStyle(under).backgroundColor;
    if (!/^transparent$|^rgba\(.*, 0\)$|\/ 0\)$/.test(colour)) return colour;
  }
  return null;
}

function followTheme() {
  const root = document.documentElement;
  let dark = matchMedia("(prefers-color-scheme: dark)").matches;
  if (airflow) {
    dark = airflow.document.documentElement.classList.contains("dark");
    const back = colourBehind(window.frameElement);
    if (back) root.style.setProperty("--back", back);
  } else {
    const chosen = localStorage.getItem("theme");
    if (chosen === "dark" || chosen === "light") dark = chosen === "dark";
  }
  root.classList.toggle("dark", dark);
  root.classList.toggle("light", !dark);
}
followTheme();
if (airflow) {
  const attributes = { attributes: true, attributeFilter: ["class", "data-theme", "style"] };
  new MutationObserver(followTheme).observe(airflow.document.documentElement, attributes);
} else {
  addEventListener("storage", followTheme);
}

// -- to Airflow's own pages --------------------------------------------------------------------------------
// The frame may not navigate what is around it, and Airflow's router hears of changes in the history.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a.airflow");
  if (!link || !airflow || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  airflow.history.pushState(null, "", link.href);
  airflow.dispatchEvent(new PopStateEvent("popstate", { state: null }));
});

// -- copy --------------------------------------------------------------------------------------------------
async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Over plain http, browsers have the old way only.
  const field = document.body.appendChild(document.createElement("textarea"));
  field.value = text;
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  if (!done) throw new Error("not copied");
}
document.addEventListener("click", async (event) => {
  const button = event.target.closest("button.copy");
  if (!button) return;
  try {
    await copy(button.dataset.text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not copied";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
});

// -- times -------------------------------------------------------------------------------------------------
function localTimes() {
  for (const time of document.querySelectorAll("time[datetime]:not([title])")) {
    time.title = new Date(time.dateTime).toLocaleString();
  }
}
localTimes();

// -- a player that cannot play -----------------------------------------------------------------------------
function watchPlayer() {
  for (const video of document.querySelectorAll(".stage video")) {
    const notice = video.nextElementSibling;
    video.addEventListener("error", async () => {
      video.hidden = true;
      notice.hidden = false;
      // A player does not tell whether it cannot play, or was sent something else.
      const reply = await fetch(video.currentSrc, { headers: { Range: "bytes=0-0" } });
      if (!reply.ok) notice.textContent = await reply.text();
    });
  }
}
watchPlayer();

// -- a wait, while it is looked at -------------------------------------------------------------------------
async function refresh(page) {
  const seconds = Number(page.dataset.refresh);
  if (!seconds) return;
  if (!document.hidden && !getSelection().toString()) {  // somebody may be copying
    try {
      const reply = await fetch(page.dataset.live);
      const found = new DOMParser().parseFromString(await reply.text(), "text/html").getElementById("page");
      if (reply.ok && found) {
        page.replaceWith(found);
        localTimes();
        watchPlayer();
        observePictures(found);
        page = found;
      }
    } catch { /* the api-server is away; it may come back */ }
  }
  setTimeout(refresh, Number(page.dataset.refresh) * 1000 || 5000, page);
}
refresh(document.getElementById("page"));

// -- the gallery -------------------------------------------------------------------------------------------
const filters = document.querySelector(".filters");
filters?.addEventListener("change", () => filters.requestSubmit());

// A poster is the first picture of the video. A few players make them, for the cards in sight: browsers give a
// page some dozens of players, and a gallery may have hundreds of cards.
const PLAYERS = 3;
const wanted = [];
let players = 0;

function picture(url) {
  return new Promise((resolve, reject) => {
    const video = document.createElement("video");
    const end = (settle, value) => {
      clearTimeout(patience);
      video.removeAttribute("src");
      video.load();
      settle(value);
    };
    const patience = setTimeout(() => end(reject, new Error("too slow")), 15000);
    video.muted = true;
    video.preload = "metadata";
    video.addEventListener("error", () => end(reject, new Error("not playable")), { once: true });
    video.addEventListener("loadeddata", () => {
      const canvas = document.createElement("canvas");
      const scale = Math.min(1, 480 / (video.videoWidth || 480));
      canvas.width = Math.round(video.videoWidth * scale) || 480;
      canvas.height = Math.round(video.videoHeight * scale) || 270;
      canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => (blob ? end(resolve, blob) : end(reject, new Error("no picture"))), "image/jpeg", 0.85);
    }, { once: true });
    video.src = `${url}#t=0.05`;
  });
}

async function draw() {
  if (players === PLAYERS) return;
  players += 1;
  while (wanted.length) {
    const place = wanted.shift();
    if (!place.isConnected || !place.dataset.video) continue;
    const url = place.dataset.video;
    delete place.dataset.video;
    try {
      const image = new Image();
      image.alt = "";
      image.src = URL.createObjectURL(await picture(url));
      place.prepend(image);
    } catch {
      place.classList.add("unplayable-picture");
    }
  }
  players -= 1;
}

const inSight = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (isIntersecting) {
      wanted.push(target);
    } else if (wanted.includes(target)) {
      wanted.splice(wanted.indexOf(target), 1);
    }
  }
  for (let player = 0; player < PLAYERS; player += 1) draw();
}, { rootMargin: "150px" });

function observePictures(of) {
  for (const place of of.querySelectorAll(".picture[data-video]")) inSight.observe(place);
}
observePictures(document);

const atTheEnd = new IntersectionObserver(async (entries) => {
  const { isIntersecting, target } = entries.at(-1);  // there may be several, of before and of now
  if (!isIntersecting) return;
  atTheEnd.disconnect();
  try {
    const reply = await fetch(target.href);
    const page = new DOMParser().parseFromString(await reply.text(), "text/html");
    const grid = document.getElementById("grid");
    const known = new Set([...grid.children].map((card) => card.dataset.name));
    // What landed since moves the pages on: a card may come twice.
    grid.append(...[...page.querySelectorAll("#grid > .card")].filter((card) => !known.has(card.dataset.name)));
    observePictures(document);
    localTimes();
    const next = page.getElementById("more");
    if (next) {
      target.href = next.getAttribute("href");
      atTheEnd.observe(target);
    } else {
      target.parentElement.remove();
    }
  } catch { /* the link is still there to be clicked */ }
}, { rootMargin: "600px" });
const more = document.getElementById("more");
if (more) atTheEnd.observe(more);
