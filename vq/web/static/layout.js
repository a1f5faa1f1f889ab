// The tab Layout: boxes, settings, and the images that a run draws of them.

import { button, capital, card, check, el, field, missing, notice, number, picture, select } from './parts.js';
import { Boxes, boxesIn, colourOf } from './boxes.js';
import { Editor, outlines } from './editor.js';
import { runSelect, sameForm, seedField, settingsOf } from './settings.js';
import { trying, work } from './talk.js';

const ROWS = 12; // drawings that stay on the page
const CHIPS = 24; // classes that are shown as buttons
const KEYS = ['Enter on the canvas adds a box, Tab goes to the next one', 'Arrows move a box, with Shift they resize it', '0 to 9 give it a class',
  'D copies it, Delete deletes it', 'Ctrl+Z and Ctrl+Shift+Z undo and redo', 'Ctrl+Enter draws the images'];
const EXAMPLES = [ // (name, [[x1, y1, x2, y2 in hundredths, class], ...])
  ['Four corners', [[12, 8, 26, 44, 1], [62, 8, 86, 44, 2], [10, 56, 34, 92, 3], [62, 56, 88, 92, 4]]],
  ['A year', [[4, 34, 23, 64, 2], [28, 34, 47, 64, 0], [52, 34, 71, 64, 2], [76, 34, 95, 64, 6]]],
  ['Stairs', [[6, 5, 27, 37, 3], [38, 34, 60, 66, 2], [76, 63, 88, 95, 1]]],
  ['Two', [[14, 30, 38, 68, 7], [60, 30, 84, 68, 3]]],
  ['Alone', [[38, 30, 62, 70, 8]]],
];

export class LayoutTab {
  constructor(place, state) {
    Object.assign(this, { place, state, run: null, category: 0 });
    this.results = el('div', { class: 'results', 'aria-live': 'polite' });
    this.runs = runSelect('Run', () => this.open());
    this.seed = seedField();
  }

  update() {
    const runs = this.state.usable('layout');
    if (!runs.length) {
      this.run = null;
      this.place.replaceChildren(this.state.waiting() || missing('No run draws layouts yet',
        'Draw boxes, say what belongs into each, and get an image. A run of configs/layout does that. This trains one on handwritten digits, in a quarter of an hour:',
        ['make demo-layout', 'vq train layout_digits layout/digits.py']));
      return;
    }
    const other = this.runs.fill(runs);
    if (other || !this.run || !sameForm(this.run, this.chosen)) this.open();
    else this.told();
  }

  get chosen() { return this.state.usable('layout').find((run) => run.name === this.runs.value); }

  /** Build the tab for the chosen run. */
  open() {
    const before = this.run;
    this.run = this.chosen;
    if (this.run.error) {
      this.place.replaceChildren(card('Layout', this.runs.element, notice(this.run.error, this.run.hint)));
      return;
    }
    const [height, width] = this.run.image;
    const same = before && this.boxes && String(before.image) === String(this.run.image) && String(before.names) === String(this.run.names);
    const kept = same ? this.boxes.copy() : null;
    this.boxes = new Boxes(width, height);
    this.editor = new Editor(this.boxes, this.run.names, () => this.category);
    this.message = el('div', { class: 'messages' });
    this.settingsPlace = el('div', { class: 'fields' });
    this.settings = settingsOf(this.run, this.settingsPlace);
    this.count = number(this.count?.value || 4, { min: 1, max: 16, step: 1 });
    const takesText = this.run.kinds.includes('text');
    this.text = takesText ? el('textarea', { rows: 2, placeholder: 'what the image shows' }) : null;
    this.negative = takesText ? el('input', { placeholder: 'what it does not show' }) : null;
    this.draw = button('Draw', () => this.sample(), { class: 'main', title: 'Ctrl+Enter' });
    this.place.replaceChildren(el('div', { class: 'columns' }, this.canvasCard(), this.settingsCard()), this.results);
    this.boxes.listen = () => this.changed();
    if (kept) this.boxes.list = kept;
    else if (!this.restore()) this.example(0);
    this.boxes.past = [];
    this.changed();
  }

