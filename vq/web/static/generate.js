// The tab Generate: new images of classes or of a text, and the other half of an image.

import { button, capital, card, el, field, missing, notice, number, picture } from './parts.js';
import { imagePlace } from './reconstruct.js';
import { runSelect, sameForm, seedField, settingsOf } from './settings.js';
import { trying, work } from './talk.js';

const ROWS = 12;
const CHIPS = 24;

export class GenerateTab {
  constructor(place, state) {
    Object.assign(this, { place, state, run: null, half: null });
    this.runs = runSelect('Generator', () => this.open());
    this.results = el('div', { class: 'results', 'aria-live': 'polite' });
    this.seed = seedField();
  }

  get chosen() { return this.state.usable('generate').find((run) => run.name === this.runs.value); }

  update() {
    const runs = this.state.usable('generate');
    if (!runs.length) {
      this.run = null;
      this.place.replaceChildren(this.state.waiting() || missing('No generator yet',
        'New images, by class where the run knows classes, and the other half of an image of yours. This trains a tokenizer and a generator on handwritten digits, in four minutes:',
        ['make demo', 'vq train digits_ar digits/ar.py tokenizer=digits']));
      return;
    }
    this.runs.fill(runs);
    if (!this.run || !sameForm(this.run, this.chosen)) this.open();
    else this.told();
  }

  open() {
    this.run = this.chosen;
    this.half = null;
    this.message = el('div', { class: 'messages' });
    if (this.run.error) {
      this.place.replaceChildren(card('', this.runs.element, notice(this.run.error, this.run.hint)));
      return;
    }
    this.about = el('p', { class: 'quiet about' });
    this.told();
    const fields = el('div', { class: 'fields' });
    this.settings = settingsOf(this.run, fields);
    this.count = number(8, { min: 1, max: 16, step: 1 });
    this.go = button('Generate', () => this.draw(), { class: 'main', title: 'Ctrl+Enter' });
    this.place.onkeydown = (event) => { if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) this.draw(); };
    this.place.replaceChildren(el('div', { class: 'columns even' },
      card('', this.runs.element, this.about, this.wish(),
        el('div', { class: 'fields' }, field('Images', this.count), this.seed.element)),
      card('', fields, this.run.completes ? this.completion() : null, this.go, this.message)), this.results);
  }

  /** The checkpoint can be another one than before. */
  told() {
    this.run = this.chosen;
    if (this.about && !this.run.error) this.about.textContent = `${capital(this.run.about)}, ${this.run.weights}`;
  }

  /** What the images are of: classes, a text, or nothing. */
  wish() {
    [this.text, this.negative, this.classes, this.words] = [null, null, null, null];
    const fields = [];
    if (this.run.kinds.includes('text')) {
      this.text = el('textarea', { rows: 2, placeholder: 'what the image shows' });
      this.negative = el('input', { placeholder: 'what it does not show' });
      fields.push(field('Text', this.text), field('Negative text', this.negative, 'guidance leads away from it'));
    }
    const classes = this.run.kinds.includes('classes') && this.run.names.length > 0;
    return [...fields, ...(classes ? [this.classField()] : []), fields.length || classes ? null : el('p', { class: 'quiet' }, 'This run draws without a condition.')];
  }

  classField() {
    if (this.run.names.length > CHIPS) {
      const list = el('datalist', { id: 'class-names' }, this.run.names.map((name) => el('option', { value: name })));
      this.words = el('input', { list: 'class-names', placeholder: 'names or numbers, with commas; none: all in turn' });
      return [field('Classes', this.words), list];
    }
    this.classes = this.run.names.map((name) => {
      const chip = button(name, () => chip.setAttribute('aria-pressed', String(chip.getAttribute('aria-pressed') !== 'true')),
        { class: 'chip', 'aria-pressed': 'false', 'aria-label': `class ${name}` });
      return chip;
    });
    return el('div', { class: 'field' }, el('span', { class: 'label', id: 'classes-label' }, 'Classes'),
      el('div', { class: 'chips', role: 'group', 'aria-labelledby': 'classes-label' }, this.classes),
      el('small', {}, 'image after image in turn; none chosen: all of them'));
  }

  completion() {
    const off = button('Without it', () => {
      this.half = null;
      zone.clear();
      off.hidden = true;
    }, { class: 'small', hidden: true });
    const zone = imagePlace('Complete an image: its first half stays', this.state, (image) => {
      this.half = image;
      off.hidden = false;
    }, this.message);
    this.zone = zone;
    return el('div', { class: 'completion' }, zone, off);
  }

  wanted() {
    const found = {};
    if (this.text?.value) found.text = this.text.value;
    if (this.negative?.value) found.negative = this.negative.value;
    const chosen = this.classes
      ? this.run.names.filter((name, index) => this.classes[index].getAttribute('aria-pressed') === 'true')
      : (this.words?.value || '').split(',').map((word) => word.trim()).filter(Boolean);
    return chosen.length ? { ...found, classes: chosen } : found;
  }

  async draw() {
    if (this.go.disabled) return;
    this.go.disabled = true;
    const asked = { run: this.run.name, count: Number(this.count.value), seed: this.seed.next(), settings: this.settings.read(), ...this.wanted() };
    if (this.half) asked.half = this.half;
    const [words, { run }] = [this.settings.words(), this];
    const found = await trying(this.message, () => work('draw', asked, this.message));
    this.go.disabled = false;
    if (found) this.show(found, asked, words, run);
  }

  show(drawn, asked, words, run) {
    const classes = asked.classes || (run.kinds.includes('classes') ? run.names : []);
    const given = drawn.given ? [el('figure', {}, picture(drawn.given, 'the image that is completed'), el('figcaption', {}, 'given'))] : [];
    const figures = drawn.images.map((url, index) => {
      const name = classes.length ? classes[index % classes.length] : '';
      return el('figure', {}, picture(url, name ? `class ${name}` : `image ${index + 1}`, `seed_${asked.seed}_${index}`), el('figcaption', {}, name));
    });
    this.results.prepend(el('section', { class: 'row' },
      el('header', {}, el('h3', {}, `${run.title}, seed ${asked.seed}`), el('span', { class: 'quiet' }, [words, `${drawn.seconds} s`].filter(Boolean).join(', '))),
      asked.text ? el('p', {}, asked.text) : null,
      el('div', { class: 'strip' }, given, figures)));
    while (this.results.children.length > ROWS) this.results.lastChild.remove();
  }
}
