/** Live: one view as it is now, and the same view with something chosen otherwise, for as long as somebody answers. */

import { useCallback, useEffect, useRef, useState } from 'react';
import type { ViewParams } from '../generated/protocol';
import { Disconnected } from '../transport';
import { SUITS } from './asking';
import type { Change, Of, Options, Request } from './asking';
import type { Header } from './frame';

/** A view, and what gives it again. */
export interface Got {
  header: Header;
  buffers: DataView[];
  params: ViewParams | null;
}

export interface Live {
  got: Got | null;
  trouble: string | null;
  change(change: Change): void;
  /** Give up the numbers; what was chosen stays, and is asked for by the next change. */
  drop(): void;
}

const AGAIN = 1000; // ms until what was asked is asked again, when the line was cut before the answer came

/** Once the next picture is on the screen. */
const painted = (act: () => void) => requestAnimationFrame(() => window.setTimeout(act));

/** `settled` is told of each view that came. */
export function useLive(
  request: Request | undefined,
  of: Of,
  first: Partial<Options>,
  given: Got | null = null,
  settled?: (got: Got) => void
): Live {
  const [got, setGot] = useState<Got | null>(given);
  useEffect(() => setGot(given), [given]);
  const [trouble, setTrouble] = useState<string | null>(null);
  const number = useRef(0);
  const later = useRef<number>();
  const last = useRef<Options>({ ...SUITS, ...first });
  const told = useRef(settled);
  told.current = settled;
  const { run, name, part } = of;
  const ask = useCallback(
    (change: Change) => {
      if (!request) {
        return;
      }
      window.clearTimeout(later.current);
      const mine = ++number.current;
      const asked = performance.now();
      const other = change.kind && change.kind !== last.current.kind; // another kind has other choices
      last.current = { ...(other ? { ...SUITS, prompt: last.current.prompt } : last.current), ...change };
      const params: ViewParams = { run, name, part, ...last.current };
      request('view', params)
        .then(({ reply, buffers }) => {
          if (mine === number.current) {
            const found = { header: reply.view, buffers, params };
            setGot(found);
            setTrouble(null);
            painted(() => performance.measure('workbench:view', { start: asked, detail: found.header.title }));
            told.current?.(found);
          }
        })
        .catch(error => {
          if (mine !== number.current) {
            return;
          }
          if (error instanceof Disconnected) {
            later.current = window.setTimeout(() => ask({}), AGAIN);
          } else {
            setTrouble(error instanceof Error ? error.message : String(error));
          }
        });
    },
    [request, run, name, part]
  );
  const gone = useCallback(() => {
    number.current += 1;
    window.clearTimeout(later.current);
  }, []);
  useEffect(() => gone, [gone]);
  const drop = useCallback(() => setGot(null), []);
  return { got, trouble, change: ask, drop };
}
