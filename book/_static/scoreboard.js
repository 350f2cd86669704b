// Filters, sorts and folds the scoreboard. The table is complete without this script; no network, no library.
// Chips, sentences and bars count what the filters leave. The state lives in the address: #verdict=reproduced&paper=thriftynet&q=svhn&sort=claimed
(() => {
  "use strict";
  const board = document.querySelector("#scoreboard");
  if (!board) return;

  const table = board.querySelector("table");
  const bodies = [...table.tBodies]; // a paper's title, its figures, the next paper's title, ...
  const groups = bodies.filter((body) => body.classList.contains("claims"));
  const titles = bodies.filter((body) => body.classList.contains("paper"));
  const rows = [...table.querySelectorAll("tr[data-verdict]")];
  const lines = [...board.querySelectorAll(".paper-line")];
  const chips = [...board.querySelectorAll("button[data-verdict]")];
  const search = board.querySelector("input[type=search]");
  const paper = board.querySelector("select[name=paper]");
  const order = board.querySelector("select[name=sort]");
  const fold = board.querySelector("button[data-fold]");
  const said = board.querySelector("[role=status]");
  const flat = document.createElement("tbody"); // holds all rows while they are sorted across groups
  const chosen = new Set();

  const toggle = (group) => group.querySelector("button[aria-expanded]");
  const isOpen = (group) => toggle(group).getAttribute("aria-expanded") === "true";
  const setOpen = (group, open) => toggle(group).setAttribute("aria-expanded", String(open));

  function shows(row, words, verdicts = chosen) {
    return (
      (!verdicts.size || verdicts.has(row.dataset.verdict)) &&
      (!paper.value || row.dataset.paper === paper.value) &&
      words.every((word) => row.dataset.text.includes(word))
    );
  }

  // What some rows come to, by the names that the page's numbers have (data-tally, data-word).
  function tally(some) {
    const words = {};
    const add = (name) => (words[name] = (words[name] || 0) + 1);
    some.forEach((row) => [row.dataset.kind, "every"].forEach((kind) => add(`${kind} ${row.dataset.verdict}`)));
    const testable = some.filter((row) => row.dataset.verdict !== "not testable");
    const of = (rows, kind) => rows.filter((row) => row.dataset.kind === kind);
    const [trainable, countable] = [of(testable, "measured"), of(testable, "counted")];
    const own = trainable.filter((row) => row.dataset.verdict !== "other recipe");
    const [run, count] = [(word) => words[`measured ${word}`] || 0, (word) => words[`counted ${word}`] || 0];
    const sums = {
      all: some.length,
      testable: testable.length,
      trainable: trainable.length,
      reproduced: run("reproduced"),
      "not reproduced": run("not reproduced"),
      undecided: run("consistent") + run("at odds"),
      trainings: new Set(own.flatMap((row) => row.dataset.records.split(",")).filter(Boolean)).size,
      countable: countable.length,
      equal: count("equal"),
      differ: count("differs"),
      built: count("by construction"),
      measured: of(some, "measured").length,
      counted: of(some, "counted").length,
      run: own.filter((row) => row.getAttribute("data-by-n") !== "").length,
    };
    sums.open = sums.countable - sums.equal - sums.differ - sums.built;
    return { words, sums };
  }

  function fill(scope, some) {
    const { words, sums } = tally(some);
    scope.querySelectorAll("[data-tally]").forEach((place) => (place.textContent = sums[place.dataset.tally]));
    scope.querySelectorAll("[data-word]").forEach((place) => {
      const number = words[place.dataset.word] || 0;
      place.hidden = !number;
      place.tagName === "I" ? (place.style.flex = number) : (place.querySelector("b").textContent = number);
    });
    scope.querySelectorAll(".bar").forEach((bar) => {
      const left = [...bar.children].filter((part) => !part.hidden);
      bar.setAttribute("aria-label", left.map((part) => `${part.style.flexGrow} ${part.title}`).join(", "));
    });
  }

  const units = [...new Set(rows.map((row) => row.dataset.unit))];

  function sortRows(key) {
    const [name, direction] = [key.replace(/^-/, ""), key.startsWith("-") ? -1 : 1];
    const value = (row) => row.getAttribute(`data-by-${name}`);
    const inUnits = ["claimed", "ours", "spread"].includes(name); // percent are never sorted among counts
    const sorted = [...rows].sort((a, b) => {
      const apart = units.indexOf(a.dataset.unit) - units.indexOf(b.dataset.unit);
      if (inUnits && apart) return apart;
      const [x, y] = [value(a), value(b)];
      if ((x === "") !== (y === "")) return x === "" ? 1 : -1; // what is not known comes last, either way
      const numeric = Number(x) - Number(y);
      return direction * (Number.isNaN(numeric) ? x.localeCompare(y) : numeric);
    });
    flat.append(...sorted);
    bodies.forEach((body) => body.remove());
    table.append(flat);
  }

  function groupRows() {
    flat.remove();
    rows.forEach((row) => groups[Number(row.dataset.group)].append(row));
    table.append(...bodies);
  }

  function draw() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const filtered = chosen.size > 0 || words.length > 0;
    const sorted = order.value !== "";
    sorted ? sortRows(order.value) : groupRows();

    const found = rows.filter((row) => shows(row, words));
    const kept = new Set(found);
    rows.forEach((row) => {
      const run = row.getAttribute("data-by-n") !== ""; // what was run is seen at once, what was not on opening its figure
      const open = run || sorted || filtered || isOpen(groups[Number(row.dataset.group)]);
      row.hidden = !(kept.has(row) && open);
    });
    groups.forEach((group, index) => {
      const some = found.filter((row) => Number(row.dataset.group) === index);
      group.hidden = !some.length;
      fill(group.querySelector(".group"), some);
      group.classList.toggle("forced", filtered); // a filter opens every group that has something to show
    });
    titles.forEach((title) => {
      title.hidden = !found.some((row) => row.dataset.paper === title.dataset.paper);
    });

    lines.forEach((line) => {
      const some = found.filter((row) => row.dataset.paper === line.dataset.paper);
      line.hidden = !some.length;
      fill(line, some);
      line.querySelectorAll(".line, .bars > *").forEach((part) => {
        part.hidden = !part.querySelector("[data-word]:not([hidden])");
      });
      line.querySelectorAll(".bars > *").forEach((part) => {
        part.style.flex = [...part.querySelectorAll("i:not([hidden])")].reduce((sum, i) => sum + Number(i.style.flexGrow), 0);
      });
    });
    fill(board.querySelector(".summary"), found);
    chips.forEach((chip) => {
      const some = rows.filter((row) => shows(row, words, new Set([chip.dataset.verdict])));
      chip.querySelector("b").textContent = some.length;
      chip.disabled = !some.length && !chosen.has(chip.dataset.verdict);
    });
    chips.forEach((chip) => chip.setAttribute("aria-pressed", String(chosen.has(chip.dataset.verdict))));
    table.querySelectorAll("th[data-sort]").forEach((head) => {
      const active = order.value.replace(/^-/, "") === head.dataset.sort;
      head.setAttribute("aria-sort", active ? (order.value.startsWith("-") ? "descending" : "ascending") : "none");
    });
    const closed = groups.some((group) => !isOpen(group));
    fold.textContent = closed ? "Open all" : "Close all";
    fold.hidden = sorted || filtered;
    said.textContent = found.length === rows.length ? `${rows.length} claims` : `${found.length} of ${rows.length} claims`;

    const state = new URLSearchParams();
    if (chosen.size) state.set("verdict", [...chosen].join(","));
    if (paper.value) state.set("paper", paper.value);
    if (search.value) state.set("q", search.value);
    if (sorted) state.set("sort", order.value);
    if (String(state) || location.hash.includes("=")) {
      history.replaceState(null, "", String(state) ? `#${state}` : location.pathname);
    }
  }

  function readAddress() {
    if (!location.hash.includes("=")) return;
    const state = new URLSearchParams(location.hash.slice(1));
    chosen.clear();
    const known = chips.map((chip) => chip.dataset.verdict);
    (state.get("verdict") || "").split(",").filter((name) => known.includes(name)).forEach((name) => chosen.add(name));
    paper.value = state.get("paper") || "";
    search.value = state.get("q") || "";
    order.value = state.get("sort") || "";
  }

  chips.forEach((chip) =>
    chip.addEventListener("click", () => {
      const name = chip.dataset.verdict;
      chosen.has(name) ? chosen.delete(name) : chosen.add(name);
      draw();
    }),
  );
  groups.forEach((group) =>
    toggle(group).addEventListener("click", () => {
      setOpen(group, !isOpen(group));
      draw();
    }),
  );
  fold.addEventListener("click", () => {
    const open = groups.some((group) => !isOpen(group));
    groups.forEach((group) => setOpen(group, open));
    draw();
  });
  table.querySelectorAll("th[data-sort] button").forEach((button) =>
    button.addEventListener("click", () => {
      const name = button.closest("th").dataset.sort;
      const next = { [name]: `-${name}`, [`-${name}`]: "" }[order.value] ?? name;
      order.value = next;
      draw();
    }),
  );
  [search, paper, order].forEach((field) => field.addEventListener("input", draw));
  table.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-copy]");
    if (!button) return;
    navigator.clipboard?.writeText(button.previousElementSibling.textContent).then(() => {
      button.classList.add("done");
      said.textContent = "Command copied";
      setTimeout(() => button.classList.remove("done"), 1500);
    });
  });
  window.addEventListener("hashchange", () => {
    readAddress();
    draw();
  });

  // Without this script every group is open; with it, what the abstract says.
  groups.forEach((group) => setOpen(group, group.dataset.open === "true"));
  board.classList.add("live");
  readAddress();
  draw();

  // A link to one claim opens its group.
  const target = location.hash.length > 1 && !location.hash.includes("=") && document.getElementById(location.hash.slice(1));
  if (target && rows.includes(target)) {
    setOpen(groups[Number(target.dataset.group)], true);
    draw();
    target.scrollIntoView({ block: "center" });
  }
})();
