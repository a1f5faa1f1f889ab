// Elements, fields and messages that the tabs share.

let numbers = 0;

/** An element. `on...` are listeners, other properties are attributes; false and null leave an attribute out. */
export function el(name, properties = {}, ...children) {
  return filled(document.createElement(name), properties, children);
}

export function svg(name, properties = {}, ...children) {
  return filled(document.createElementNS('http://www.w3.org/2000/svg', name), properties, children);
}

function filled(element, properties, children) {
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, '');
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A control under its label. */
export function field(label, control, hint = '') {
  control.id ||= `field-${++numbers}`;
  const note = hint ? el('small', { id: `${control.id}-hint` }, hint) : null;
  if (note) control.setAttribute('aria-describedby', note.id);
  return el('div', { class: 'field' }, el('label', { for: control.id }, label), control, note);
}

export function select(options, chosen, change = () => {}) {
  const made = options.map(([value, text]) => el('option', { value, selected: value === chosen }, text));
  return el('select', { onchange: change }, made);
}

export function number(value, { min, max, step = 'any', placeholder = '' } = {}) {
  const control = el('input', { type: 'number', inputmode: 'decimal', min, max, step, placeholder });
  control.value = value ?? '';
  return control;
}

export function check(label, checked, change = () => {}) {
  const box = el('input', { type: 'checkbox', checked, onchange: () => change(box.checked) });
  const whole = el('label', { class: 'check' }, box, label);
  whole.box = box;
  return whole;
}

export function button(label, press, properties = {}) {
  return el('button', { type: 'button', onclick: press, ...properties }, label);
}

/** A message; errors are read aloud at once. */
export function notice(text, hint = '', kind = 'error') {
  const role = kind === 'error' ? 'alert' : 'status';
  const first = /[.!?]$/.test(text) ? text : `${text}.`;
  return el('div', { class: `notice ${kind}`, role }, el('p', {}, capital(first)), hint ? el('p', { class: 'hint' }, hint) : null);
}

export function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export function card(title, ...children) {
  return el('section', { class: 'card-like' }, title ? el('h2', {}, title) : null, children);
}

/** A command to type, with a button that copies it. */
export function command(line) {
  const done = el('span', { class: 'copied', role: 'status' });
  const copy = button('Copy', async () => {
    await navigator.clipboard.writeText(line);
    done.textContent = 'copied';
  }, { class: 'small', 'aria-label': `Copy ${line}` });
  return el('div', { class: 'command' }, el('code', {}, line), navigator.clipboard ? copy : null, done);
}

/** What a tab shows while no run serves it. `lines`: the commands that make one, in a checkout and elsewhere. */
export function missing(title, text, lines) {
  const places = ['In a checkout of vq', 'Where vq is installed'];
  return card(title, el('p', {}, text), lines.map((line, index) => [el('p', { class: 'place' }, places[index]), command(line)]),
    el('p', { class: 'quiet' }, 'Type it in a terminal. This page notices the run by itself when its first checkpoint is there.'));
}

/** Sizes of files in words. */
export function bytes(count) {
  const units = ['bytes', 'kB', 'MB', 'GB', 'TB'];
  let place = 0;
  while (count >= 1000 && place < units.length - 1) {
    count /= 1000;
    place += 1;
  }
  return `${count >= 100 || place === 0 ? Math.round(count) : count.toFixed(1)} ${units[place]}`;
}

export function short(value, digits = 3) {
  return Number(value.toPrecision(digits)).toString();
}

/** A picture with a link that saves it. */
export function picture(url, words, name = '') {
  const image = el('img', { src: url, alt: words, draggable: 'false' });
  if (!name) return image;
  return el('a', { class: 'picture', href: url, download: `${name}.png`, title: `${words}. Save as ${name}.png` }, image);
}
