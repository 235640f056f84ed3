// The before-and-after slider. The line is a range input over the pictures, so that it works by mouse, touch and keys.
window.studio.kinds.compare = (element) => {
  const kept = { split: 50, left: null };

  const build = () => {
    const place = element.querySelector(".compare");
    if (!place) return;
    // in a narrow window the picture is far from the button that was pressed
    const fresh = place.dataset.right !== kept.right;
    if (fresh && kept.right !== undefined && window.innerWidth <= 760) element.scrollIntoView({ block: "center" });
    kept.right = place.dataset.right;
    const pictures = JSON.parse(place.dataset.pictures);
    const named = (id) => pictures.find((picture) => picture.id === id);
    const left = named(kept.left) ? kept.left : place.dataset.left;
    const options = pictures.map(({ id, title, note }) => {
      const text = note ? `${title}: ${note}` : title;
      return `<option value="${id}">${text.replaceAll("&", "&amp;").replaceAll("<", "&lt;")}</option>`;
    });
    place.innerHTML = `
      <div class="frame">
        <img class="under" draggable="false"><img class="over" draggable="false">
        <span class="line" aria-hidden="true"></span>
        <span class="tag l" aria-hidden="true"></span><span class="tag r" aria-hidden="true"></span>
        <input type="range" min="0" max="100" step="0.5" aria-label="How much of the left picture is shown">
      </div>
      <div class="pair">
        <label>left <select data-side="left">${options.join("")}</select></label>
        <button type="button" aria-label="Swap left and right" title="Swap left and right">⇄</button>
        <label>right <select data-side="right">${options.join("")}</select></label>
      </div>`;
    const frame = place.querySelector(".frame");
    const [under, over] = place.querySelectorAll("img");
    const [range, line] = [place.querySelector("input"), place.querySelector(".line")];
    const [first, second] = place.querySelectorAll("select");

    const split = () => {
      kept.split = Number(range.value);
      over.style.clipPath = `inset(0 ${100 - kept.split}% 0 0)`;
      line.style.left = `${kept.split}%`;
      range.setAttribute("aria-valuetext", `${Math.round(kept.split)} percent of the left picture`);
    };
    const show = () => {
      kept.left = first.value;
      for (const [image, select, tag] of [[over, first, ".tag.l"], [under, second, ".tag.r"]]) {
        const picture = named(select.value);
        image.src = picture.url;
        image.alt = `${picture.title}. ${picture.note}`;
        place.querySelector(tag).textContent = picture.title;
      }
    };
    // small pictures are shown with their pixels as squares
    under.addEventListener("load", () => {
      frame.style.aspectRatio = `${under.naturalWidth} / ${under.naturalHeight}`;
      frame.style.setProperty("--ratio", under.naturalWidth / under.naturalHeight);
      frame.classList.toggle("small", under.naturalWidth < 300);
    });
    range.value = kept.split;
    first.value = left;
    second.value = named(place.dataset.right) ? place.dataset.right : pictures.at(-1).id;
    range.addEventListener("input", split);
    first.addEventListener("change", show);
    second.addEventListener("change", show);
    place.querySelector(".pair button").addEventListener("click", () => {
      [first.value, second.value] = [second.value, first.value];
      show();
    });
    split();
    show();
  };
  return build;
};
