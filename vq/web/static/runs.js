// The tab Runs: a list, what one of them learned, and several side by side.

import { bytes, button, card, command, el, missing } from './parts.js';
import { ask, trying, work } from './talk.js';

const MOST = 6; // runs of a comparison
const MANY = 12; // runs, from which on they can be filtered
const FEW = 12; // differences of configs that are shown at once

export class RunsTab {
  constructor(place, state) {
    Object.assign(this, { place, state, chosen: new Set(), rows: [] });
    this.list = el('div', { class: 'run-list' });
    this.message = el('div', { class: 'messages' });
    this.detail = el('div', { class: 'detail', tabindex: -1, 'aria-live': 'polite' });
    this.compareButton = button('Compare', () => this.compare(), { class: 'main', disabled: true });
    this.hint = el('small', { class: 'quiet' });
    this.reload = button('Load again', () => this.load());
    this.filter = el('input', { type: 'search', placeholder: 'part of a name', 'aria-label': 'Show runs with this in their name', oninput: () => this.sift() });
  }

  update() {
    if (!this.place.hidden) this.load();
  }

  async load() {
    if (!this.place.firstChild) this.place.replaceChildren(card('', el('p', { class: 'quiet' }, 'Reading the list of runs')));
    const found = await trying(this.message, () => ask('api/runs'));
    if (!found) {
      this.place.replaceChildren(this.message);
      return;
    }
    this.rows = found.runs;
    if (!this.rows.length) {
      this.place.replaceChildren(missing('No runs yet', 'Everything that is trained gets a folder here, with its curves and pictures. Begin with this, which takes four minutes:',
        ['make demo', 'vq train digits digits/vq_ema.py']));
      return;
    }
    this.chosen = new Set([...this.chosen].filter((name) => this.rows.some((run) => run.name === name)));
    this.list.replaceChildren(...this.rows.map((run) => this.row(run)));
    this.place.replaceChildren(card('', el('div', { class: 'bar' }, this.compareButton, this.hint, this.reload), this.rows.length > MANY ? this.filter : null, this.list, this.message), this.detail);
    this.count();
    this.sift();
  }

  /** Hide the runs whose names lack the words of the filter. */
  sift() {
    const words = this.filter.value.toLowerCase().split(/\s+/);
    this.rows.forEach((run, index) => {
      this.list.children[index].hidden = !words.every((word) => run.name.toLowerCase().includes(word));
    });
  }

  row(run) {
    const box = el('input', { type: 'checkbox', 'aria-label': `compare ${run.name}`, checked: this.chosen.has(run.name), onchange: () => {
      if (box.checked) this.chosen.add(run.name);
      else this.chosen.delete(run.name);
      this.count();
    } });
    const steps = run.step === null ? '' : `${run.step.toLocaleString('en')}${run.iters ? ` of ${run.iters.toLocaleString('en')}` : ''} steps`;
    return el('div', { class: 'run' }, box,
      button(run.name, () => this.open(run.name), { class: 'name' }),
      el('span', { class: `state ${run.state.split(' ')[0]}` }, run.state),
      el('span', {}, run.kind), el('span', {}, steps),
      el('span', {}, run.best ? `${run.best.name} ${run.best.value}` : ''),
      el('span', { class: 'quiet' }, `${bytes(run.size)}, ${ago(run.changed)}`));
  }

  count() {
    const many = this.chosen.size;
    this.compareButton.disabled = many < 2 || many > MOST;
    this.hint.textContent = many < 2 ? 'choose two or more to compare them' : many > MOST ? `at most ${MOST} at once` : `${many} chosen`;
  }

  async open(name) {
    const found = await trying(this.message, () => ask(`api/run?run=${encodeURIComponent(name)}`));
    if (!found) return;
    this.message.replaceChildren();
    const curves = el('div');
    curves.innerHTML = found.curves + found.best_of; // of the server, which escapes all text
    const pictures = found.pictures.map(({ file, title }) => el('figure', {}, el('figcaption', {}, title),
      el('img', { loading: 'lazy', alt: title, src: `api/picture?run=${encodeURIComponent(name)}&file=${encodeURIComponent(file)}` })));
    this.detail.replaceChildren(card(name,
      el('p', {}, `${found.kind}, ${found.state}${found.config ? `, of ${found.config}` : ''}.`),
      found.figures.length ? el('div', { class: 'cards' }, found.figures.slice(0, 8).map(([label, value]) => el('div', { class: 'card' },
        el('div', { class: 'label' }, label), el('div', { class: 'value' }, value), el('div', { class: 'note' }, `at step ${found.at}`)))) : null,
      curves,
      pictures.length ? el('div', { class: 'sheets' }, pictures) : el('p', { class: 'quiet' }, 'It has no pictures.'),
      command(`vq report ${name}`)));
    this.detail.focus({ preventScroll: true });
    this.detail.scrollIntoView({ block: 'start' });
  }

  async compare() {
    this.compareButton.disabled = true;
    this.detail.replaceChildren();
    const found = await trying(this.message, () => work('compare', { runs: [...this.chosen] }, this.message));
    this.count();
    if (!found) return;
    const whole = el('div', { class: 'comparison' });
    whole.innerHTML = found.html; // the parts of the page of vq compare, which escapes all text
    fold(whole.querySelector('#configs'));
    this.detail.replaceChildren(el('h2', {}, `${found.title} side by side`), el('p', { class: 'quiet' }, found.lead), whole);
    this.detail.focus({ preventScroll: true });
    this.detail.scrollIntoView({ block: 'start' });
  }
}

/** Long tables of configs open on demand, behind what was drawn and measured. */
function fold(section) {
  const table = section?.querySelector('.scroll');
  const many = section?.querySelectorAll('tbody tr').length;
  if (!table || many <= FEW) return;
  const details = el('details', {}, el('summary', {}, `${many} values differ`));
  table.replaceWith(details);
  details.append(table);
  section.parentElement.append(section);
}

function ago(seconds) {
  const past = Math.max(0, Date.now() / 1000 - seconds);
  const units = [['day', 86400], ['hour', 3600], ['minute', 60]];
  const [name, size] = units.find(([, one]) => past >= one) || ['', 1];
  if (!name) return 'just now';
  const count = Math.floor(past / size);
  return `${count} ${name}${count === 1 ? '' : 's'} ago`;
}

