// Count it: what a ThriftyNet of any size costs, by the closed form of thriftylib's cost; tested equal to it over a grid.
window.thrifty = window.thrifty || {};
(() => {
  "use strict";

  // Parameters by layer, MACs and bytes of one image, each with fp32. pool: a period, or null for never.
  function count({ filters: f, iterations: T, history: h, conv, pool, shape: [channels, height, width], classes }) {
    const k = conv === "classic" ? 1 : Number(conv.slice(2)), narrow = f / k; // of mb_k
    let pixels = 0; // of the maps that the convolution sees, over all iterations
    for (let t = 0; t < T; t++) {
      pixels += height * width;
      if (pool && t % pool === pool - 1) [height, width] = [height >> 1, width >> 1];
    }
    const convolution = conv === "classic" ? 9 * f * f : 9 * f + narrow * f;
    const parts = { convolution, "batch norms": 2 * f * T, coefficients: T * (h + 1), "linear layer": classes * f + classes };
    const parameters = Object.values(parts).reduce((a, b) => a + b);
    const outputs = (conv === "classic" ? f : narrow + f) + f; // channels of the convolutions and of the batch norm
    return {
      parts, parameters,
      macs: convolution * pixels + classes * f,
      weightBytes: 4 * (parameters + 2 * f * T), // with the batch norms' statistics
      activationBytes: 4 * (outputs * pixels + classes),
    };
  }
  window.thrifty.count = count;

  const form = document.getElementById("try-count");
  if (!form) return;
  const { points, datasets, network } = window.thriftyData;
  const find = (selector) => form.querySelector(selector);
  const fields = form.elements;
  const whole = (x) => x.toLocaleString("en");
  const short = (x) => x.toLocaleString("en", { minimumSignificantDigits: 3, maximumSignificantDigits: 3 });
  const size = (bytes) => (bytes < 2 ** 20 ? `${short(bytes / 2 ** 10)} KiB` : `${short(bytes / 2 ** 20)} MiB`);
  const ofPoint = (point) => count({ ...point, ...datasets[point.dataset] });

  // Sliders that cannot be set to a network that cannot be built: filters come in steps of k, pools meet 2x2 or more.
  function limit() {
    const { shape } = datasets[fields.dataset.value], T = Number(fields.iterations.value);
    const k = fields.conv.value === "classic" ? 1 : Number(fields.conv.value.slice(2));
    Object.assign(fields.filters, { step: k, min: k * Math.ceil(shape[0] / k) });
    const halvings = Math.floor(Math.log2(Math.min(shape[1], shape[2])));
    Object.assign(fields.pool, { min: Math.floor(T / (halvings + 1)) + 1, max: T + 1 }); // T + 1: never
  }

  function chosen() {
    const [filters, iterations, history, pool] = ["filters", "iterations", "history", "pool"].map((name) => Number(fields[name].value));
    return { filters, iterations, history, conv: fields.conv.value, pool: pool > iterations ? null : pool, dataset: fields.dataset.value };
  }

  function set(values) {
    for (const name of ["dataset", "conv", "iterations", "history"]) fields[name].value = values[name];
    limit();
    fields.filters.value = values.filters;
    fields.pool.value = values.pool || values.iterations + 1;
    draw();
  }

  function drawPlot(counted, near) {
    const [W, H, left, bottom] = [Math.max(280, find(".try-plot").clientWidth), 240, 30, 24]; // letters keep their size
    const all = points.filter((point) => point.dataset === fields.dataset.value);
    const sizes = [...all.map((point) => ofPoint(point).parameters), counted.parameters], values = all.map((point) => point.value);
    const [low, high] = [Math.log10(Math.min(...sizes)) - 0.06, Math.log10(Math.max(...sizes)) + 0.06];
    const [worst, best] = [Math.floor(Math.min(...values, 100) / 5) * 5, Math.ceil(Math.max(...values, 0) / 5) * 5];
    const x = (parameters) => left + ((Math.log10(parameters) - low) / (high - low)) * (W - left - 20);
    const y = (value) => 8 + ((best - value) / (best - worst)) * (H - bottom - 8);
    const ticks = [1, 2, 5].flatMap((n) => [2, 3, 4, 5, 6].map((power) => n * 10 ** power)).filter((n) => Math.log10(n) > low && Math.log10(n) < high);
    const lines = [];
    for (let value = worst; value <= best; value += 5) lines.push(value);
    const label = `Claimed test accuracy over parameters of ${all.length} networks; yours has ${whole(counted.parameters)} parameters`;
    find(".try-plot").innerHTML = !all.length ? "<figcaption>The paper states no countable network for these images.</figcaption>" :
      `<svg viewBox="0 0 ${W} ${H}" role="img" aria-label="${label}">` +
      lines.map((v) => `<path d="M${left} ${y(v)}H${W}"/><text x="${left - 6}" y="${y(v) + 4}" text-anchor="end">${v}</text>`).join("") +
      ticks.map((n) => `<text x="${x(n)}" y="${H - bottom + 18}" text-anchor="middle">${n < 1000 ? n : `${n / 1000}K`}</text>`).join("") +
      `<path class="yours" d="M${x(counted.parameters)} 4V${H - bottom}"/>` +
      all.map((point) => `<circle cx="${x(ofPoint(point).parameters)}" cy="${y(point.value)}" r="5"${near.includes(point) ? ' class="near"' : ""}/>`).join("") +
      "</svg><figcaption>Claimed test accuracy (%) over parameters (logarithmic). Dashed: yours. Orange: the nearest, listed below.</figcaption>";
  }

  function drawTable(near) {
    const rows = near.map((point, i) => {
      const { parameters, macs } = ofPoint(point), { filters, iterations, history, conv, pool } = point;
      return `<tr><td>f = ${filters}, T = ${iterations}, h = ${history}, ${conv}, pool ${pool}</td><td class="num">${whole(parameters)}</td>` +
        `<td class="num">${short(macs / 1e6)} M</td><td class="num">${point.value.toFixed(2)} %</td>` +
        `<td><a href="${point.address}">${point.verdict}</a></td>` +
        `<td><button type="button" class="try-button" data-point="${i}" aria-label="Set the sliders to this network: f = ${filters}, T = ${iterations}">Set</button></td></tr>`;
    });
    const heads = ["The paper's nearest", "Parameters", "MACs", "Claimed", "Verdict", "Sliders"];
    find(".table-scroll").innerHTML = rows.length ? `<table><thead><tr>${heads.map((head) => `<th scope="col">${head}</th>`).join("")}</tr></thead><tbody>${rows.join("")}</tbody></table>` : "";
    find(".table-scroll").querySelectorAll("button").forEach((button) => button.addEventListener("click", () => {
      set(near[button.dataset.point]);
      fields.filters.focus(); // the button itself is gone
    }));
  }

  function draw() {
    limit();
    const now = chosen(), counted = count({ ...now, ...datasets[now.dataset] });
    for (const name of ["filters", "iterations", "history"]) fields[name].nextElementSibling.textContent = now[name];
    const told = now.pool ? `${now.pool} (${Math.floor(now.iterations / now.pool)} pools)` : "never";
    fields.pool.nextElementSibling.textContent = told;
    fields.pool.setAttribute("aria-valuetext", told);
    const shown = {
      Parameters: whole(counted.parameters), MACs: `${short(counted.macs / 1e6)} M`,
      "Stored network": size(counted.weightBytes), Activations: size(counted.activationBytes),
    };
    find(".try-counts").innerHTML = Object.entries(shown).map(([name, text]) => `<div><dt>${name}</dt><dd>${text}</dd></div>`).join("");
    const legend = Object.entries(counted.parts).map(([name, n]) => `${name} ${whole(n)}`);
    find(".try-parts").setAttribute("aria-label", `Parameters: ${legend.join(", ")}`);
    find(".try-parts").innerHTML = Object.values(counted.parts).map((n) => `<i style="flex:${n}"></i>`).join("");
    find(".try-legend").innerHTML = legend.map((text) => `<span><i></i>${text}</span>`).join(" ");
    const far = (point) => Math.abs(Math.log(ofPoint(point).parameters / counted.parameters));
    const near = points.filter((point) => point.dataset === now.dataset).sort((a, b) => far(a) - far(b)).slice(0, 5);
    drawPlot(counted, near);
    drawTable(near);
  }

  fields.dataset.innerHTML = Object.entries(datasets).map(([name, { title, shape }]) => `<option value="${name}">${title}, ${shape.join("x")}</option>`).join("");
  form.addEventListener("input", draw);
  addEventListener("resize", draw);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  const { pool, iterations } = network.options; // begin with the network above
  set({ ...network.options, dataset: network.dataset, pool: Array.isArray(pool) ? Math.floor(iterations / pool.length) : pool });
})();