  canvasCard() {
    this.classes = this.run.names.length <= CHIPS
      ? el('div', { class: 'chips', role: 'radiogroup', 'aria-label': 'Class of the chosen box and of new ones' })
      : field('Class', select(this.run.names.map((name, index) => [String(index), name]), '0', (event) => this.take(Number(event.target.value))));
    this.bar = {
      undo: button('Undo', () => this.boxes.undo(), { title: 'Ctrl+Z' }),
      redo: button('Redo', () => this.boxes.redo(), { title: 'Ctrl+Shift+Z' }),
      add: button('Add a box', () => { this.editor.insert(); this.editor.focus(this.boxes.chosen); }, { title: 'Enter on the canvas' }),
      double: button('Copy', () => this.editor.double(this.boxes.chosen), { title: 'D on a box', 'aria-label': 'Copy the chosen box' }),
      remove: button('Delete', () => this.boxes.remove(this.boxes.chosen), { title: 'Delete on a box', 'aria-label': 'Delete the chosen box' }),
      clear: button('Clear', () => this.boxes.change(() => { this.boxes.list = []; this.boxes.chosen = -1; })),
    };
    const examples = select([['', 'Examples'], ...EXAMPLES.map(([name], index) => [String(index), name])], '', (event) => {
      if (event.target.value) this.example(Number(event.target.value));
      event.target.value = '';
    });
    examples.setAttribute('aria-label', 'Examples of layouts');
    this.file = el('input', { type: 'file', accept: '.json,application/json', hidden: true, onchange: () => this.load(), id: 'layout-file' });
    this.corners = el('div', { class: 'corners' });
    this.tip = el('div', { class: 'quiet tip' }, el('p', {}, 'Drag on the canvas to draw a box. Drag a box or its corners to change it.'),
      el('details', {}, el('summary', {}, 'By keyboard'), el('ul', {}, KEYS.map((line) => el('li', {}, line)))));
    return card('', el('div', { class: 'bar' }, this.bar.add, this.bar.undo, this.bar.redo, this.bar.double, this.bar.remove, this.bar.clear, examples),
      this.classes, el('div', { class: 'frame' }, this.editor.element), this.corners, this.tip,
      el('div', { class: 'bar' }, button('Open JSON', () => this.file.click()), button('Save JSON', () => this.save()), this.file,
        el('small', { class: 'quiet' }, 'the file of ', el('code', {}, 'vq sample --layout FILE'))));
  }

