// What the parts of the page share. Each part registers itself in `kinds`; Python mounts it by name.
window.studio = {
  kinds: {},
  onTheWay: Promise.resolve(),

  // kind(element, trigger) prepares a part once, and returns what is to be done whenever Python has changed it
  mount(name, element, trigger, watch) {
    const refresh = this.kinds[name]?.(element, trigger);
    if (!refresh) return;
    refresh();
    watch("value", refresh);
  },

  holder: () => document.getElementById("studio-key"),
  address: (name) => `/studio/${window.studio.holder().dataset.key}/${name}`,

  // sends bytes to the studio's own address; what comes back is an object, with `error` where it was refused
  async send(name, body) {
    try {
      const answer = await fetch(this.address(name), { method: "POST", body });
      return await answer.json();
    } catch {
      return { error: "The studio cannot be reached. Is it still running?" };
    }
  },

  // resolves when everything that was painted has reached the studio
  arrived: () => window.studio.onTheWay,

  // which start of the server this tab saw last
  seen: () => sessionStorage.getItem("renoise-run") ?? "",
};

window.studio.kinds.key = () => () => {
  const run = window.studio.holder()?.dataset.run;
  if (run) sessionStorage.setItem("renoise-run", run);
};

// the style chips, the suggestions while one types, and the copy buttons
window.studio.kinds.styles = (element) => {
  const words = () => JSON.parse(element.querySelector("[data-words]")?.dataset.words ?? "null");
  const write = (field, text) => {
    field.value = text;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const restyled = (line, style) => `${line.split(/,(?=[^,]*style\s*$)/)[0].trim()}, ${style} style`;
  element.addEventListener("click", (event) => {
    const chip = event.target.closest("[data-style]");
    const field = document.querySelector("#prompts textarea");
    if (!chip || !field) return;
    const source = document.querySelector("#caption input, #caption textarea")?.value ?? "";
    const lines = (field.value.trim() || source).split("\n").filter((line) => line.trim());
    write(field, lines.map((line) => restyled(line, chip.dataset.style)).join("\n"));
    field.focus();
  });
  document.addEventListener("focusin", (event) => {
    if (event.target.matches?.("#caption input")) event.target.setAttribute("list", "known-captions");
  });
  document.addEventListener("input", (event) => {
    const known = event.target.matches?.("#caption input") && words();
    if (!known) return;
    const [concept, rest] = event.target.value.split(",");
    const told = rest === undefined
      ? known.concepts.filter((name) => name.includes(concept.trim())).slice(0, 12)
      : known.styles.map((style) => `${concept}, ${style} style`);
    element.querySelector("datalist").replaceChildren(
      ...told.map((value) => Object.assign(document.createElement("option"), { value })),
    );
  });
};

window.studio.kinds.take = (element) => {
  element.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const text = button.closest(".code").querySelector("pre");
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
    } catch {
      window.getSelection().selectAllChildren(text);
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
};
