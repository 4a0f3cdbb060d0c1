/** Held: how much of views' numbers a page has; of what is out of sight, the longest unseen gives way to what is looked at. */

import { useEffect, useRef, useState } from 'react';

const MOST = 32 * 1024 * 1024; // bytes
const NEAR = 600; // px beyond the edge of what is scrolled, within which a view is asked for already

const HELD = 'workbench:held'; // by which the page's own tools, and tests, see how much it is

interface Holder {
  bytes: number;
  seen: boolean;
  drop(): void;
}

const holders = new Set<Holder>(); // the one that was seen last is the last

function make(room: Holder): void {
  holders.delete(room);
  holders.add(room);
  let all = 0;
  holders.forEach(each => (all += each.bytes));
  for (const each of holders) {
    if (all <= MOST) {
      break;
    }
    if (!each.seen && each !== room) {
      all -= each.bytes;
      holders.delete(each);
      each.drop();
    }
  }
  performance.clearMarks(HELD);
  performance.mark(HELD, { detail: all });
}

/** Whether an element is in sight, or nearly. */
export function useNear(host: { current: HTMLElement | null }): boolean {
  const [near, setNear] = useState(false);
  useEffect(() => {
    const element = host.current;
    if (!element) {
      return;
    }
    const watcher = new IntersectionObserver(entries => setNear(entries.some(each => each.isIntersecting)), {
      root: scrolled(element),
      rootMargin: `${NEAR}px 0px`
    });
    watcher.observe(element);
    return () => watcher.disconnect();
  }, [host]);
  return near;
}

/** Hold so many bytes; `drop` is called when they are to be given up. */
export function useHeld(bytes: number, seen: boolean, drop: () => void): void {
  const holder = useRef<Holder>({ bytes: 0, seen: false, drop });
  useEffect(() => {
    const mine = holder.current;
    Object.assign(mine, { bytes, seen, drop });
    if (bytes) {
      make(mine);
    } else {
      holders.delete(mine);
    }
  }, [bytes, seen, drop]);
  useEffect(() => () => void holders.delete(holder.current), []);
}

/** What an element is scrolled in; the page where nothing is. */
function scrolled(element: HTMLElement): HTMLElement | null {
  for (let each = element.parentElement; each; each = each.parentElement) {
    if (/auto|scroll/.test(getComputedStyle(each).overflowY) && !each.classList.contains('wb-cells')) {
      return each;
    }
  }
  return null;
}
