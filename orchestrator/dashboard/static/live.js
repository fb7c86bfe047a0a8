// Keeps the page as it is on the server, without losing the place, the focus, or what is selected.
// Without this script the page is reloaded by the browser itself.
"use strict";

(() => {
  const main = document.getElementById("main");
  const clock = document.getElementById("clock");
  const banner = document.getElementById("banner");
  const hold = document.getElementById("hold");
  const LONGEST_WAIT_MS = 30000;
  let held = sessionStorage.getItem("held") === "yes";
  let missed = 0;
  let timer = 0;
  let looking = false;

  const everyMs = () => 1000 * Number(document.body.dataset.refresh);

  function plan() {
    clearTimeout(timer);
    const every = everyMs();
    if (every > 0 && !held && !document.hidden) {
      timer = setTimeout(look, Math.min(every * 2 ** missed, Math.max(every, LONGEST_WAIT_MS)));
    }
  }

  async function look() {
    if (looking) {
      return;
    }
    looking = true;
    try {
      const answer = await fetch(location.href, {
        cache: "no-store",
        credentials: "same-origin",
        signal: AbortSignal.timeout(20000),
      });
      const found = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (!answer.ok) {
        const said = found.querySelector("#main h1");
        throw new Error(said ? said.textContent : `the dashboard answered ${answer.status}`);
      }
      show(found);
      missed = 0;
      tell("");
    } catch (error) {
      missed = Math.min(missed + 1, 5);
      const why = error instanceof TypeError || error.name === "TimeoutError" ? "The dashboard does not answer" : error.message;
      const last = clock.textContent.trim();
      tell(`${why}. ${last ? `This is how it was at ${last}; ` : ""}trying again.`);
    } finally {
      looking = false;
      plan();
    }
  }

  function show(found) {
    const selected = getSelection();
    if (selected && !selected.isCollapsed && main.contains(selected.anchorNode)) {
      return;
    }
    document.title = found.title;
    document.body.dataset.refresh = found.body.dataset.refresh;
    become(clock, found.getElementById("clock"));
    become(main, found.getElementById("main"));
  }

  function tell(words) {
    banner.hidden = !words;
    document.body.classList.toggle("stale", Boolean(words));
    if (banner.textContent !== words) {
      banner.textContent = words;
    }
  }

  // Makes an element like another one, and keeps what is alike: so focus and scrolling stay.
  function become(now, next) {
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
        become(have, wanted);
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

  function sayWhetherHeld() {
    hold.textContent = held ? "Resume updates" : "Pause updates";
    document.body.classList.toggle("held", held);
  }

  if (everyMs() > 0) {
    hold.hidden = false;
    sayWhetherHeld();
    hold.addEventListener("click", () => {
      held = !held;
      sessionStorage.setItem("held", held ? "yes" : "no");
      sayWhetherHeld();
      if (held) {
        clearTimeout(timer);
      } else {
        look();
      }
    });
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) {
        clearTimeout(timer);
      } else if (!held) {
        look();
      }
    });
    plan();
  }
})();
