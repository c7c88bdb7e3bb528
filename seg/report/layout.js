// For every page. Containers that scroll sideways fade at the edge beyond which there is more.
for (const box of document.querySelectorAll('.scroll')) {
  const mark = () => {
    const rest = box.scrollWidth - box.clientWidth - box.scrollLeft;
    box.classList.toggle('more-left', box.scrollLeft > 1);
    box.classList.toggle('more-right', rest > 1);
  };
  box.addEventListener('scroll', mark, { passive: true });
  new ResizeObserver(mark).observe(box);
  mark();
}

// Tables of class `sortable` are sorted by their column headings.
for (const table of document.querySelectorAll('table.sortable')) {
  const body = table.tBodies[0];
  const [sorted, order] = (table.dataset.sorted ?? '').split(' ');
  const key = (row, column) => {
    const cell = row.cells[column];
    const exact = cell.querySelector('data');
    const text = cell.textContent.trim();
    return exact ? Number(exact.value) : text === '–' || !text ? null : text;
  };
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    if (heading.tagName !== 'TH' || heading.classList.contains('unsorted')) return;
    const button = document.createElement('button');
    button.type = 'button';
    button.append(...heading.childNodes);
    heading.append(button);
    if (String(column) === sorted) heading.setAttribute('aria-sort', order);
    button.addEventListener('click', () => {
      const falls = heading.getAttribute('aria-sort') === 'ascending';
      for (const other of table.tHead.rows[0].cells) other.removeAttribute('aria-sort');
      heading.setAttribute('aria-sort', falls ? 'descending' : 'ascending');
      const rows = [...body.rows].map((row) => [key(row, column), row]);
      rows.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null); // Cells without a value stay last.
        const sign = typeof a === 'string' || typeof b === 'string'
          ? String(a).localeCompare(String(b), undefined, { numeric: true }) : a - b;
        return falls ? -sign : sign;
      });
      body.append(...rows.map(([, row]) => row));
    });
  });
}
