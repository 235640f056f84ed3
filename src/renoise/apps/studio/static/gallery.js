// The history and the last edits: choosing one, and going on from one.
for (const name of ["history", "grid", "base"]) {
  window.studio.kinds[name] = (element, trigger) => {
    element.addEventListener("click", (event) => {
      const tile = event.target.closest("[data-choose]");
      const place = event.target.closest("[data-base]");
      if (tile) trigger("choose", { number: tile.dataset.choose });
      else if (place) trigger("base", { number: place.getAttribute("aria-pressed") === "true" ? "none" : place.dataset.base });
    });
    // left and right go from picture to picture
    element.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const tiles = [...element.querySelectorAll("[data-choose]")];
      const at = tiles.indexOf(document.activeElement);
      if (!step || at < 0) return;
      event.preventDefault();
      tiles[at + step]?.focus();
    });
  };
}
