// The picture to begin with: dropped, pasted, chosen from a file, or one of the examples.
window.studio.kinds.source = (element, trigger) => {
  const refuse = (text) => trigger("refused", { text });

  const send = async (file) => {
    if (!file) return;
    const most = Number(window.studio.holder().dataset.bytes);
    if (file.size > most) {
      refuse(`${file.name} has ${(file.size / 1e6).toFixed(1)} MB, and this studio takes up to ${most / 1e6}.`);
      return;
    }
    element.querySelector(".drop")?.classList.add("busy");
    const answer = await window.studio.send("upload", file);
    element.querySelector(".drop")?.classList.remove("busy");
    if (answer.error) refuse(answer.error);
    else trigger("picture", { name: answer.name, file: file.name ?? "" });
  };

  element.addEventListener("change", (event) => {
    if (!event.target.matches("input[type=file]")) return;
    send(event.target.files[0]);
    event.target.value = ""; // so that the same file can be chosen again
  });
  element.addEventListener("click", (event) => {
    const example = event.target.closest("[data-example]");
    if (example) trigger("example", { index: Number(example.dataset.example) });
  });
  for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(name, (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      const over = name === "dragenter" || name === "dragover";
      element.querySelector(".drop")?.classList.toggle("over", over);
      if (name === "drop") send(event.dataTransfer.files[0]);
    });
  }
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((item) => item.type.startsWith("image/"));
    if (!file) return;
    event.preventDefault();
    send(file);
  });
};

window.studio.kinds.guesses = (element, trigger) => {
  element.addEventListener("click", (event) => {
    const chip = event.target.closest("[data-caption]");
    if (chip) trigger("guess", { caption: chip.dataset.caption });
  });
};
