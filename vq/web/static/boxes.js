// The boxes of a layout, with undo and redo. No elements: the view is in editor.js.

const MOST_STEPS = 200;

/** Boxes in whole pixels of the image: { x1, y1, x2, y2, category }. `listen` is called after each change. */
export class Boxes {
  constructor(width, height) {
    [this.width, this.height] = [width, height];
    this.list = [];
    this.past = [];
    this.future = [];
    this.chosen = -1;
    this.listen = () => {};
    this.mark = '';
  }

  /** Change the boxes by `act`. Changes with the same mark, one after the other, are one step of undo. */
  change(act, mark = '') {
    const before = this.copy();
    act();
    this.list.forEach((box) => this.fit(box));
    if (JSON.stringify(before) !== JSON.stringify(this.list)) {
      if (!mark || mark !== this.mark) this.past.push(before);
      if (this.past.length > MOST_STEPS) this.past.shift();
      this.future = [];
    }
    this.mark = mark;
    this.listen();
  }

  undo() { this.step(this.past, this.future); }

  redo() { this.step(this.future, this.past); }

  step(from, to) {
    if (!from.length) return;
    to.push(this.copy());
    this.list = from.pop();
    this.chosen = Math.min(this.chosen, this.list.length - 1);
    this.mark = '';
    this.listen();
  }

  copy() { return this.list.map((box) => ({ ...box })); }

  choose(index) {
    this.chosen = index;
    this.mark = '';
    this.listen();
  }

  /** Whole pixels within the image, two on a side at least. */
  fit(box) {
    for (const [low, high, most] of [['x1', 'x2', this.width], ['y1', 'y2', this.height]]) {
      if (box[low] > box[high]) [box[low], box[high]] = [box[high], box[low]];
      box[low] = Math.max(0, Math.min(most - 2, Math.round(box[low])));
      box[high] = Math.max(box[low] + 2, Math.min(most, Math.round(box[high])));
    }
  }

  add(box) {
    this.change(() => this.list.push({ ...box }));
    this.choose(this.list.length - 1);
  }

  remove(index) {
    this.change(() => this.list.splice(index, 1));
    this.choose(Math.min(index, this.list.length - 1));
  }

  move(index, across, down, mark) {
    const box = this.list[index];
    const [x, y] = [Math.max(-box.x1, Math.min(this.width - box.x2, across)), Math.max(-box.y1, Math.min(this.height - box.y2, down))];
    this.change(() => Object.assign(box, { x1: box.x1 + x, x2: box.x2 + x, y1: box.y1 + y, y2: box.y2 + y }), mark);
  }

  /** The layout as `vq sample --layout FILE` reads it. */
  layout(names) {
    return {
      boxes: this.list.map((box) => [box.x1, box.y1, box.x2, box.y2]),
      categories: this.list.map((box) => names[box.category]),
    };
  }
}

/** Boxes of a layout's JSON; an Error with words if it is none. */
export function boxesIn(content, names) {
  const row = Array.isArray(content) ? content[0] : content;
  const { boxes, categories } = row || {};
  if (!Array.isArray(boxes) || !Array.isArray(categories) || boxes.length !== categories.length) {
    throw new Error('the file has no boxes with a category each');
  }
  return boxes.map((corners, index) => {
    const sound = Array.isArray(corners) && corners.length === 4 && corners.every(Number.isFinite);
    if (!sound) throw new Error(`box ${index} is not [x1, y1, x2, y2]`);
    const named = names.indexOf(String(categories[index]));
    const category = typeof categories[index] === 'number' ? categories[index] : named >= 0 ? named : Number(categories[index]);
    if (!Number.isInteger(category) || category < 0 || category >= names.length) {
      throw new Error(`box ${index} is of the class ${JSON.stringify(categories[index])}, which this run does not have`);
    }
    const [x1, y1, x2, y2] = corners;
    return { x1, y1, x2, y2, category };
  });
}

const HUES = [0, 28, 48, 95, 150, 178, 205, 232, 275, 320];

/** The colour of a class: ten that differ well, then others by the golden angle. */
export function colourOf(category) {
  const hue = category < HUES.length ? HUES[category] : (category * 137.508) % 360;
  return `hsl(${hue} 85% 62%)`;
}
