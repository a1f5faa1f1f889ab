// The tab Reconstruct: an image through a tokenizer.

import { button, capital, card, el, missing, notice, picture, short } from './parts.js';
import { runSelect } from './settings.js';
import { trying, upload, work } from './talk.js';

/** A place to drop, paste or choose an image. `take(name)` gets the name of the upload. */
export function imagePlace(label, state, take, message) {
  const input = el('input', { type: 'file', accept: 'image/*', onchange: () => send(input.files[0]) });
  const shown = el('div', { class: 'chosen-image' });
  const zone = el('label', { class: 'drop' }, el('strong', {}, label), el('span', { class: 'quiet' }, 'choose a file, drop one here, or paste it'), input, shown);
  async function send(file) {
    input.value = '';
    if (!file) return;
    await trying(message, async () => {
      message.replaceChildren();
      const { image, width, height } = await upload(file, state.limits);
      const url = URL.createObjectURL(file);
      shown.replaceChildren(el('img', { src: url, alt: 'the chosen image', onload: () => URL.revokeObjectURL(url) }),
        el('small', { class: 'quiet' }, `${file.name || 'image'}, ${width} x ${height}`));
      await take(image);
    });
  }
  zone.addEventListener('dragover', (event) => {
    event.preventDefault();
    zone.classList.add('over');
  });
  zone.addEventListener('dragleave', () => zone.classList.remove('over'));
  zone.addEventListener('drop', (event) => {
    event.preventDefault();
    zone.classList.remove('over');
    send(event.dataTransfer.files[0]);
  });
  zone.paste = (event) => {
    const file = [...(event.clipboardData?.files || [])].find((one) => one.type.startsWith('image/'));
    if (file) send(file);
    return Boolean(file);
  };
  zone.send = send;
  zone.clear = () => shown.replaceChildren();
  return zone;
}

export class ReconstructTab {
  constructor(place, state) {
    Object.assign(this, { place, state, image: null, built: false });
    this.runs = runSelect('Tokenizer', () => this.chosenRun());
    this.about = el('p', { class: 'quiet about' });
    this.message = el('div', { class: 'messages' });
    this.result = el('div', { class: 'results', 'aria-live': 'polite' });
    this.go = button('Reconstruct', () => this.reconstruct(), { class: 'main' });
    document.addEventListener('paste', (event) => { if (!this.place.hidden && this.built) this.zone.paste(event); });
  }

  get chosen() { return this.state.usable('reconstruct').find((run) => run.name === this.runs.value); }

  update() {
    const runs = this.state.usable('reconstruct');
    if (!runs.length) {
      this.built = false;
      this.place.replaceChildren(this.state.waiting() || missing('No tokenizer yet',
        'See an image as a tokenizer sees it: its tokens, what comes back, and where it differs. Two minutes of training on handwritten digits give one:',
        ['make demo', 'vq train digits digits/vq_ema.py']));
      return;
    }
    this.runs.fill(runs);
    if (!this.built) this.build();
    this.chosenRun();
  }

  build() {
    this.zone = imagePlace('An image', this.state, (image) => {
      this.image = image;
      return this.reconstruct();
    }, this.message);
    this.place.replaceChildren(el('div', { class: 'columns even' },
      card('', this.runs.element, this.about, this.go, this.message),
      card('', this.zone, button('Take a test picture', () => this.test(), { class: 'small' }))), this.result);
    this.built = true;
  }

  chosenRun() {
    const run = this.chosen;
    this.about.textContent = run && !run.error ? `${capital(run.about)}${run.published ? ', published' : `, ${run.weights}`}` : '';
    this.message.replaceChildren(...(run?.error ? [notice(run.error, run.hint)] : []));
    this.go.disabled = Boolean(run?.error);
  }

  /** A digit in the middle of a dark square, drawn here. */
  test() {
    const canvas = el('canvas', { width: 256, height: 256 });
    const pen = canvas.getContext('2d');
    pen.fillStyle = '#000';
    pen.fillRect(0, 0, 256, 256);
    pen.fillStyle = '#fff';
    pen.font = '500 230px system-ui, sans-serif';
    [pen.textAlign, pen.textBaseline] = ['center', 'alphabetic'];
    pen.fillText(String(Math.floor(Math.random() * 10)), 128, 212);
    canvas.toBlob((blob) => this.zone.send(new File([blob], 'test.png', { type: 'image/png' })));
  }

  async reconstruct() {
    if (!this.image) {
      this.message.replaceChildren(notice('there is no image yet', 'Choose a file, drop one, or take the test picture.'));
      return;
    }
    if (this.go.disabled) return;
    this.go.disabled = true;
    const found = await trying(this.message, () => work('reconstruct', { run: this.runs.value, image: this.image }, this.message));
    this.go.disabled = false;
    if (found) this.show(found, this.chosen);
  }

  show(found, run) {
    const [width, height] = found.size;
    const views = [['Input, as the model takes it', picture(found.given, 'the input', 'input')]];
    if (found.made) views.push(['Reconstruction', picture(found.made, 'the reconstruction', 'reconstruction')]);
    if (found.error) views.push([`Error, white: ${short(found.largest * 100)} % of the range`, picture(found.error, 'where the two differ', 'error')]);
    if (found.tokens) views.push(['Tokens, a colour for each code', this.tokenView(found)]);
    this.result.replaceChildren(el('section', { class: 'row' },
      el('header', {}, el('h3', {}, run.title), el('span', { class: 'quiet' }, `${width} x ${height} pixels, ${found.seconds} s`)),
      el('div', { class: 'views' }, views.map(([words, view]) => el('figure', {}, el('figcaption', {}, words), view))),
      el('div', { class: 'cards' }, cards(found))));
  }

  /** The map of tokens; the number of the one below the pointer is shown. */
  tokenView(found) {
    const image = picture(found.tokens, 'the map of tokens', 'tokens');
    const said = el('small', { class: 'quiet token', 'aria-hidden': 'true' }, found.numbers ? 'point at a cell' : '');
    if (found.numbers) {
      image.addEventListener('pointermove', (event) => {
        const place = image.getBoundingClientRect();
        const rows = found.numbers;
        const row = Math.min(rows.length - 1, Math.max(0, Math.floor(((event.clientY - place.top) / place.height) * rows.length)));
        const column = Math.min(rows[row].length - 1, Math.max(0, Math.floor(((event.clientX - place.left) / place.width) * rows[row].length)));
        said.textContent = `row ${row}, column ${column}: code ${rows[row][column]}`;
      });
    }
    return el('div', {}, image, said);
  }
}

function cards(found) {
  const [width, height] = found.size;
  const all = [];
  if (found.made) all.push(['PSNR', found.psnr === null ? '∞' : found.psnr.toFixed(1), 'dB', 'more is closer'], ['Mean error', short(found.mean * 100), '%', 'of the range of a pixel']);
  if (found.bits !== undefined) {
    all.push(['Size', short(found.bits, 4), 'bits', `${found.cells.join(' x ')} tokens of ${found.codes.join(' x ')} codes`],
      ['A pixel', short(found.bits / (width * height)), 'bits', `${short(1 / found.share)} times fewer than the 24 of raw pixels`],
      ['Codes', String(found.different), '', 'different ones in this image']);
  }
  if (found.latent) all.push(['Latent', found.latent.join(' x '), '', 'numbers; a continuous tokenizer has no tokens']);
  return all.map(([label, value, unit, note]) => el('div', { class: 'card' }, el('div', { class: 'label' }, label),
    el('div', { class: 'value' }, value, el('small', {}, unit)), el('div', { class: 'note' }, note)));
}
