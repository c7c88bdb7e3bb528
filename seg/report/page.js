for (const button of document.querySelectorAll('button[data-copy]')) {
  button.hidden = false;
  button.addEventListener('click', async () => {
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = 'Copied';
    } catch {
      getSelection().selectAllChildren(source);
      button.textContent = 'Selected';
    }
    setTimeout(() => { button.textContent = 'Copy'; }, 2000);
  });
}

// ---- Values of curves and of the confusion matrix ----------------------------------------------------------------

const tip = document.body.appendChild(document.createElement('div'));
tip.id = 'tip';
tip.setAttribute('role', 'status');
tip.hidden = true;

// Shows lines of text beside a point of the window, within it.
function tell(lines, x, y) {
  tip.replaceChildren(...lines.map(([text, color]) => {
    const line = document.createElement('div');
    if (color) line.appendChild(document.createElement('i')).style.setProperty('--color', color);
    line.append(text);
    return line;
  }));
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, x + 16 + width > innerWidth ? x - 16 - width : x + 16)}px`;
  tip.style.top = `${Math.max(4, Math.min(y + 16, innerHeight - height - 4))}px`;
}

function nearest(values, value) {
  let best = 0;
  values.forEach((each, i) => { if (Math.abs(each - value) < Math.abs(values[best] - value)) best = i; });
  return best;
}

for (const drawing of document.querySelectorAll('.drawing[data-hover]')) {
  const chart = JSON.parse(drawing.dataset.hover);
  const xs = [...new Set(chart.series.flatMap((one) => one.x))].sort((a, b) => a - b);
  const mark = drawing.appendChild(document.createElement('div'));
  mark.className = 'mark';
  mark.hidden = true;
  let at = xs.length - 1;
  const show = (x, y) => {
    const box = drawing.getBoundingClientRect();
    mark.hidden = false;
    mark.style.left = `${100 * xs[at]}%`;
    mark.style.top = `${100 * chart.top}%`;
    mark.style.height = `${100 * (chart.bottom - chart.top)}%`;
    const found = chart.series.map((one, i) => [one, nearest(one.x, xs[at]), i]);
    const head = found.find(([one, n]) => one.x[n] === xs[at]);
    const name = head[0].at[head[1]];
    tell([[`${chart.name} ${name}`], ...found.map(([one, n, i]) => [
      `${one.label}: ${one.value[n]}${one.at[n] === name ? '' : ` (${one.at[n]})`}`, `var(--series-${i % 6})`,
    ])], x ?? box.left + xs[at] * box.width, y ?? box.top + chart.top * box.height);
  };
  const hide = () => { mark.hidden = tip.hidden = true; };
  drawing.tabIndex = 0;
  drawing.addEventListener('pointermove', (event) => {
    const box = drawing.getBoundingClientRect();
    at = nearest(xs, (event.clientX - box.left) / box.width);
    show(event.clientX, event.clientY);
  });
  drawing.addEventListener('pointerleave', hide);
  drawing.addEventListener('blur', hide);
  drawing.addEventListener('keydown', (event) => {
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: xs.length - 1 }[event.key];
    if (event.key === 'Escape') hide();
    if (to === undefined) return;
    event.preventDefault();
    at = Math.max(0, Math.min(xs.length - 1, to));
    show();
  });
}

for (const table of document.querySelectorAll('table.confusion')) {
  const cells = [...table.tBodies[0].rows].map((row) => [...row.cells].slice(1));
  const place = (cell) => {
    const row = cells.findIndex((each) => each.includes(cell));
    return row < 0 ? null : [row, cells[row].indexOf(cell)];
  };
  const name = (cell) => cell.textContent.trim();
  const show = (row, column, x, y) => {
    const cell = cells[row][column];
    const box = cell.getBoundingClientRect();
    const told = cell.dataset.pixels ? `${cell.dataset.share} %, ${cell.dataset.pixels} pixels` : 'none';
    tell([[`True ${name(table.tBodies[0].rows[row].cells[0])}`],
      [`Predicted ${name(table.tHead.rows[0].cells[column + 1])}: ${told}`]], x ?? box.right, y ?? box.bottom);
  };
  let row = 0, column = 0;
  const move = (to) => {
    cells[row][column]?.setAttribute('tabindex', -1);
    [row, column] = to;
    cells[row][column].tabIndex = 0;
  };
  table.addEventListener('pointermove', (event) => {
    const found = place(event.target);
    if (found && !event.target.classList.contains('none')) show(...found, event.clientX, event.clientY);
    else tip.hidden = true;
  });
  table.addEventListener('pointerleave', () => { tip.hidden = true; });
  table.addEventListener('focusout', () => { tip.hidden = true; });
  table.addEventListener('keydown', (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (event.key === 'Escape') tip.hidden = true;
    if (!step) return;
    event.preventDefault();
    let to = [row + step[0], column + step[1]];
    while (cells[to[0]] && cells[to[0]].length < cells.length && step[0]) to = [to[0] + step[0], to[1]];
    if (!cells[to[0]]?.[to[1]]) return;
    move(to);
    cells[row][column].focus();
    show(row, column);
  });
  const first = cells.findIndex((each) => each.length === cells.length);
  if (first >= 0) move([first, 0]);
}

// ---- The viewer of images -------------------------------------------------------------------------------------------

const viewer = document.getElementById('viewer');
if (viewer) {
  const part = (name) => viewer.querySelector(`.${name}`);
  const [stage, left, right, slider, divider] = ['stage', 'left', 'right', 'slider', 'divider'].map(part);
  const layers = [part('under'), part('over')];
  const large = (link) => link.matches('a') ? document.querySelector(`${link.getAttribute('href')} .open`) : link;
  // The pictures in the order of the page; those of the table in the order of its rows now.
  const openers = (link) => [...link.closest('.opened').querySelectorAll('.open')];
  let group = [], current = 0, zoom = 1, x = 0, y = 0;

  const fit = () => { // Keeps the picture within the stage.
    const { width, height } = stage.getBoundingClientRect();
    x = Math.min(0, Math.max(width * (1 - zoom), x));
    y = Math.min(0, Math.max(height * (1 - zoom), y));
    for (const layer of layers) layer.style.transform = `translate(${x}px, ${y}px) scale(${zoom})`;
    const at = slider.value / 100 * width;
    layers[1].style.clipPath = `inset(0 0 0 ${Math.max(0, Math.min(100, 100 * (at - x) / (zoom * width)))}%)`;
    divider.style.left = `${slider.value}%`;
    part('zoom').textContent = `${Math.round(100 * zoom)} %`;
  };
  const scale = (factor, at) => {
    const box = stage.getBoundingClientRect();
    const px = at ? at.clientX - box.left : box.width / 2, py = at ? at.clientY - box.top : box.height / 2;
    const to = Math.max(1, Math.min(16, zoom * factor));
    x = px - (px - x) * to / zoom;
    y = py - (py - y) * to / zoom;
    zoom = to;
    fit();
  };
  const choose = () => {
    const count = left.options.length;
    [left, right].forEach((select, i) => {
      layers[i].style.backgroundPosition = `${count > 1 ? 100 * select.selectedIndex / (count - 1) : 0}% 0`;
    });
    part('names').textContent = `${left.value} | ${right.value}`;
  };
  const load = (index) => {
    current = (index + group.length) % group.length;
    const link = group[current], source = large(link), { width, height, headings } = source.dataset;
    const names = JSON.parse(headings);
    const kept = [left.selectedIndex, right.selectedIndex];
    for (const [i, select] of [left, right].entries()) {
      select.replaceChildren(...names.map((name) => new Option(name)));
      select.selectedIndex = kept[i] >= 0 && kept[i] < names.length ? kept[i] : Math.min(1 + i, names.length - 1);
    }
    const strip = getComputedStyle(source).getPropertyValue('--strip');
    for (const layer of layers) {
      layer.style.backgroundImage = strip;
      layer.style.backgroundSize = `${100 * names.length}% 100%`;
    }
    stage.style.setProperty('--ratio', width / height);
    part('title').textContent = link.dataset.name;
    part('caption').textContent = link.dataset.caption;
    zoom = 1;
    x = y = 0;
    choose();
    fit();
  };
  document.addEventListener('click', (event) => {
    const link = event.target.closest('.open');
    if (!link || event.metaKey || event.ctrlKey) return;
    event.preventDefault();
    group = openers(link);
    viewer.showModal();
    load(group.indexOf(link));
    stage.focus();
  });
  // Rows of images that are drawn large above have no second copy of the picture.
  for (const link of document.querySelectorAll('a.open')) {
    const source = large(link);
    const copy = source.querySelector('.panels').cloneNode(true);
    for (const panel of copy.children) panel.replaceChildren();
    link.style.cssText = source.style.cssText;
    link.setAttribute('aria-label', source.getAttribute('aria-label'));
    link.replaceChildren(copy);
  }
  left.addEventListener('change', choose);
  right.addEventListener('change', choose);
  slider.addEventListener('input', fit);
  new ResizeObserver(fit).observe(stage);
  stage.addEventListener('wheel', (event) => {
    event.preventDefault();
    scale(event.deltaY < 0 ? 1.25 : 0.8, event);
  }, { passive: false });
  stage.addEventListener('dblclick', (event) => scale(zoom > 1 ? 1 / zoom : 3, event));
  const drag = (event) => {
    if (zoom > 1 && !event.target.classList.contains('divider')) {
      x += event.movementX;
      y += event.movementY;
    } else {
      const box = stage.getBoundingClientRect();
      slider.value = 100 * (event.clientX - box.left) / box.width;
    }
    fit();
  };
  stage.addEventListener('pointerdown', (event) => {
    event.target.setPointerCapture(event.pointerId);
    if (zoom === 1) drag(event);
    event.target.addEventListener('pointermove', drag);
  });
  stage.addEventListener('pointerup', (event) => event.target.removeEventListener('pointermove', drag));
  stage.addEventListener('pointercancel', (event) => event.target.removeEventListener('pointermove', drag));
  const act = {
    '+': () => scale(1.5), '=': () => scale(1.5), '-': () => scale(1 / 1.5), 0: () => scale(1 / zoom),
    n: () => load(current + 1), p: () => load(current - 1), PageDown: () => load(current + 1), PageUp: () => load(current - 1),
  };
  viewer.addEventListener('keydown', (event) => {
    if (event.target.matches('select') || event.metaKey || event.ctrlKey || event.altKey) return;
    const moves = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (moves && event.shiftKey) {
      x += 60 * moves[0];
      y += 60 * moves[1];
    } else if (moves && moves[0]) {
      slider.value = Number(slider.value) - 5 * moves[0];
    } else if (act[event.key]) {
      act[event.key]();
    } else return;
    event.preventDefault();
    fit();
  });
  for (const button of viewer.querySelectorAll('[data-key]')) {
    button.addEventListener('click', () => { act[button.dataset.key](); fit(); });
  }
  part('close').addEventListener('click', () => viewer.close());
  viewer.addEventListener('click', (event) => { if (event.target === viewer) viewer.close(); });
}
