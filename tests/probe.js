// What a reader's browser shows of a page, measured in it and sent to the page around it: no other page may look inside.
(() => {
  const errors = [];
  addEventListener("error", (event) => errors.push(event.message || `not loaded: ${event.target.src || event.target.href}`), true);
  addEventListener("unhandledrejection", (event) => errors.push(String(event.reason)));
  for (const level of ["error", "warn"]) console[level] = (...words) => errors.push(words.join(" "));

  const shown = (element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true }) && element.getClientRects().length > 0;
  const where = (element) => `<${element.tagName.toLowerCase()} class="${element.getAttribute("class") || ""}"> ${element.textContent.trim().slice(0, 40)}`;

  const channels = (colour) => {
    const [red, green, blue, alpha = 1] = colour.match(/[\d.]+/g).map(Number);
    return { rgb: [red, green, blue], alpha };
  };
  const over = (top, below) => top.rgb.map((value, at) => value * top.alpha + below[at] * (1 - top.alpha));
  const behind = (element) => {
    if (!element) return [255, 255, 255];
    const own = channels(getComputedStyle(element).backgroundColor);
    return own.alpha === 1 ? own.rgb : over(own, behind(element.parentElement));
  };
  const luminance = (rgb) => rgb.map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, at) => sum + value * [0.2126, 0.7152, 0.0722][at], 0);
  const contrast = (element) => {
    const below = behind(element);
    const [low, high] = [luminance(over(channels(getComputedStyle(element).color), below)), luminance(below)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const faint = () => {
    const found = [];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      const element = texts.currentNode.parentElement;
      if (!texts.currentNode.data.trim() || element.closest("script, style, noscript, mjx-container, [disabled]") || !shown(element)) continue;
      const style = getComputedStyle(element);
      const size = parseFloat(style.fontSize);
      const enough = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
      const ratio = contrast(element);
      if (ratio < enough) found.push(`${ratio.toFixed(2)} ${where(element)}`);
    }
    return [...new Set(found)];
  };

  const named = (element) => {
    const by = (element.getAttribute("aria-labelledby") || "").split(" ").map((id) => document.getElementById(id)?.textContent || "").join("");
    const inside = [...element.querySelectorAll("img[alt], [aria-label], svg title")].map((one) => one.getAttribute("alt") || one.getAttribute("aria-label") || one.textContent);
    const labels = [...(element.labels || [])].map((label) => label.textContent);
    return [element.getAttribute("aria-label"), by, element.textContent, element.title, element.placeholder, ...inside, ...labels].some((text) => text && text.trim());
  };
  const all = (selector) => [...document.querySelectorAll(selector)];
  const repeated = (list) => [...new Set(list.filter((one, at) => list.indexOf(one) !== at))];
  const scrolled = (element) => element.scrollWidth > element.clientWidth + 1 && /auto|scroll/.test(getComputedStyle(element).overflowX);
  const inScroll = (one) => one && (/auto|scroll|hidden/.test(getComputedStyle(one).overflowX) || inScroll(one.parentElement));
  const focusable = "a[href], button, input, select, textarea, summary, [tabindex]";

  addEventListener("load", () => setTimeout(() => {
    const root = document.documentElement;
    const wide = root.scrollWidth - innerWidth;
    const found = {
      images: all("article img").map((image) => [image.naturalWidth, image.alt]),
      overflow: wide,
      wide: wide > 0 ? all("body *").filter((one) => shown(one) && one.getBoundingClientRect().right > innerWidth + 1 && !inScroll(one)).slice(0, 5).map(where) : [],
      formulas: all("mjx-container svg, mjx-container mjx-math").length,
      unset: all("mjx-merror, [data-mjx-error]").length,
      titles: all("h1").length,
      nameless: all("a[href], button, input:not([type=hidden]), select, textarea, summary").filter((one) => shown(one) && !named(one)).map(where),
      headless: all("article table:not([role=presentation])").filter((table) => !table.querySelector("th")).map(where),
      repeated: repeated(all("[id]").map((one) => one.id)),
      unreachable: all("article *").filter((one) => shown(one) && scrolled(one) && !one.matches(focusable) && !one.querySelector(focusable)).map(where),
      skipped: all("main h1, main h2, main h3, main h4, main h5, main h6").filter(shown).map((one) => +one.tagName[1]).filter((level, at, levels) => at && level > levels[at - 1] + 1),
    };
    const style = document.createElement("style");
    style.textContent = "* { transition: none !important; }";
    document.head.append(style);
    for (const theme of ["light", "dark"]) {
      root.dataset.theme = theme;
      found[`faint_${theme}`] = faint();
    }
    parent.postMessage({ page: root.dataset.probed, found: { ...found, errors } }, "*");
  }, 1500));
})();
