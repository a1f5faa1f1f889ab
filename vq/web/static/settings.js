// The settings of drawing that a run has: what its task takes, with the values of its config.

import { check, el, field, number, select } from './parts.js';

const WORDS = {
  sampler: ['Sampler', ''],
  steps: ['Steps', 'more are slower and finer'],
  guidance: ['Guidance', '1: none; more follows the request closer'],
  temperature: ['Temperature', 'below 1: more likely, less varied'],
  top_k: ['Top k', 'only the k most probable tokens'],
  top_p: ['Top p', 'only the most probable tokens whose sum is p'],
  min_p: ['Min p', 'relative to the most probable token'],
  greedy: ['Always the most probable token', ''],
  num_iter: ['Iterations', 'each draws some of the tokens'],
  cfg_schedule: ['Guidance over iterations', ''],
};
const LIMITS = {
  steps: { min: 1, max: 1000, step: 1 },
  guidance: { min: 0, max: 100, step: 0.1 },
  temperature: { min: 0, max: 10, step: 0.05 },
  top_k: { min: 1, step: 1, placeholder: 'all' },
  top_p: { min: 0, max: 1, step: 0.01, placeholder: 'all' },
  min_p: { min: 0, max: 1, step: 0.01, placeholder: 'none' },
  num_iter: { min: 1, max: 1000, step: 1 },
};
const FIRST = ['guidance', 'steps', 'sampler', 'temperature'];

/** Fields for the settings of a run, in `place`. `read()` gives those that differ from the config. */
export function settingsOf(run, place) {
  const own = run.settings || {};
  const names = [...FIRST, ...Object.keys(WORDS)].filter((name, at, all) => name in own && all.indexOf(name) === at);
  const controls = {};
  const fields = names.map((name) => {
    const [value, choices] = own[name];
    const [label, hint] = WORDS[name];
    if (typeof value === 'boolean') {
      const whole = check(label, value);
      controls[name] = { get: () => whole.box.checked, value };
      return whole;
    }
    if (choices.length) {
      const options = choices.map((choice) => [choice, choice]);
      const control = select(value === null ? [['', 'that of the config'], ...options] : options, value ?? '');
      controls[name] = { get: () => control.value || null, value };
      return field(label, control, hint);
    }
    const control = number(value, { placeholder: 'of the config', ...LIMITS[name] });
    controls[name] = { get: () => (control.value === '' ? null : Number(control.value)), value, control };
    return field(label, control, hint);
  });
  const few = fields.slice(0, 3);
  const more = fields.slice(3);
  place.replaceChildren(...few, ...(more.length ? [el('details', { class: 'more' }, el('summary', {}, 'More settings'), more)] : []));
  return {
    read: () => Object.fromEntries(Object.entries(controls).map(([name, one]) => [name, one.get()])
      .filter(([name, value]) => value !== null && value !== controls[name].value)),
    words: () => ['sampler', 'steps', 'guidance', 'temperature'].filter((name) => controls[name] && controls[name].get() !== null)
      .map((name) => (name === 'sampler' ? controls[name].get() : `${name} ${controls[name].get()}`)).join(', '),
  };
}

const SEEDS = 2 ** 31 - 1;

/** The seed, and whether the next drawing keeps it. */
export function seedField() {
  const control = number(Math.floor(Math.random() * 10000), { min: 0, max: SEEDS, step: 1 });
  const lock = check('keep it', false);
  lock.title = 'The same seed draws the same noise: what changes then comes from the request.';
  const whole = field('Seed', control);
  whole.append(lock);
  let used = false;
  return {
    element: whole,
    set: (value) => {
      control.value = value;
      used = false;
    },
    lock: () => { lock.box.checked = true; },
    next: () => {
      if (used && !lock.box.checked) control.value = Math.floor(Math.random() * 100000);
      used = true;
      return Number(control.value);
    },
  };
}

/** Whether the fields of two runs are the same: what was typed stays when a run has another checkpoint. */
export function sameForm(one, other) {
  const [a, b] = [one, other].map(({ weights, ...rest }) => JSON.stringify(rest));
  return a === b;
}

/** A choice of runs; the last chosen one stays while it is there. */
export function runSelect(label, change) {
  const control = select([], '', () => change(control.value));
  const whole = field(label, control);
  return {
    element: whole,
    fill: (runs) => {
      const before = control.value;
      control.replaceChildren(...runs.map((run) => el('option', { value: run.name }, run.title)));
      if (runs.some((run) => run.name === before)) control.value = before;
      return before !== control.value;
    },
    get value() { return control.value; },
  };
}
