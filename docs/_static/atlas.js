// The atlas: one field searches pictures and table, a click on a column's head sorts by it. Without this script the
// page is the same, without the field: all pictures, and a table in the order of the blocks' pages.
(() => {
  const table = document.querySelector(".atlas-table");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const figures = [...document.querySelectorAll("figure.atlas-picture")];
  const groups = [...document.querySelectorAll(".atlas-group")];
  const plain = (text) => text.toLowerCase().normalize("NFKD").replace(/[\u0300-\u036f]/g, "");

  // what is searched: a row's text; a picture's is that of the rows that it is of, and its own words
  const words = new Map(rows.map((row) => [row.dataset.name, plain(row.textContent)]));
  const wordsOf = (figure) =>
    [plain(figure.dataset.words), ...figure.dataset.names.split(" ").map((name) => words.get(name) ?? "")];

  const box = document.createElement("div");
  box.className = "atlas-search";
  box.innerHTML =
    '<label>Search <input type="search" autocomplete="off" spellcheck="false" placeholder="channel, softmax, timm, Hu …"></label>' +
    '<label class="forms"><input type="checkbox"> forms and variants too</label><span role="status"></span>';
  document.querySelector(".atlas-legend").before(box);
  const field = box.querySelector("[type=search]");
  const forms = box.querySelector("[type=checkbox]");
  const status = box.querySelector("[role=status]");

  const isForm = (row) => row.classList.contains("form");
  const wanted = () => plain(field.value).split(/\s+/).filter(Boolean);
  function search() {
    const parts = wanted();
    const has = (text) => parts.every((part) => text.includes(part));
    let shown = 0;
    for (const row of rows) {
      row.hidden = !has(words.get(row.dataset.name)) || (isForm(row) && !forms.checked);
      shown += row.hidden ? 0 : 1;
    }
    for (const figure of figures) {
      figure.hidden = !wordsOf(figure).some(has) || (figure.classList.contains("form") && !forms.checked);
    }
    for (const group of groups) group.hidden = !group.querySelector("figure:not([hidden])");
    const all = rows.filter((row) => forms.checked || !isForm(row)).length;
    status.textContent = shown === all ? `${all} blocks` : `${shown} of ${all} blocks`;
  }
  field.addEventListener("input", search);
  forms.addEventListener("change", search);

  // Sorting. What has no value stands last, whichever way.
  const heads = [...table.tHead.rows[0].cells];
  const numeric = (column) => rows.some((row) => row.cells[column].dataset.sort !== "" && !Number.isNaN(Number(row.cells[column].dataset.sort)));
  function sort(column, down) {
    const value = (row) => row.cells[column].dataset.sort;
    const compare = numeric(column) ? (a, b) => Number(a) - Number(b) : (a, b) => a.localeCompare(b);
    const order = (a, b) => {
      if (value(a) === "" || value(b) === "") return (value(a) === "" ? 1 : 0) - (value(b) === "" ? 1 : 0);
      return (down ? -1 : 1) * compare(value(a), value(b));
    };
    body.append(...[...rows].sort(order));
    heads.forEach((head, i) => head.setAttribute("aria-sort", i !== column ? "none" : down ? "descending" : "ascending"));
    choice.value = String(column);
  }
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => sort(column, head.getAttribute("aria-sort") === "ascending"));
  });

  // on a phone the heads are not there: the same in a list
  const label = document.createElement("label");
  label.className = "atlas-order";
  label.append("Sort by ");
  const choice = document.createElement("select");
  choice.append(new Option("as the pages are", ""), ...heads.map((head, column) => new Option(head.textContent, String(column))));
  choice.addEventListener("change", () => (choice.value === "" ? body.append(...rows) : sort(Number(choice.value), false)));
  label.append(choice);
  table.parentElement.before(label);

  search();
})();
