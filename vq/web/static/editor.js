// The canvas on which boxes are drawn, moved and resized, by mouse, touch and keyboard.

import { svg } from './parts.js';
import { colourOf } from './boxes.js';

const HANDLES = [['x1', 'y1'], ['', 'y1'], ['x2', 'y1'], ['x2', ''], ['x2', 'y2'], ['', 'y2'], ['x1', 'y2'], ['x1', '']];
const CURSORS = { x1y1: 'nwse', x2y2: 'nwse', x2y1: 'nesw', x1y2: 'nesw', y1: 'ns', y2: 'ns', x1: 'ew', x2: 'ew' };
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const CLICK = 4; // pixels of the screen that a click may move

export class Editor {
  /** `names` of the classes; `current()`: the class of new boxes. */
  constructor(boxes, names, current) {
    Object.assign(this, { boxes, names, current, drag: null, behind: '' });
    const size = { width: boxes.width, height: boxes.height };
    this.picture = svg('image', { ...size, preserveAspectRatio: 'none', class: 'behind' });
    this.grid = svg('path', { class: 'grid', d: lines(boxes.width, boxes.height) });
    this.layer = svg('g');
    this.ghost = svg('rect', { class: 'ghost' });
    this.element = svg('svg', {
      class: 'canvas', viewBox: `0 0 ${size.width} ${size.height}`, tabindex: 0, role: 'application',
      'aria-label': `Canvas of ${size.width} by ${size.height} pixels. Enter adds a box. Tab goes to the boxes.`,
    }, svg('rect', { ...size, class: 'ground' }), this.picture, this.grid, this.layer, this.ghost);
    for (const [name, act] of [['pointerdown', 'down'], ['pointermove', 'moved'], ['pointerup', 'up'], ['pointercancel', 'up']]) {
      this.element.addEventListener(name, (event) => this[act](event));
    }
    this.element.addEventListener('keydown', (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.element);
  }

  /** Pixels of the image in one of the screen. */
  get unit() { return this.boxes.width / (this.element.getBoundingClientRect().width || this.boxes.width); }

  at(event) {
    const place = this.element.getBoundingClientRect();
    return [(event.clientX - place.left) * this.unit, (event.clientY - place.top) * this.unit];
  }

  show(url) {
    this.behind = url;
    if (url) this.picture.setAttribute('href', url);
    else this.picture.removeAttribute('href');
    this.element.classList.toggle('pictured', Boolean(url));
  }

  // mouse and touch

  down(event) {
    if (event.button !== 0 || this.drag) return;
    const [x, y] = this.at(event);
    const handle = event.target.closest('.handle');
    const group = event.target.closest('.box');
    const index = group ? Number(group.dataset.index) : -1;
    this.element.setPointerCapture(event.pointerId);
    if (handle) {
      this.drag = { index, sides: [handle.dataset.across, handle.dataset.down], mark: `resize ${event.timeStamp}` };
    } else if (group) {
      this.boxes.choose(index);
      this.drag = { index, from: [x, y], box: { ...this.boxes.list[index] }, mark: `move ${event.timeStamp}` };
      this.focus(index);
    } else {
      this.boxes.choose(-1);
      this.drag = { index: -1, from: [x, y] };
      this.element.focus({ preventScroll: true });
    }
    event.preventDefault();
  }

  moved(event) {
    const { drag } = this;
    if (!drag) return;
    const [x, y] = this.at(event);
    const box = this.boxes.list[drag.index];
    if (drag.sides) {
      const [across, down] = drag.sides;
      this.boxes.change(() => {
        if (across) box[across] = across === 'x1' ? Math.min(x, box.x2 - 2) : Math.max(x, box.x1 + 2);
        if (down) box[down] = down === 'y1' ? Math.min(y, box.y2 - 2) : Math.max(y, box.y1 + 2);
      }, drag.mark);
    } else if (box) {
      const [to, down] = [Math.round(drag.box.x1 + x - drag.from[0]), Math.round(drag.box.y1 + y - drag.from[1])];
      this.boxes.move(drag.index, to - box.x1, down - box.y1, drag.mark);
    } else {
      drag.to = [x, y];
      const [left, top] = [Math.min(x, drag.from[0]), Math.min(y, drag.from[1])];
      place(this.ghost, left, top, Math.abs(x - drag.from[0]), Math.abs(y - drag.from[1]));
      this.ghost.style.stroke = colourOf(this.current());
    }
  }

  up(event) {
    const { drag } = this;
    this.drag = null;
    place(this.ghost, 0, 0, 0, 0);
    if (!drag || drag.index >= 0 || event.type === 'pointercancel' || !drag.to) return;
    const [[x1, y1], [x2, y2]] = [drag.from, drag.to];
    if (Math.max(Math.abs(x2 - x1), Math.abs(y2 - y1)) < CLICK * this.unit) return;
    this.boxes.add({ x1, y1, x2, y2, category: this.current() });
    this.focus(this.boxes.chosen);
  }

  // keyboard

  key(event) {
    const index = Number(event.target.closest?.('.box')?.dataset.index ?? -1);
    const command = event.ctrlKey || event.metaKey;
    if (command && event.key.toLowerCase() === 'z') (event.shiftKey ? this.boxes.redo() : this.boxes.undo());
    else if (command && event.key.toLowerCase() === 'y') this.boxes.redo();
    else if (command || event.altKey) return;
    else if (event.key === 'Enter' && index < 0) this.insert();
    else if (index < 0) return;
    else if (event.key in ARROWS) this.arrow(index, event);
    else if (event.key === 'Delete' || event.key === 'Backspace') this.boxes.remove(index);
    else if (event.key === 'd') this.double(index);
    else if (/^[0-9]$/.test(event.key) && Number(event.key) < this.names.length) this.rename(index, Number(event.key));
    else if (event.key === 'Escape') this.boxes.choose(-1);
    else return;
    event.preventDefault();
    if (event.key === 'Escape') this.element.focus({ preventScroll: true });
    else this.focus(this.boxes.chosen);
  }

  arrow(index, event) {
    const [across, down] = ARROWS[event.key];
    const mark = `${event.shiftKey ? 'size' : 'key'} ${index}`;
    if (!event.shiftKey) this.boxes.move(index, across, down, mark);
    else {
      const box = this.boxes.list[index];
      this.boxes.change(() => Object.assign(box, { x2: Math.max(box.x1 + 2, box.x2 + across), y2: Math.max(box.y1 + 2, box.y2 + down) }), mark);
    }
  }

  /** A box in the middle, a quarter of the canvas wide; beside the last one if that lies there. */
  insert() {
    const { width, height, list } = this.boxes;
    const [across, down] = [Math.round(width * 0.25), Math.round(height * 0.4)];
    const shift = (list.length % 5) * Math.round(width / 16);
    const [x1, y1] = [Math.min(width - across, Math.round((width - across) / 2) + shift), Math.min(height - down, Math.round((height - down) / 2) + shift)];
    this.boxes.add({ x1, y1, x2: x1 + across, y2: y1 + down, category: this.current() });
  }

  double(index) {
    const shift = Math.max(2, Math.round(this.boxes.width / 16));
    const box = { ...this.boxes.list[index] };
    const [across, down] = [box.x2 + shift <= this.boxes.width ? shift : -shift, box.y2 + shift <= this.boxes.height ? shift : -shift];
    this.boxes.add({ ...box, x1: box.x1 + across, x2: box.x2 + across, y1: box.y1 + down, y2: box.y2 + down });
  }

  rename(index, category) {
    this.boxes.change(() => { this.boxes.list[index].category = category; });
  }

  focus(index) {
    (this.layer.querySelector(`[data-index="${index}"]`) || this.element).focus({ preventScroll: true });
  }

  draw() {
    const { unit } = this;
    const focused = document.activeElement?.closest?.('.box')?.dataset.index;
    const inside = this.layer.contains(document.activeElement);
    const order = this.boxes.list.map((box, index) => [box, index]);
    this.layer.replaceChildren(...order.map(([box, index]) => this.group(box, index, unit)));
    const chosen = this.layer.querySelector('.chosen');
    if (chosen) this.layer.append(chosen); // on top, with its handles
    if (inside) this.layer.querySelector(`[data-index="${focused}"]`)?.focus({ preventScroll: true });
  }

  group(box, index, unit) {
    const chosen = index === this.boxes.chosen;
    const colour = colourOf(box.category);
    const name = this.names[box.category];
    const [width, height] = [box.x2 - box.x1, box.y2 - box.y1];
    const area = svg('rect', { class: 'area', x: box.x1, y: box.y1, width, height });
    area.style.fill = area.style.stroke = colour;
    const label = svg('text', { class: 'label', x: box.x1 + 4 * unit, y: box.y1 + 14 * unit }, name);
    label.style.fontSize = `${13 * unit}px`;
    label.style.strokeWidth = `${3 * unit}px`;
    const whole = svg('g', {
      class: chosen ? 'box chosen' : 'box', tabindex: 0, role: 'button', 'aria-pressed': String(chosen), 'data-index': index,
      'aria-roledescription': 'box',
      'aria-label': `${name}, ${width} by ${height} at ${box.x1}, ${box.y1}. Arrows move it, with Shift they resize it, Delete deletes it.`,
    }, area, label);
    whole.addEventListener('focus', () => { if (this.boxes.chosen !== index && !this.drag) this.boxes.choose(index); });
    if (chosen) whole.append(...HANDLES.map((sides) => this.handle(box, sides, unit, colour)));
    return whole;
  }

  handle(box, [across, down], unit, colour) {
    const x = across ? box[across] : (box.x1 + box.x2) / 2;
    const y = down ? box[down] : (box.y1 + box.y2) / 2;
    const dot = svg('rect', { class: 'dot' });
    place(dot, x - 4 * unit, y - 4 * unit, 8 * unit, 8 * unit);
    dot.style.stroke = colour;
    const reach = (matchMedia('(pointer: coarse)').matches ? 18 : 9) * unit;
    const room = Math.max(4 * unit, Math.min(reach, (box.x2 - box.x1) / 3, (box.y2 - box.y1) / 3)); // the middle stays for moving
    const hit = svg('rect', { class: 'reach' });
    const [left, right] = across === 'x1' ? [reach, room] : across === 'x2' ? [room, reach] : [room, room];
    const [above, below] = down === 'y1' ? [reach, room] : down === 'y2' ? [room, reach] : [room, room];
    place(hit, x - left, y - above, left + right, above + below);
    hit.style.cursor = `${CURSORS[across + down]}-resize`;
    return svg('g', { class: 'handle', 'data-across': across, 'data-down': down }, dot, hit);
  }
}

function place(rect, x, y, width, height) {
  for (const [name, value] of Object.entries({ x, y, width, height })) rect.setAttribute(name, value);
}

/** The lines of a grid of eighths. */
function lines(width, height) {
  let path = '';
  for (let part = 1; part < 8; part += 1) path += `M${(width * part) / 8} 0V${height}M0 ${(height * part) / 8}H${width}`;
  return path;
}

/** Boxes over a picture, of a layout of that size. `kind`: of their lines. */
export function outlines(layout, names, width, height, kind) {
  const rects = layout.boxes.map(([x1, y1, x2, y2], index) => {
    const category = typeof layout.categories[index] === 'number' ? layout.categories[index] : names.indexOf(layout.categories[index]);
    const rect = svg('rect', { x: x1, y: y1, width: x2 - x1, height: y2 - y1 }, svg('title', {}, `${names[category] ?? category}`));
    rect.style.stroke = colourOf(category);
    const text = svg('text', { x: x1 + width / 64, y: kind === 'found' ? y2 - width / 64 : y1 + width / 11 }, `${names[category] ?? category}`);
    text.style.fontSize = `${width / 12}px`;
    text.style.fill = colourOf(category);
    return [rect, text];
  });
  return svg('svg', { class: `outlines ${kind}`, viewBox: `0 0 ${width} ${height}`, 'aria-hidden': 'true' }, rects);
}
