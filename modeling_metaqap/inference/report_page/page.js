"use strict";
(() => {
  const PAGE = 60;
  const STRIP = 6;
  const REASONS = 50;

  const byId = (id) => document.getElementById(id);
  const settings = JSON.parse(byId("settings").textContent);
  const rows = [];
  for (const part of document.querySelectorAll("script.rows")) {
    for (const row of JSON.parse(part.textContent)) rows.push(row);
    part.remove(); // the text is not needed twice
  }
  rows.forEach((row, index) => {
    row.index = index;
    row.full = nameOf(row);
    row.key = row.full.toLowerCase();
    row.isScored = row.quality !== undefined;
    row.isJudged = row.grade !== undefined; // otherwise there is too little to see
    row.value = row.isJudged ? Number(row.shown) : NaN; // as people see it
  });

  function nameOf(row) {
    return row.folder === "" ? row.file : row.folder + row.separator + row.file;
  }

  // Text is only ever set as text, never parsed as HTML.
  function element(tag, classes, text) {
    const made = document.createElement(tag);
    if (classes) made.className = classes;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  const bytes = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const colors = bytes(settings.colors);

  function paint(canvas) {
    const row = rows[canvas.dataset.row];
    if (!row.map || canvas.dataset.isPainted) return;
    canvas.dataset.isPainted = "yes";
    const [grid, width, height] = row.map;
    const small = document.createElement("canvas");
    [small.width, small.height] = [width, height];
    const pixels = new ImageData(width, height);
    bytes(grid).forEach((value, index) => {
      for (let channel = 0; channel < 3; channel++) pixels.data[4 * index + channel] = colors[3 * value + channel];
      pixels.data[4 * index + 3] = 255;
    });
    small.getContext("2d").putImageData(pixels, 0, 0);
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
  }

  function pictureOf(row) {
    const box = element(row.picture && row.map ? "button" : "div", "picture");
    if (!row.picture) {
      box.append(element("span", "", "no picture"));
      return box;
    }
    const [data, width, height] = row.picture;
    const image = element("img");
    image.loading = "lazy";
    image.decoding = "async";
    [image.width, image.height] = [width, height];
    image.src = "data:image/webp;base64," + data;
    image.alt = "";
    box.append(image);
    if (row.map) {
      box.type = "button";
      box.setAttribute("aria-label", "Quality map of " + row.file);
      box.setAttribute("aria-pressed", "false");
      const canvas = element("canvas");
      [canvas.width, canvas.height] = [width, height];
      canvas.dataset.row = row.index;
      canvas.setAttribute("aria-hidden", "true");
      box.append(canvas);
      for (const event of ["pointerenter", "focus"]) box.addEventListener(event, () => paint(canvas));
      box.addEventListener("click", () => press(box, box.getAttribute("aria-pressed") !== "true"));
    }
    return box;
  }

  function press(box, isPressed) {
    box.setAttribute("aria-pressed", String(isPressed));
    if (isPressed) paint(box.querySelector("canvas"));
  }

  const share = (value) => 100 * Math.min(1, Math.max(0, value)) + "%";

  const onScale = (quality) => settings.scale[0] + (settings.scale[1] - settings.scale[0]) * quality;
  const shownOf = (quality) => onScale(quality).toFixed(2);

  function scaleOf(row) {
    const scale = element("div", "scale");
    scale.setAttribute("aria-hidden", "true");
    if (row.low !== undefined) {
      const band = element("i");
      band.style.left = share(row.low);
      band.style.right = share(1 - row.high);
      scale.append(band);
    }
    const dot = element("u");
    dot.style.left = share(row.quality);
    dot.style.background = row.color;
    scale.append(dot);
    return scale;
  }

  function cardOf(row) {
    const card = element("li", "card");
    const text = element("div", "text");
    card.append(pictureOf(row), text);
    if (row.isScored) {
      const score = element("p", "score");
      score.append(element("b", "", row.shown), element("span", "", row.grade || ""));
      text.append(score, scaleOf(row));
    }
    if (row.low !== undefined) {
      const interval = element("p", "faint");
      interval.title = settings.interval;
      interval.append(element("span", "unseen", settings.interval + " "), `${shownOf(row.low)} to ${shownOf(row.high)}`);
      text.append(interval);
    }
    const title = element("h3", "");
    // A long name breaks behind these signs rather than within a word.
    for (const part of row.file.split(/(?<=[_-])/)) title.append(part, element("wbr"));
    title.title = row.full;
    text.append(title);
    if (row.folder && folders.size > 1) {
      const folder = element("p", "folder faint", row.folder);
      folder.title = row.folder;
      text.append(folder);
    }
    if (row.error) text.append(element("p", "error", row.error));
    if (row.warning) text.append(element("p", "warning", row.warning));
    if (row.unlike) text.append(element("p", "warning", row.unlike));
    if (row.distortion) {
      text.append(element("p", "faint", `Looks like ${row.distortion} (${Math.round(100 * row.probability)}\u00a0%)`));
    }
    if (row.width) {
      const [width, height] = [row.width, row.height].map((side) => side.toLocaleString("en"));
      text.append(element("p", "faint", `${width} × ${height} pixels`));
    }
    return card;
  }

  // What can be chosen.

  const counted = (values) => {
    const counts = new Map();
    for (const value of values) counts.set(value, (counts.get(value) || 0) + 1);
    return counts;
  };
  const folders = counted(rows.map((row) => row.folder));
  const distortions = counted(rows.filter((row) => row.distortion).map((row) => row.distortion));
  const isWithin = (folder, above) => folder === above || folder.startsWith(above + "/") || folder.startsWith(above + "::");

  function fill(select, names, countOf) {
    for (const name of [...names].sort(compareText)) {
      const option = element("option", "", `${name} (${countOf(name).toLocaleString("en")})`);
      option.value = name;
      select.append(option);
    }
  }
  const { compare: compareText } = new Intl.Collator("en", { numeric: true });
  fill(byId("folder"), [...folders.keys()].filter((name) => name), (name) =>
    [...folders].reduce((sum, [folder, count]) => sum + (isWithin(folder, name) ? count : 0), 0));
  fill(byId("distortion"), distortions.keys(), (name) => distortions.get(name));
  byId("folder-field").hidden = folders.size < 2;
  byId("distortion-field").hidden = distortions.size === 0;
  byId("order").querySelector("[value=distortion]").hidden = distortions.size === 0;
  byId("show-field").hidden = !rows.some((row) => row.error || row.warning || row.unlike);

  // Sorting: what has no score comes last, and equals keep the order that they were given in.

  const byQuality = (sign) => (a, b) => b.isScored - a.isScored || (a.isScored && sign * (a.quality - b.quality)) || a.index - b.index;
  const ORDERS = {
    worst: byQuality(1),
    best: byQuality(-1),
    name: (a, b) => compareText(a.file, b.file) || compareText(a.folder, b.folder) || a.index - b.index,
    folder: (a, b) => compareText(a.folder, b.folder) || compareText(a.file, b.file) || a.index - b.index,
    distortion: (a, b) => !a.distortion - !b.distortion || compareText(a.distortion || "", b.distortion || "") || b.probability - a.probability || a.index - b.index,
    input: (a, b) => a.index - b.index,
  };

  const SHOWN = {
    "": () => true,
    scored: (row) => row.isScored,
    warned: (row) => row.warning !== undefined,
    unlike: (row) => row.unlike !== undefined,
    failed: (row) => row.error !== undefined,
  };

  let found = [];
  let page = 0;

  function update() {
    const words = byId("name").value.toLowerCase().trim();
    const [folder, distortion] = [byId("folder").value, byId("distortion").value];
    const [low, high] = ["low", "high"].map((id) => byId(id).value).map((text) => (text === "" ? null : Number(text)));
    const isShown = SHOWN[byId("show").value];
    found = rows.filter((row) =>
      (words === "" || row.key.includes(words))
      && (folder === "" || isWithin(row.folder, folder))
      && (distortion === "" || row.distortion === distortion)
      && (low === null || row.value >= low - 1e-9)
      && (high === null || row.value <= high + 1e-9)
      && isShown(row));
    found.sort(ORDERS[byId("order").value]);
    page = 0;
    drawBars();
    draw();
  }

  function drawBars() {
    const counts = new Array(settings.bins).fill(0);
    for (const row of found) if (row.isJudged) counts[row.bin]++;
    for (const bar of document.querySelectorAll("g[data-bin]")) {
      const shown = bar.querySelector(".shown");
      const height = counts[bar.dataset.bin] * settings.unit;
      shown.setAttribute("y", 100 - height);
      shown.setAttribute("height", height);
    }
  }

  function draw() {
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    const cards = found.slice(PAGE * page, PAGE * (page + 1)).map(cardOf);
    byId("photos").replaceChildren(...cards);
    if (!cards.length) byId("photos").append(element("li", "nothing", "No photograph fits. Clear the filters to see all."));
    showMaps(byId("photos"));
    const all = rows.length.toLocaleString("en");
    byId("found").textContent = found.length === rows.length
      ? `${all} photographs` : `${found.length.toLocaleString("en")} of ${all} photographs`;
    document.querySelector("nav").hidden = pages < 2;
    byId("page").textContent = `Page ${page + 1} of ${pages}`;
    for (const id of ["first", "previous"]) byId(id).disabled = page === 0;
    for (const id of ["next", "last"]) byId(id).disabled = page === pages - 1;
  }

  function showMaps(list) {
    const isOn = byId("maps") !== null && byId("maps").checked;
    for (const box of list.querySelectorAll("button.picture")) press(box, isOn);
  }

  function turnTo(number) {
    page = number;
    draw();
    byId("all-title").focus({ preventScroll: true });
    byId("photos").scrollIntoView();
  }

  // What people do.

  let timer;
  byId("name").addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(update, 150);
  });
  for (const id of ["folder", "distortion", "show", "order"]) byId(id).addEventListener("change", update);
  for (const id of ["low", "high"]) byId(id).addEventListener("input", update);
  document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  if (byId("maps")) {
    byId("maps").addEventListener("change", () => document.querySelectorAll("ul.photos").forEach(showMaps));
  }
  byId("first").addEventListener("click", () => turnTo(0));
  byId("previous").addEventListener("click", () => turnTo(page - 1));
  byId("next").addEventListener("click", () => turnTo(page + 1));
  byId("last").addEventListener("click", () => turnTo(Math.ceil(found.length / PAGE) - 1));

  function clearFilters() {
    for (const id of ["name", "folder", "distortion", "low", "high", "show"]) byId(id).value = "";
  }
  byId("clear").addEventListener("click", () => {
    clearFilters();
    update();
  });

  function showRange(low, high) {
    byId("low").value = low === null ? "" : low.toFixed(2);
    byId("high").value = high === null ? "" : high.toFixed(2);
    byId("show").value = ""; // what could not be read has no score
    update();
  }
  // The outermost bars and grades hold what lies beyond, too.
  const range = (number, count) => showRange(
    number === 0 ? null : onScale(number / count), number === count - 1 ? null : onScale((number + 1) / count) - 0.01);
  for (const bar of document.querySelectorAll("g[data-bin]")) {
    bar.addEventListener("click", () => range(Number(bar.dataset.bin), settings.bins));
  }
  for (const button of document.querySelectorAll("[data-grade]")) {
    button.addEventListener("click", () => {
      range(Number(button.dataset.grade), 5);
      byId("all").scrollIntoView();
    });
  }
  function showOnly(kind) {
    clearFilters();
    byId("show").value = kind;
    update();
    byId("all").scrollIntoView();
    byId("all-title").focus({ preventScroll: true });
  }
  for (const button of document.querySelectorAll("[data-show]")) {
    button.addEventListener("click", () => showOnly(button.dataset.show));
  }

  byId("save").addEventListener("click", () => {
    const link = element("a");
    link.download = "photographs.txt";
    link.href = URL.createObjectURL(new Blob(found.map((row) => row.full + "\n"), { type: "text/plain" }));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });

  // The parts that do not change.

  const judged = rows.filter((row) => row.isJudged).sort(ORDERS.worst);
  const most = Math.min(STRIP, Math.floor(judged.length / 2));
  if (most > 1) {
    const best = judged.slice(-most).reverse();
    for (const [id, part] of [["worst", judged.slice(0, most)], ["best", best]]) {
      byId(id).hidden = false;
      byId(id).querySelector("ul").append(...part.map(cardOf));
    }
  }
  const remarkable = rows.filter((row) => row.error || row.warning);
  if (remarkable.length) {
    byId("attention").hidden = false;
    const list = byId("attention").querySelector("ul");
    for (const row of remarkable.slice(0, REASONS)) {
      const item = element("li", row.error ? "failed" : "warned", row.full + ": ");
      item.append(element("span", "", row.error || row.warning));
      list.append(item);
    }
    if (remarkable.length > REASONS) {
      list.append(element("li", "faint", `and ${(remarkable.length - REASONS).toLocaleString("en")} more; choose them at “Show”.`));
    }
  }
  // A browser keeps what was chosen when a page is loaded again.
  update();
})();
