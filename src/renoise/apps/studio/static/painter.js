// The mask: a canvas in the pixels of the picture, over the picture. White is where it shall change.
window.studio.kinds.painter = (element, trigger) => {
  const undone = [];
  let mask = null; // kept while the page is drawn anew
  let under = "";

  const context = (canvas) => canvas.getContext("2d", { willReadFrequently: true });

  const upload = () => {
    const blob = new Promise((resolve) => mask.toBlob(resolve, "image/png"));
    window.studio.onTheWay = window.studio.onTheWay.then(async () => window.studio.send("mask", await blob));
    element.dispatchEvent(new CustomEvent("mask-changed"));
  };

  const build = () => {
    const place = element.querySelector(".painter");
    if (!place) return;
    const canvas = place.querySelector("canvas");
    const picture = new Image();
    const brush = { size: 12, erase: false, x: 0.5, y: 0.5, down: false, shown: false };

    const draw = () => {
      const sheet = context(canvas);
      const [width, height] = [canvas.width, canvas.height];
      sheet.imageSmoothingEnabled = picture.naturalWidth >= 300;
      sheet.clearRect(0, 0, width, height);
      sheet.drawImage(picture, 0, 0, width, height);
      const tint = document.createElement("canvas");
      [tint.width, tint.height] = [mask.width, mask.height];
      const wash = context(tint);
      wash.drawImage(mask, 0, 0);
      const data = wash.getImageData(0, 0, tint.width, tint.height);
      for (let at = 0; at < data.data.length; at += 4) {
        data.data[at + 3] = data.data[at] * 0.6;
        [data.data[at], data.data[at + 1], data.data[at + 2]] = [13, 148, 136];
      }
      wash.putImageData(data, 0, 0);
      sheet.drawImage(tint, 0, 0, width, height);
      if (brush.shown) {
        sheet.lineWidth = 2;
        sheet.strokeStyle = brush.erase ? "#b91c1c" : "#0f766e";
        sheet.beginPath();
        sheet.arc(brush.x * width, brush.y * height, Math.max(3, (brush.size / 200) * width), 0, 7);
        sheet.stroke();
      }
    };
    const keep = () => {
      const copy = document.createElement("canvas");
      [copy.width, copy.height] = [mask.width, mask.height];
      context(copy).drawImage(mask, 0, 0);
      undone.push(copy);
      if (undone.length > 40) undone.shift();
    };
    const put = (source) => {
      const sheet = context(mask);
      sheet.globalCompositeOperation = "source-over";
      sheet.fillStyle = "#000";
      sheet.fillRect(0, 0, mask.width, mask.height);
      if (source) sheet.drawImage(source, 0, 0, mask.width, mask.height);
    };
    const dab = (x, y, fromX = x, fromY = y) => {
      const sheet = context(mask);
      sheet.strokeStyle = sheet.fillStyle = brush.erase ? "#000" : "#fff";
      sheet.lineCap = "round";
      sheet.lineWidth = Math.max(1, (brush.size / 100) * mask.width);
      sheet.beginPath();
      sheet.moveTo(fromX * mask.width, fromY * mask.height);
      sheet.lineTo(x * mask.width + 0.01, y * mask.height);
      sheet.stroke();
    };
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    };
    const changed = () => { draw(); upload(); };

    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      keep();
      [brush.x, brush.y] = at(event);
      brush.down = brush.shown = true;
      dab(brush.x, brush.y);
      draw();
    });
    canvas.addEventListener("pointermove", (event) => {
      const [x, y] = at(event);
      if (brush.down) dab(x, y, brush.x, brush.y);
      [brush.x, brush.y, brush.shown] = [x, y, true];
      draw();
    });
    const up = () => { if (brush.down) { brush.down = false; changed(); } };
    canvas.addEventListener("pointerup", up);
    canvas.addEventListener("pointercancel", up);
    canvas.addEventListener("pointerleave", () => { if (!brush.down) { brush.shown = false; draw(); } });
    canvas.addEventListener("focus", () => { brush.shown = true; draw(); });
    canvas.addEventListener("blur", () => { brush.shown = false; draw(); });
    canvas.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      const key = event.key.toLowerCase();
      if (move) {
        const from = [brush.x, brush.y];
        brush.x = Math.min(1, Math.max(0, brush.x + move[0] * 0.03));
        brush.y = Math.min(1, Math.max(0, brush.y + move[1] * 0.03));
        if (event.shiftKey) { keep(); dab(brush.x, brush.y, ...from); upload(); }
      } else if (key === " ") { keep(); dab(brush.x, brush.y); upload(); }
      else if (key === "e") press("erase");
      else if (key === "z") press("undo");
      else return;
      event.preventDefault();
      draw();
    });

    const press = async (tool) => {
      if (tool === "erase") {
        brush.erase = !brush.erase;
        place.querySelector("[data-tool=erase]").setAttribute("aria-pressed", brush.erase);
        return draw();
      }
      if (tool === "undo") {
        const before = undone.pop();
        if (before) put(before);
      } else {
        keep();
        if (tool === "clear") put(null);
        if (tool === "invert") {
          const sheet = context(mask);
          sheet.globalCompositeOperation = "difference";
          sheet.fillStyle = "#fff";
          sheet.fillRect(0, 0, mask.width, mask.height);
          sheet.globalCompositeOperation = "source-over";
        }
        if (tool === "found") {
          const found = new Image();
          found.src = place.dataset.found;
          await found.decode();
          put(found);
        }
      }
      changed();
    };
    place.querySelector(".tools").addEventListener("click", (event) => {
      const tool = event.target.closest("button")?.dataset.tool;
      if (tool) press(tool);
    });
    place.querySelector("[data-tool=size]").addEventListener("input", (event) => {
      brush.size = Number(event.target.value);
      draw();
    });

    picture.addEventListener("load", () => {
      const [width, height] = [picture.naturalWidth, picture.naturalHeight];
      if (!mask || mask.width !== width || mask.height !== height) {
        mask = document.createElement("canvas");
        [mask.width, mask.height] = [width, height];
        undone.length = 0;
        put(null);
      }
      const scale = Math.max(1, Math.ceil(320 / width));
      [canvas.width, canvas.height] = [width * scale, height * scale];
      draw();
    });
    picture.src = place.dataset.under;
    const inversion = place.dataset.inversion;
    if (under !== inversion && mask) { put(null); undone.length = 0; upload(); }
    under = inversion;
  };
  return build;
};
