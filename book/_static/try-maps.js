// The network in the page: pictures in, then the maps and class scores of each iteration.
(() => {
  "use strict";
  const root = document.getElementById("try-network");
  if (!root) return;
  const { network, pictures } = window.thriftyData;
  const run = window.thrifty.load(network);
  const SIDE = 32, SHOWN = 8; // pixels of a picture; channels at a time
  const find = (selector) => root.querySelector(selector);
  const make = (tag, properties = {}) => Object.assign(document.createElement(tag), properties);
  const [picture, slider, channels, play] = ["#try-picture", "#try-t", "#try-channels", ".try-time button"].map(find);
  const pen = picture.getContext("2d", { willReadFrequently: true });
  let states = []; // x_0, ..., x_T of the picture
  let followed = 0; // the channel whose maps of all iterations are shown

  function softmax(scores) {
    const largest = Math.max(...scores), powers = scores.map((score) => Math.exp(score - largest));
    const sum = powers.reduce((a, b) => a + b);
    return powers.map((power) => power / sum);
  }

  function pixelsOf(base64) {
    const rgb = window.thrifty.bytes(base64), image = new ImageData(SIDE, SIDE);
    for (let i = 0; i < SIDE * SIDE; i++) image.data.set([...rgb.subarray(3 * i, 3 * i + 3), 255], 4 * i);
    return image;
  }

  // Strength of colour is transparency, so that zero is the page's own background, light or dark; by the root, or small
  // values could not be seen.
  function paintMap(canvas, t, channel) {
    const { map, height, width, largest } = states[t];
    Object.assign(canvas, { width, height });
    const image = new ImageData(width, height), values = map.subarray(channel * height * width, (channel + 1) * height * width);
    values.forEach((value, i) => {
      const colour = value > 0 ? [226, 106, 10] : [43, 125, 209];
      image.data.set([...colour, 255 * Math.sqrt(Math.abs(value) / largest)], 4 * i);
    });
    canvas.getContext("2d").putImageData(image, 0, 0);
    const [low, high] = [Math.min(...values), Math.max(...values)].map((value) => value.toFixed(2));
    canvas.setAttribute("aria-label", `Channel ${channel} at iteration ${t}: ${height} by ${width} values from ${low} to ${high}`);
  }

  function show() {
    const t = Number(slider.value), state = states[t], { filters, iterations } = network.options;
    const last = t === iterations, fractions = softmax(state.scores);
    const top = fractions.indexOf(Math.max(...fractions));
    [...find(".try-bars").children].forEach((row, k) => {
      row.classList.toggle("try-top", k === top);
      row.querySelector("i").style.width = `${100 * fractions[k]}%`;
      row.querySelector("b").textContent = `${(100 * fractions[k]).toFixed(0)} %`;
    });
    const uses = t === 1 ? "used once" : `used ${t} times`;
    find(".try-time output").textContent = `${t} of ${iterations}`;
    slider.setAttribute("aria-valuetext", `${t} of ${iterations}`);
    find(".try-which span").textContent = `of ${filters}; each ${state.height}x${state.width}, the kernel ${t ? uses : "not used yet"}`;
    find(".try-said").textContent = `${last ? "It takes this for" : "Stopped here it would say"}: ${network.classes[top]}.`;
    [...find(".try-maps").children].forEach((button, i) => {
      const channel = Number(channels.value) + i;
      button.hidden = channel >= filters;
      button.setAttribute("aria-pressed", String(channel === followed));
      if (button.hidden) return;
      paintMap(button.firstChild, t, channel);
      button.lastChild.textContent = channel;
    });
    find(".try-which p").textContent = `Channel ${followed} after each iteration:`;
    [...find(".try-strip").children].forEach((figure, i) => {
      paintMap(figure.firstChild, i, followed);
      figure.classList.toggle("try-now", i === t);
    });
  }

  function look() {
    const { data } = pen.getImageData(0, 0, SIDE, SIDE);
    states = run(data.filter((_, i) => i % 4 < 3)); // without transparency
    for (const state of states) state.largest = state.map.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-9);
    show();
  }

  function choose(image, title, button) {
    pen.putImageData(image, 0, 0);
    picture.setAttribute("aria-label", `Picture: ${title}`);
    root.querySelectorAll(".try-pictures button").forEach((each) => each.setAttribute("aria-pressed", String(each === button)));
    look();
  }

  // The reader's picture: the square in its middle, made small by the browser. It stays in this page.
  async function open(file) {
    try {
      const bitmap = await createImageBitmap(file), side = Math.min(bitmap.width, bitmap.height);
      const small = make("canvas", { width: SIDE, height: SIDE }).getContext("2d");
      Object.assign(small, { imageSmoothingQuality: "high", fillStyle: "#fff" });
      small.fillRect(0, 0, SIDE, SIDE); // under a transparent picture
      small.drawImage(bitmap, (bitmap.width - side) / 2, (bitmap.height - side) / 2, side, side, 0, 0, SIDE, SIDE);
      choose(small.getImageData(0, 0, SIDE, SIDE), file.name);
    } catch {
      find(".try-said").textContent = `${file.name}: is no picture that this browser can read.`;
    }
  }

  function paint(event) {
    const box = picture.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top].map((at) => Math.floor((at / box.width) * SIDE));
    pen.fillStyle = find("[type=color]").value;
    pen.fillRect(x - 1, y - 1, 3, 3);
    look();
  }

  const stop = () => {
    clearInterval(Number(play.dataset.timer));
    play.textContent = "Play";
    play.setAttribute("aria-pressed", "false");
  };
  play.addEventListener("click", () => {
    if (play.getAttribute("aria-pressed") === "true") return stop();
    if (slider.value === slider.max) slider.value = 0;
    play.textContent = "Pause";
    play.setAttribute("aria-pressed", "true");
    show();
    play.dataset.timer = setInterval(() => {
      slider.stepUp();
      show();
      if (slider.value === slider.max) stop();
    }, 350);
  });
  slider.addEventListener("input", () => (stop(), show()));
  channels.addEventListener("input", () => ((followed = Number(channels.value)), show()));
  find("[type=file]").addEventListener("change", ({ target }) => target.files.length && open(target.files[0]));
  picture.addEventListener("pointerdown", (event) => (picture.setPointerCapture(event.pointerId), paint(event)));
  picture.addEventListener("pointermove", (event) => event.buttons && paint(event));

  const bar = (name) => `<span>${name}</span><em aria-hidden="true"><i></i></em><b></b>`; // names are the data set's own
  find(".try-bars").append(...network.classes.map((name) => make("li", { innerHTML: bar(name) })));
  const framed = (tag, properties, caption) => {
    const frame = make(tag, properties), canvas = make("canvas");
    canvas.setAttribute("role", "img");
    frame.append(canvas, make(tag === "figure" ? "figcaption" : "span", { textContent: caption }));
    return frame;
  };
  for (let i = 0; i < SHOWN; i++) {
    const follow = () => ((followed = Number(channels.value) + i), show());
    find(".try-maps").append(framed("button", { type: "button", onclick: follow }, i));
  }
  for (let t = 0; t <= network.options.iterations; t++) {
    const go = () => (stop(), (slider.value = t), show()); // with the keyboard the slider does it
    find(".try-strip").append(framed("figure", { onclick: go }, t));
  }
  Object.assign(slider, { max: network.options.iterations, value: network.options.iterations });
  const buttons = Object.entries(pictures).map(([title, pixels]) => {
    const button = make("button", { type: "button", title }), small = make("canvas", { width: SIDE, height: SIDE });
    small.getContext("2d").putImageData(pixelsOf(pixels), 0, 0);
    button.setAttribute("aria-label", title);
    button.append(small);
    button.addEventListener("click", () => choose(pixelsOf(pixels), title, button));
    return button;
  });
  find(".try-pictures").append(...buttons);
  const { filters } = network.options;
  for (let first = 0; first < filters; first += SHOWN) {
    channels.append(make("option", { value: first, textContent: `${first} to ${Math.min(first + SHOWN, filters) - 1}` }));
  }
  root.hidden = false;
  buttons[0].click();
})();
