// Requests to the server, and jobs that it does. Addresses are relative: the token is in the address of the page.

import { button, el, notice } from './parts.js';

/** An error with words for people. */
export class Told extends Error {
  constructor(message, hint = '') {
    super(message);
    this.hint = hint;
  }
}

export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { cache: 'no-store', ...options });
  } catch {
    throw new Told('the server does not answer', 'See whether vq web still runs in its terminal. After a new start, open the new address.');
  }
  let content = {};
  try {
    content = await answer.json();
  } catch {
    throw new Told(`the server answered with something else than JSON (${answer.status})`, 'Load the page again.');
  }
  if (!answer.ok) throw new Told(content.error || `the server answered ${answer.status}`, content.hint);
  return content;
}

export function post(path, content) {
  return ask(path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(content) });
}

/** Check an image file here, then upload it. */
export async function upload(file, limits) {
  if (file.size > limits.bytes) {
    throw new Told(`${file.name} has ${(file.size / 1e6).toFixed(1)} MB, and ${limits.bytes / 1e6} MB are taken`, 'Make it smaller first.');
  }
  return ask('api/images', { method: 'POST', headers: { 'Content-Type': 'application/octet-stream' }, body: file });
}

const pause = (milliseconds) => new Promise((resolve) => { setTimeout(resolve, milliseconds); });

/** Have a job done, with its progress in `place`. Gives its result, or null if it was cancelled. */
export async function work(kind, asked, place) {
  const bar = el('progress', { max: 1, 'aria-label': 'Progress' });
  const note = el('span', { class: 'note', role: 'status' }, 'asking');
  const image = el('img', { class: 'preview', alt: 'The images so far', hidden: true });
  const stop = button('Cancel', null, { class: 'small' });
  place.replaceChildren(el('div', { class: 'progress' }, el('div', { class: 'line' }, bar, stop), note, image));
  const { job } = await post('api/jobs', { kind, asked });
  stop.addEventListener('click', () => {
    stop.disabled = true;
    note.textContent = 'cancelling';
    post(`api/jobs/${job}/cancel`, {}).catch(() => {});
  });
  for (let seen = 0; ;) {
    const told = await ask(`api/jobs/${job}?seen=${seen}`);
    seen = told.previews;
    if (told.preview) {
      image.src = told.preview;
      image.hidden = false;
    }
    if (told.state === 'done') {
      place.replaceChildren();
      return told.result;
    }
    if (told.state === 'cancelled') {
      place.replaceChildren(notice('cancelled', '', 'quiet'));
      return null;
    }
    if (told.state === 'failed') throw new Told(told.error, told.hint);
    if (told.share === null || told.share === undefined) bar.removeAttribute('value');
    else bar.value = told.share;
    if (!stop.disabled) {
      const share = told.share ? ` ${Math.round(told.share * 100)} %` : '';
      note.textContent = told.state === 'waiting' ? `waiting: ${told.ahead} before it` : `${told.note || 'working'}${share}`;
    }
    await pause(150);
  }
}

/** Run `act`; what it throws is shown in `place`. */
export async function trying(place, act) {
  try {
    return await act();
  } catch (error) {
    if (!(error instanceof Told)) console.error(error);
    place.replaceChildren(notice(error.message, error.hint || ''));
    return null;
  }
}