  settingsCard() {
    const enter = (event) => { if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) this.sample(); };
    this.place.onkeydown = enter;
    this.about = el('p', { class: 'quiet about' });
    this.told();
    return card('', this.runs.element, this.about,
      this.text ? [field('Caption', this.text), field('Negative text', this.negative, 'guidance leads away from it')] : null,
      el('div', { class: 'fields' }, field('Images', this.count), this.seed.element), this.settingsPlace,
      this.draw, this.message);
  }

  /** The checkpoint can be another one than before. */
  told() {
    this.run = this.chosen;
    if (this.about && !this.run.error) this.about.textContent = `${capital(this.run.about)}, ${this.run.weights}`;
  }

  /** Take a class for the chosen box and for new ones. */
  take(category) {
    this.category = category;
    if (this.boxes.chosen >= 0) this.editor.rename(this.boxes.chosen, category);
    else this.changed();
  }

  changed() {
    const { list, chosen, past, future } = this.boxes;
    if (chosen >= 0) this.category = list[chosen].category;
    this.editor.draw();
    this.bar.undo.disabled = !past.length;
    this.bar.redo.disabled = !future.length;
    this.bar.double.disabled = this.bar.remove.disabled = chosen < 0;
    this.bar.clear.disabled = !list.length;
    if (this.run.names.length <= CHIPS) this.showChips();
    else this.classes.querySelector('select').value = String(this.category);
    this.showCorners();
    sessionStorage.setItem('vq layout', JSON.stringify({ names: this.run.names, size: this.run.image, list }));
  }

  showChips() {
    const focused = this.classes.contains(document.activeElement);
    this.classes.replaceChildren(...this.run.names.map((name, index) => {
      const chip = button(name, () => this.take(index), {
        class: 'chip', role: 'radio', 'aria-checked': String(index === this.category), tabindex: index === this.category ? 0 : -1,
        'aria-label': `class ${name}`,
      });
      chip.style.setProperty('--colour', colourOf(index));
      chip.addEventListener('keydown', (event) => {
        const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (!by) return;
        event.preventDefault();
        this.take((index + by + this.run.names.length) % this.run.names.length);
      });
      return chip;
    }));
    if (focused) this.classes.querySelector('[tabindex="0"]').focus();
  }

  /** Numbers of the chosen box, which can be typed. */
  showCorners() {
    const { list, chosen } = this.boxes;
    const box = list[chosen];
    if (!box) {
      this.corners.replaceChildren(el('span', { class: 'quiet' }, list.length ? `${list.length} ${list.length === 1 ? 'box' : 'boxes'}` : 'no boxes'));
      return;
    }
    if (this.corners.contains(document.activeElement) && this.corners.dataset.index === String(chosen)) return;
    this.corners.dataset.index = String(chosen);
    const part = (label, value, set) => {
      const control = number(value, { step: 1 });
      control.addEventListener('change', () => {
        if (control.value !== '') this.boxes.change(() => set(Number(control.value)));
      });
      return el('label', { class: 'inline' }, label, control);
    };
    this.corners.replaceChildren(
      part('left', box.x1, (value) => Object.assign(box, { x2: value + box.x2 - box.x1, x1: value })),
      part('top', box.y1, (value) => Object.assign(box, { y2: value + box.y2 - box.y1, y1: value })),
      part('width', box.x2 - box.x1, (value) => { box.x2 = box.x1 + Math.max(2, value); }),
      part('height', box.y2 - box.y1, (value) => { box.y2 = box.y1 + Math.max(2, value); }),
    );
  }

  example(index) {
    const { width, height } = this.boxes;
    const many = this.run.names.length;
    this.boxes.change(() => {
      this.boxes.chosen = -1;
      this.boxes.list = EXAMPLES[index][1].map(([x1, y1, x2, y2, category]) => (
        { x1: (x1 * width) / 100, y1: (y1 * height) / 100, x2: (x2 * width) / 100, y2: (y2 * height) / 100, category: category % many }));
    });
  }

  /** The layout of before the page was loaded again. */
  restore() {
    try {
      const kept = JSON.parse(sessionStorage.getItem('vq layout'));
      if (String(kept.names) !== String(this.run.names) || String(kept.size) !== String(this.run.image)) return false;
      this.boxes.change(() => { this.boxes.list = kept.list; });
      return true;
    } catch {
      return false;
    }
  }

  save() {
    const text = `${JSON.stringify([this.boxes.layout(this.run.names)], null, 1)}\n`;
    const url = URL.createObjectURL(new Blob([text], { type: 'application/json' }));
    el('a', { href: url, download: 'layout.json' }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  async load() {
    const [file] = this.file.files;
    this.file.value = '';
    if (!file) return;
    try {
      const content = JSON.parse(await file.text());
      const list = boxesIn(content, this.run.names);
      this.boxes.change(() => Object.assign(this.boxes, { list, chosen: -1 }));
      const more = Array.isArray(content) && content.length > 1;
      this.message.replaceChildren(notice(`${file.name}: ${list.length} boxes${more ? `, the first of ${content.length} layouts` : ''}`, '', 'quiet'));
    } catch (error) {
      this.message.replaceChildren(notice(`${file.name} cannot be read: ${error.message}`,
        'Write [{"boxes": [[x1, y1, x2, y2], ...], "categories": [...]}], in pixels.'));
    }
  }

  async sample() {
    if (this.draw.disabled) return;
    this.draw.disabled = true;
    const layout = this.boxes.layout(this.run.names);
    const asked = { run: this.run.name, layout: [layout], count: Number(this.count.value), seed: this.seed.next(), settings: this.settings.read() };
    if (this.text?.value) asked.text = this.text.value;
    if (this.negative?.value) asked.negative = this.negative.value;
    const words = this.settings.words();
    const { run } = this;
    const found = await trying(this.message, () => work('draw', asked, this.message));
    this.draw.disabled = false;
    if (found) this.show({ ...found, layout, seed: asked.seed, words, run });
  }

  /** A row of images above the earlier ones. */
  show(drawn) {
    const [width, height] = drawn.size;
    const { names } = drawn.run;
    const figures = drawn.images.map((url, index) => {
      const over = el('div', { class: 'over' }, picture(url, `image ${index + 1} of the seed ${drawn.seed}`, `seed_${drawn.seed}_${index}`),
        outlines(drawn.layout, names, width, height, 'asked'), drawn.detected ? outlines(drawn.detected[index], names, width, height, 'found') : null);
      return el('figure', {}, over, button('Behind the boxes', () => this.editor.show(this.editor.behind === url ? '' : url), { class: 'small' }));
    });
    const row = el('section', { class: 'row' },
      el('header', {}, el('h3', {}, `Seed ${drawn.seed}`), el('span', { class: 'quiet' }, `${drawn.words}, ${drawn.seconds} s`)),
      el('div', { class: 'strip' }, figures),
      el('footer', {}, check('boxes asked for', true, (on) => row.classList.toggle('no-asked', !on)),
        drawn.detected ? check('boxes detected', true, (on) => row.classList.toggle('no-found', !on)) : el('small', { class: 'quiet' }, drawn.undetected || ''),
        button('Take this layout and seed', () => this.again(drawn), { class: 'small' })));
    this.results.prepend(row);
    while (this.results.children.length > ROWS) this.results.lastChild.remove();
  }

  again(drawn) {
    trying(this.message, () => {
      const list = boxesIn(drawn.layout, this.run.names); // of another run, its classes can be missing here
      this.boxes.change(() => Object.assign(this.boxes, { list, chosen: -1 }));
      this.seed.set(drawn.seed);
      this.editor.element.scrollIntoView({ block: 'center' });
    });
  }
}
