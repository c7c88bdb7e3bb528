'use strict';

const MOST_PIXELS = 4e6;  // Of the drawing; a larger image is drawn at a smaller scale.
const by = (id) => document.getElementById(id);
const about = JSON.parse(document.querySelector('[data-about]').dataset.about);
const instances = about.task === 'instance';
let shown = null;  // The answer that is drawn.
let latest = 0;  // Number of the last upload: answers to earlier ones come too late.

// ---- Answers --------------------------------------------------------------------------------------------------------

// Reads COCO's compressed run lengths into an array of 0 and 1 by columns.
function decoded({size: [height, width], counts}) {
  const mask = new Uint8Array(height * width), lengths = [];
  for (let i = 0; i < counts.length;) {
    let value = 0, digit, shift = 0;
    do {
      digit = counts.charCodeAt(i++) - 48;
      value |= (digit & 31) << shift;
      shift += 5;
    } while (digit & 32);
    if (digit & 16 && shift < 32) value |= -1 << shift;
    if (lengths.length > 2) value += lengths[lengths.length - 2];
    lengths.push(value);
  }
  let place = 0;
  lengths.forEach((length, i) => {
    if (i % 2) mask.fill(1, place, place + length);
    place += length;
  });
  return mask;
}

// The rows of the list, each with its mask at the scale of the drawing.
function prepared(answer, width, height) {
  const entries = instances ? answer.detections : answer.classes;
  return entries.map((entry) => {
    const whole = decoded(entry.segmentation), mask = new Uint8Array(width * height);
    for (let y = 0, i = 0; y < height; y++) {
      const row = Math.floor((y + .5) * answer.height / height);
      for (let x = 0; x < width; x++, i++) {
        mask[i] = whole[Math.floor((x + .5) * answer.width / width) * answer.height + row];
      }
    }
    // Black is the usual colour of the background, which would only darken the image.
    const isBlack = !entry.color.some(Boolean);
    return {entry, mask, on: instances || !isBlack};
  });
}

// The confidence of each pixel of the drawing, 0 to 255.
async function confidence(answer, width, height) {
  const bytes = Uint8Array.from(atob(answer.confidence_png), (character) => character.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes], {type: 'image/png'}));
  const context = new OffscreenCanvas(width, height).getContext('2d');
  context.imageSmoothingEnabled = false;
  context.drawImage(bitmap, 0, 0, width, height);
  const values = context.getImageData(0, 0, width, height).data;
  return Uint8Array.from({length: width * height}, (_, i) => values[4 * i]);
}

// ---- Drawing --------------------------------------------------------------------------------------------------------

function draw() {
  const threshold = Number(by('threshold').value);
  by('threshold-value').textContent = threshold.toFixed(2);
  by('opacity-value').textContent = Number(by('opacity').value).toFixed(2);
  if (!shown) return;
  const {width, height, rows, sure} = shown;
  const canvas = by('overlay'), context = canvas.getContext('2d');
  const opacity = Math.round(255 * by('opacity').value), drawing = context.createImageData(width, height);
  for (const row of [...rows].reverse()) {  // The highest score last, on top.
    const certain = !instances || row.entry.score >= threshold;
    row.element.classList.toggle('off', !(row.on && certain));
    if (!row.on || !certain) continue;
    const {mask, entry: {color: [red, green, blue]}} = row;
    for (let i = 0, y = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i++) {
        if (!mask[i] || (sure && sure[i] < 255 * threshold)) continue;
        const edge = instances && (!x || !y || x === width - 1 || y === height - 1 ||
          !(mask[i - 1] && mask[i + 1] && mask[i - width] && mask[i + width]));
        drawing.data.set([red, green, blue, edge ? 255 : opacity], 4 * i);
      }
    }
  }
  context.putImageData(drawing, 0, 0);
}

function listed(rows) {
  const body = by('found');
  body.replaceChildren();
  for (const row of rows) {
    const {entry} = row, tr = body.insertRow(), name = document.createElement('th');
    const label = document.createElement('label'), box = document.createElement('input');
    const swatch = document.createElement('i'), text = document.createElement('span');
    Object.assign(box, {type: 'checkbox', checked: row.on});
    box.addEventListener('change', () => { row.on = box.checked; draw(); });
    swatch.className = 'swatch';
    swatch.style.background = `rgb(${entry.color.join(' ')})`;
    text.className = 'name';
    text.textContent = instances ? entry.class : entry.name;
    label.append(box, ' ', swatch, text);
    name.scope = 'row';
    name.append(label);
    tr.append(name);
    const numbers = instances ? [entry.score.toFixed(2)]
      : [`${(100 * entry.share).toFixed(1)} %`, entry.mean_confidence.toFixed(2)];
    for (const number of numbers) tr.insertCell().textContent = number;
    row.element = tr;
  }
}

function say(text, isError = false) {
  by('message').textContent = text;
  by('message').classList.toggle('error', isError);
}

// ---- An image -------------------------------------------------------------------------------------------------------

async function segment(file) {
  const number = ++latest;
  say(`Segmenting ${file.name} …`);
  const start = performance.now();
  let answer;
  try {
    const response = await fetch('segment?format=json&masks=runs&confidence=1', {method: 'POST', body: file});
    answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
  } catch (error) {
    if (number === latest) say(`${file.name}: ${error.message}`, true);
    return;
  }
  const seconds = (performance.now() - start) / 1000;
  const bitmap = await createImageBitmap(file, {imageOrientation: 'from-image'}).catch(() => null);
  const scale = Math.min(1, Math.sqrt(MOST_PIXELS / (answer.width * answer.height)));
  const width = Math.max(1, Math.round(answer.width * scale)), height = Math.max(1, Math.round(answer.height * scale));
  const sure = instances ? null : await confidence(answer, width, height);
  if (number !== latest) return;
  for (const canvas of [by('image'), by('overlay')]) Object.assign(canvas, {width, height});
  if (bitmap) by('image').getContext('2d').drawImage(bitmap, 0, 0, width, height);
  const rows = prepared(answer, width, height);
  shown = {width, height, rows, sure};
  listed(rows);
  by('picture').hidden = by('list').hidden = false;
  by('drop').classList.add('small');
  const count = instances ? `, ${rows.length} detections` : '';
  const note = bitmap ? '' : '. The browser cannot show files of this format';
  say(`${file.name}: ${answer.width} × ${answer.height} pixels${count}, ${seconds.toFixed(2)} s${note}`);
  draw();
}

function take(files) {
  if (files.length) segment(files[0]);
}

by('file').addEventListener('change', (event) => take(event.target.files));
for (const kind of ['dragover', 'dragleave', 'drop']) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    by('drop').classList.toggle('over', kind === 'dragover');
    if (kind === 'drop') take(event.dataTransfer.files);
  });
}
addEventListener('paste', (event) => take(event.clipboardData.files));
for (const id of ['threshold', 'opacity']) by(id).addEventListener('input', draw);
draw();
