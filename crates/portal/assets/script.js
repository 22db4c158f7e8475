// What the admin pages do beyond links and forms: the menu on a phone, `/` for the search field,
// copying, and live blocks. Without script everything but liveness works all the same.
"use strict";
(() => {
  document.documentElement.classList.add("script");

  const menu = document.getElementById("menu");
  const button = document.querySelector(".menu-button");
  const setMenu = (open) => {
    menu.classList.toggle("open", open);
    button.setAttribute("aria-expanded", String(open));
  };
  button.addEventListener("click", () => setMenu(!menu.classList.contains("open")));

  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest("input, textarea, select, [contenteditable]");
    if (event.key === "Escape" && menu.classList.contains("open")) {
      setMenu(false);
      button.focus();
    }
    if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
      const search = document.getElementById("q");
      if (search) {
        event.preventDefault();
        search.focus();
        search.select();
      }
    }
  });

  document.addEventListener("click", async (event) => {
    const copy = event.target.closest("[data-copy]");
    if (!copy) return;
    const code = copy.closest(".copy").querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      copy.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      copy.textContent = "Selected";
    }
    setTimeout(() => { copy.textContent = "Copy"; }, 2000);
  });

  // Live blocks are fetched from their own address whenever the portal says that something
  // happened. One fetch at a time; what happens meanwhile leads to one more.
  const banner = document.getElementById("connection");
  const say = (text) => { banner.textContent = text; banner.hidden = text === ""; };
  let isFetching = false;
  let isStale = false;
  const refresh = async () => {
    const blocks = document.getElementById("blocks");
    if (!blocks || !blocks.dataset.live || document.hidden) return;
    if (isFetching) { isStale = true; return; }
    isFetching = true;
    try {
      const search = document.getElementById("q");
      const from = search ? location.href : blocks.dataset.live;
      const answer = await fetch(from, { headers: { "HX-Request": "true" }, redirect: "error" });
      if (answer.ok) {
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const fresh = page.getElementById("blocks");
        if (fresh && fresh.innerHTML !== blocks.innerHTML) {
          const focused = document.activeElement && blocks.contains(document.activeElement)
            ? document.activeElement.id : "";
          blocks.replaceChildren(...fresh.childNodes);
          if (focused) document.getElementById(focused)?.focus();
        }
      }
    } catch { /* The stream of events says when the portal is away. */ }
    isFetching = false;
    if (isStale) { isStale = false; refresh(); }
  };
  document.addEventListener("visibilitychange", refresh);

  if (document.querySelector("[data-live]")) {
    const events = new EventSource(document.body.dataset.events);
    events.addEventListener("change", refresh);
    events.addEventListener("end", () => {
      events.close();
      say("Your session has ended. Reload the page to sign in again.");
    });
    events.addEventListener("open", () => { say(""); refresh(); });
    events.addEventListener("error", () => {
      if (events.readyState === EventSource.CLOSED) {
        say("This page is not live any more. Reload it to see the newest state.");
      } else {
        say("The portal is out of reach. What you see may be out of date.");
      }
    });
    addEventListener("pagehide", () => events.close());
  }
})();
