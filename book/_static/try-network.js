// A trained ThriftyNet in plain JavaScript: its weight file is read as it is, every iteration's map and scores come out.
// Sums are in double precision. The page's tests compare each of them with PyTorch's.
window.thrifty = window.thrifty || {};
(() => {
  "use strict";

  const EPSILON = 1e-5; // of PyTorch's batch norm
  const ACTIVATIONS = { tanh: Math.tanh, relu: (x) => Math.max(x, 0) };

  function bytes(base64) {
    return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  }

  // A safetensors file: the header's length (8 bytes), the header (JSON), then the numbers. Tensors by their names.
  function readSafetensors(file) {
    const length = Number(new DataView(file.buffer).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + length)));
    const tensors = {};
    for (const [name, { dtype, shape, data_offsets: [from, to] = [] }] of Object.entries(header)) {
      if (dtype !== "F32") continue; // metadata, and batch norm's count of batches
      const start = 8 + length;
      tensors[name] = { shape, data: new Float32Array(file.slice(start + from, start + to).buffer) };
    }
    return tensors;
  }

  // A convolution without bias that keeps height and width; the weight's shape tells kernel and groups.
  function convolve(input, channels, height, width, { shape: [outputs, perGroup, kernel], data }) {
    const area = height * width, reach = (kernel - 1) / 2;
    const output = new Float64Array(outputs * area);
    const groupSize = outputs / (channels / perGroup);
    for (let o = 0; o < outputs; o++) {
      const first = Math.floor(o / groupSize) * perGroup;
      for (let i = 0; i < perGroup; i++) {
        for (let tap = 0; tap < kernel * kernel; tap++) {
          const weight = data[(o * perGroup + i) * kernel * kernel + tap];
          const dy = Math.floor(tap / kernel) - reach, dx = (tap % kernel) - reach;
          for (let y = Math.max(0, -dy); y < Math.min(height, height - dy); y++) {
            const from = (first + i) * area + (y + dy) * width + dx, to = o * area + y * width;
            for (let x = Math.max(0, -dx); x < Math.min(width, width - dx); x++) output[to + x] += weight * input[from + x];
          }
        }
      }
    }
    return output;
  }

  function pool({ map, height, width }, channels) {
    const [h, w] = [height >> 1, width >> 1];
    const pooled = new Float64Array(channels * h * w);
    for (let c = 0; c < channels; c++)
      for (let y = 0; y < h; y++)
        for (let x = 0; x < w; x++) {
          const at = (c * height + 2 * y) * width + 2 * x;
          pooled[(c * h + y) * w + x] = Math.max(map[at], map[at + 1], map[at + width], map[at + width + 1]);
        }
    return { map: pooled, height: h, width: w };
  }

  // The last layer on a map of any size: the largest value of each channel, then class scores (logits).
  function classify({ map, height, width }, weight, bias) {
    const [classes, channels] = weight.shape, area = height * width;
    const largest = Array.from({ length: channels }, (_, c) => map.subarray(c * area, (c + 1) * area).reduce((a, b) => Math.max(a, b)));
    return Array.from({ length: classes }, (_, k) => largest.reduce((sum, x, c) => sum + x * weight.data[k * channels + c], bias.data[k]));
  }

  // From a network of try-data.js to a function: pixels (32x32 RGB, rows from the top, 0 to 255) to x_0, ..., x_T,
  // each { map, height, width, scores }. The names of tensors and options are those of thriftylib.
  function load({ options, mean, std, weights }) {
    const tensors = readSafetensors(bytes(weights));
    const kernels = ["convs.0.weight", "convs.0.0.weight", "convs.0.1.weight"].filter((name) => name in tensors).map((name) => tensors[name]);
    const { alpha, "head.1.weight": weight, "head.1.bias": bias } = tensors;
    const [filters, activation] = [weight.shape[1], ACTIVATIONS[options.activation]];
    const kept = options.history_bug && options.history > 1 ? options.history - 1 : options.history;
    const pools = (t) => (Array.isArray(options.pool) ? options.pool.includes(t) : options.pool !== null && t % options.pool === options.pool - 1);
    const norm = (t, part) => (tensors[`norms.${t}.${part}`] || tensors[`norms.0.${part}`] || {}).data; // one for all, or one each

    // x_{t+1} before pooling, from the states that exist, oldest first.
    function step(t, states) {
      const { map, height, width } = states[states.length - 1], area = height * width;
      const convolved = kernels.reduce((x, kernel) => convolve(x, x.length / area, height, width, kernel), map);
      const [mean, variance, gain, shift] = ["running_mean", "running_var", "weight", "bias"].map((part) => norm(t, part));
      const columns = alpha ? alpha.shape[1] : 2; // the plain recursion: 1 and 1
      const coefficients = alpha ? alpha.data.subarray(t * columns, (t + 1) * columns) : [1, 1];
      const oldest = columns - states.length; // the last coefficient is that of x_t
      const next = new Float64Array(map.length);
      for (let i = 0; i < next.length; i++) {
        const c = Math.floor(i / area);
        let mixed = coefficients[0] * activation(convolved[i]);
        states.forEach((state, j) => (mixed += coefficients[oldest + j] * state.map[i]));
        const scaled = (mixed - mean[c]) / Math.sqrt(variance[c] + EPSILON);
        next[i] = gain ? scaled * gain[c] + shift[c] : scaled;
      }
      return { map: next, height, width };
    }

    return (pixels) => {
      const side = Math.sqrt(pixels.length / mean.length);
      const first = new Float64Array(filters * side * side); // zero channels after the image's own
      pixels.forEach((value, i) => {
        const c = i % mean.length;
        first[c * side * side + Math.floor(i / mean.length)] = (value / 255 - mean[c]) / std[c];
      });
      let states = [{ map: first, height: side, width: side }];
      const all = [...states];
      for (let t = 0; t < options.iterations; t++) {
        states = [...states, step(t, states)].slice(-kept);
        if (pools(t)) states = states.map((state) => pool(state, filters));
        all.push(states[states.length - 1]);
      }
      return all.map((state) => ({ ...state, scores: classify(state, weight, bias) }));
    };
  }

  Object.assign(window.thrifty, { bytes, load });
})();
