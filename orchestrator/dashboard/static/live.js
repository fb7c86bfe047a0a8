// Updates the page from the server, and keeps the scroll position, the focus and the selection.
// Without this script the browser itself reloads the page.
"use strict";

(() => {
  const main = document.getElementById("main");
  const clock = document.getElementById("clock");
  const banner = document.getElementById("banner");
  const hold = document.getElementById("hold");
  const MAX_WAIT_MS = 30000;
  let held = sessionStorage.getItem("held") === "yes";
  let missed = 0;
  let timer = 0;
  let updating = false;

  const everyMs = () => 1000 * Number(document.body.dataset.refresh);

  function schedule() {
    clearTimeout(timer);
    const every = everyMs();
    if (every > 0 && !held && !document.hidden) {
      timer = setTimeout(update, Math.min(every * 2 ** missed, Math.max(every, MAX_WAIT_MS)));
    }
  }

  async function update() {
    if (updating) {
      return;
    }
    updating = true;
    try {
      const answer = await fetch(location.href, {
        cache: "no-store",
        credentials: "same-origin",
        signal: AbortSignal.timeout(20000),
      });
      const found = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (!answer.ok) {
        const title = found.querySelector("#main h1");
        throw new Error(title ? title.textContent : `the dashboard answered ${answer.status}`);
      }
      replace(found);
      missed = 0;
      warn("");
    } catch (error) {
      missed = Math.min(missed + 1, 5);
      const reason = error instanceof TypeError || error.name === "TimeoutError" ? "The dashboard does not answer" : error.message;
      const last = clock.textContent.trim();
      warn(`${reason}. ${last ? `Showing the state of ${last}. ` : ""}Retrying.`);
    } finally {
      updating = false;
      schedule();
    }
  }

  function replace(found) {
    const selected = getSelection();
    if (selected && !selected.isCollapsed && main.contains(selected.anchorNode)) {
      return;
    }
    document.title = found.title;
    document.body.dataset.refresh = found.body.dataset.refresh;
    morph(clock, found.getElementById("clock"));
    morph(main, found.getElementById("main"));
  }

  function warn(text) {
    banner.hidden = !text;
    document.body.classList.toggle("stale", Boolean(text));
    if (banner.textContent !== text) {
      banner.textContent = text;
    }
  }

  // Changes an element into another one and keeps the parts that are the same, so that focus and scroll position stay.
  function morph(now, next) {
    for (const { name } of [...now.attributes]) {
      if (!next.hasAttribute(name) && name !== "open") {
        now.removeAttribute(name);
      }
    }
    for (const { name, value } of next.attributes) {
      if (now.getAttribute(name) !== value) {
        now.setAttribute(name, value);
      }
    }
    const keyed = new Map();
    for (const child of now.children) {
      if (child.dataset.key !== undefined) {
        keyed.set(child.dataset.key, child);
      }
    }
    let at = now.firstChild;
    for (const wanted of [...next.childNodes]) {
      const key = wanted.dataset ? wanted.dataset.key : undefined;
      const have = key === undefined ? (at && at.dataset && at.dataset.key !== undefined ? null : at) : keyed.get(key);
      if (!have || have.nodeName !== wanted.nodeName || have.id !== wanted.id) {
        now.insertBefore(document.importNode(wanted, true), at);
        continue;
      }
      keyed.delete(key);
      if (have === at) {
        at = at.nextSibling;
      } else {
        now.insertBefore(have, at);
      }
      if (have.nodeType === Node.ELEMENT_NODE) {
        morph(have, wanted);
      } else if (have.data !== wanted.data) {
        have.data = wanted.data;
      }
    }
    while (at) {
      const gone = at;
      at = at.nextSibling;
      gone.remove();
    }
  }

  // The browser's own time zone can be chosen as well.
  const zones = document.getElementById("zone");
  if (zones) {
    const own = Intl.DateTimeFormat().resolvedOptions().timeZone;
    if (own && ![...zones.options].some((option) => option.value === own)) {
      zones.add(new Option(own, own));
    }
  }

  function showHeld() {
    hold.textContent = held ? "Resume updates" : "Pause updates";
    document.body.classList.toggle("held", held);
  }

  if (everyMs() > 0) {
    hold.hidden = false;
    showHeld();
    hold.addEventListener("click", () => {
      held = !held;
      sessionStorage.setItem("held", held ? "yes" : "no");
      showHeld();
      if (held) {
        clearTimeout(timer);
      } else {
        update();
      }
    });
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) {
        clearTimeout(timer);
      } else if (!held) {
        update();
      }
    });
    schedule();
  }
})();
