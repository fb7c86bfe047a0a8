// Buttons that copy the command beside them. Without this script they are not shown, and a click selects the command.
"use strict";

(() => {
  const SHOWN_MS = 2000;

  document.documentElement.classList.add("scripted");

  async function copy(code) {
    const text = code.textContent;
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Browsers offer the clipboard over TLS and on loopback only.
      getSelection().selectAllChildren(code);
      return document.execCommand("copy");
    }
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button.copy");
    const code = button && button.parentElement.querySelector("code");
    if (!code) {
      return;
    }
    const done = await copy(code);
    const said = document.getElementById("copied");
    said.textContent = done ? "Copied" : "Select the command and copy it";
    button.textContent = done ? "Copied" : "Selected";
    setTimeout(() => {
      button.textContent = "Copy";
      said.textContent = "";
    }, SHOWN_MS);
  });
})();
