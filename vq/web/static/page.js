// The page: its tabs, and what the server knows of the runs.

import { card, el, notice } from './parts.js';
import { ask } from './talk.js';
import { LayoutTab } from './layout.js';
import { ReconstructTab } from './reconstruct.js';
import { GenerateTab } from './generate.js';
import { RunsTab } from './runs.js';

const NAMES = ['layout', 'reconstruct', 'generate', 'runs'];
const [SOON, LATER] = [500, 5000]; // milliseconds between two questions: while runs are looked at, and otherwise

/** What the server last said. */
class State {
  constructor() {
    Object.assign(this, { runs: [], looking: true, limits: { bytes: 1e7, side: 4096 }, root: '', error: '', hint: '' });
  }

  usable(tab) { return this.runs.filter((run) => run.use.includes(tab)); }

  /** What a tab without runs shows while they are looked at, or could not be. */
  waiting() {
    if (this.looking) {
      return card('', el('p', { class: 'quiet', role: 'status' }, `Looking at the runs of ${this.root || 'this folder'}`), el('progress', { 'aria-label': 'Looking at the runs' }));
    }
    return this.error ? notice(this.error, this.hint) : null;
  }
}

const state = new State();
const panels = Object.fromEntries(NAMES.map((name) => [name, document.getElementById(name)]));
const tabs = {
  layout: new LayoutTab(panels.layout, state),
  reconstruct: new ReconstructTab(panels.reconstruct, state),
  generate: new GenerateTab(panels.generate, state),
  runs: new RunsTab(panels.runs, state),
};

function show(name) {
  for (const other of NAMES) {
    const tab = document.getElementById(`tab-${other}`);
    tab.setAttribute('aria-selected', String(other === name));
    tab.tabIndex = other === name ? 0 : -1;
    panels[other].hidden = other !== name;
  }
  history.replaceState(null, '', `#${name}`);
  document.title = `vq: ${name}`;
  if (name === 'runs') tabs.runs.load();
  window.dispatchEvent(new Event('resize'));
}

for (const name of NAMES) {
  const tab = document.getElementById(`tab-${name}`);
  tab.addEventListener('click', () => show(name));
  tab.addEventListener('keydown', (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const to = by ? NAMES[(NAMES.indexOf(name) + by + NAMES.length) % NAMES.length] : { Home: NAMES[0], End: NAMES.at(-1) }[event.key];
    if (!to) return;
    event.preventDefault();
    show(to);
    document.getElementById(`tab-${to}`).focus();
  });
}

let last = '';

/** Ask what there is; tabs are told when it has changed. */
async function look() {
  let next = LATER;
  try {
    const found = await ask('api/state');
    Object.assign(state, { error: '', hint: '', offline: false, ...found });
    document.getElementById('where').textContent = `${found.root}${found.device ? ` on ${found.device}` : ''}`;
    document.getElementById('offline')?.remove();
    if (found.looking) next = SOON;
  } catch (error) {
    if (!document.getElementById('offline')) {
      const told = notice(error.message, error.hint || '');
      told.id = 'offline';
      document.getElementById('main').prepend(told);
    }
  }
  const now = JSON.stringify([state.runs, state.runs.length ? '' : state.looking, state.error, state.root]);
  if (now !== last) {
    last = now;
    for (const tab of Object.values(tabs)) tab.update();
  }
  setTimeout(look, next);
}

show(NAMES.includes(location.hash.slice(1)) ? location.hash.slice(1) : 'layout');
look();
