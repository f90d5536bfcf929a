/** What the parts of the page know together, and how they tell each other that it changed. */

const listeners = new Map();

/** Call `listener` whenever `event` is told. */
export function on(event, listener) {
  if (!listeners.has(event)) listeners.set(event, []);
  listeners.get(event).push(listener);
}

export function tell(event, detail) {
  for (const listener of listeners.get(event) ?? []) listener(detail);
}

/**
 * session: what the server said last. scan: the scan on screen ({id, name, volume}), or null. result: the
 * result chosen as "after", or null. against: "scan" or the id of the result shown as "before".
 */
export const state = { session: null, scan: null, result: null, against: "scan" };

/** Things remembered over a reload of this tab (never patient data: ids the server made up, and settings). */
export const remembered = {
  get(name) {
    return sessionStorage.getItem(`neuromend-${name}`);
  },
  set(name, value) {
    if (value === null || value === undefined) sessionStorage.removeItem(`neuromend-${name}`);
    else sessionStorage.setItem(`neuromend-${name}`, value);
  },
};
