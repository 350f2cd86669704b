// Below every table of a page: what it shows, as CSV and as JSON. No network; the scoreboard has files of its own.
(() => {
  "use strict";
  const text = (cell) => cell.textContent.trim().replace(/\s+/g, " ");
  const quoted = (value) => {
    const safe = /^[=+@\t\r-]/.test(value) && Number.isNaN(Number(value)) ? `'${value}` : value; // no formula
    return /[",\n]/.test(safe) ? `"${safe.replace(/"/g, '""')}"` : safe;
  };

  function link(kind, type, name, content) {
    const anchor = document.createElement("a");
    anchor.textContent = kind;
    anchor.download = `${name}.${kind.toLowerCase()}`;
    anchor.href = `data:${type};charset=utf-8,${encodeURIComponent(content)}`;
    return anchor;
  }

  const page = location.pathname.split("/").pop().replace(/\.html$/, "") || "page";
  document.querySelectorAll("article table:not(.board)").forEach((table, number) => {
    const rows = [...table.rows].map((row) => [...row.cells].map(text));
    if (rows.length < 2 || table.classList.contains("field-list")) return;
    const [heads, ...values] = rows;
    const objects = values.map((row) => Object.fromEntries(row.map((value, at) => [heads[at] || `column ${at + 1}`, value])));
    const name = `${page}-table-${number + 1}`;
    const box = document.createElement("p");
    box.className = "table-downloads";
    box.append(
      link("CSV", "text/csv", name, `${rows.map((row) => row.map(quoted).join(",")).join("\n")}\n`),
      link("JSON", "application/json", name, JSON.stringify(objects)),
    );
    box.setAttribute("aria-label", "Download this table");
    (table.closest(".table-scroll, .pst-scrollable-table-container") || table).after(box);
  });
})();
