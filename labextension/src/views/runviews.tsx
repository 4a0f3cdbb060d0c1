/** All that a run has to look at: each entry asks for its view when it is opened, and again when something is chosen. */

import { useCallback, useEffect, useRef, useState } from 'react';
import type { ReactNode } from 'react';
import type { Entry, RunResult } from '../generated/protocol';
import type { Request } from './asking';
import { useHeld, useNear } from './held';
import { packed } from './kept';
import type { Kept } from './kept';
import { useLive } from './live';
import type { Got } from './live';
import { seen } from './numbers';
import type { Selection } from './selection';
import { View } from './view';

export type Keep = (kept: Kept) => void;

interface Props {
  result: RunResult;
  request: Request;
  selection: Selection;
  keep?: Keep;
}

interface OneProps {
  run: number;
  prompt: number;
  entry: Entry;
  request: Request;
  selection: Selection;
  settled?(entry: Entry, got: Got): void;
}

const OPEN = new Set(['residual', 'attention']); // of the whole run; saved values are all open

export function RunViews({ result, request, selection, keep }: Props) {
  const { run, prompts } = result;
  const [entries, setEntries] = useState<Entry[]>([]);
  const [prompt, setPrompt] = useState(0);
  useEffect(() => {
    let here = true;
    setPrompt(0);
    request('views', { run })
      .then(({ reply }) => here && setEntries(reply.entries))
      .catch(() => here && setEntries([])); // nobody answers: the run's headline stays
    return () => {
      here = false;
    };
  }, [run, request]);
  const settled = useKeeping(result, entries, keep);
  const whole = entries.filter(entry => entry.name === '');
  const saved = entries.filter(entry => entry.name !== '');
  const drawn = new Set(saved.map(entry => entry.name));
  return (
    <>
      <div className="wb-views">
        {saved.map(entry => (
          <Saved key={`${run} ${entry.name} ${entry.part}`} result={result} entry={entry}>
            <One prompt={0} {...{ run, request, selection, entry, settled }} />
          </Saved>
        ))}
      </div>
      {result.saved
        .filter(each => !drawn.has(each.name))
        .map(each => (
          <p key={each.name} className="wb-saved" role="region" aria-label={`Saved ${each.name}`}>
            <b>{each.name}</b> <span className="wb-quiet">{each.text}</span>
          </p>
        ))}
      {whole.length > 0 && prompts.length > 1 && (
        <label className="wb-of-which">
          the run, over{' '}
          <select
            className="wb-inline"
            aria-label="Prompt that is looked at"
            value={prompt}
            onChange={event => setPrompt(Number(event.target.value))}
          >
            {prompts.map((each, index) => (
              <option key={index} value={index}>
                prompt {index + 1}: {seen(each.prompt).slice(0, 60)}
              </option>
            ))}
          </select>
        </label>
      )}
      <div className="wb-views">
        {whole.map(entry => (
          <Folded key={`${run} ${entry.kind}`} {...{ run, prompt, request, selection, entry, settled }} />
        ))}
      </div>
    </>
  );
}

const SOON = 500; // ms after the last view came
const MOST = 4 * 1024 * 1024; // letters of all views that are kept

/** Packs the views that came, in their order, for as much as a notebook should have of them. */
function useKeeping({ run, headline }: RunResult, entries: Entry[], keep: Keep | undefined): OneProps['settled'] {
  const came = useRef(new Map<Entry, Got>());
  const later = useRef<number>();
  const now = useRef({ headline, entries });
  now.current = { headline, entries };
  useEffect(() => {
    came.current.clear();
    return () => window.clearTimeout(later.current);
  }, [run]);
  return useCallback(
    (entry: Entry, got: Got) => {
      if (!keep) {
        return;
      }
      came.current.delete(entry);
      came.current.set(entry, got);
      for (const each of came.current.keys()) {
        if (lettersOf(...came.current.values()) <= MOST) {
          break;
        }
        came.current.delete(each); // the one that came first
      }
      window.clearTimeout(later.current);
      later.current = window.setTimeout(() => {
        const views = now.current.entries.flatMap(each => came.current.get(each) ?? []).map(packed);
        keep({ version: 1, headline: now.current.headline, views });
      }, SOON);
    },
    [keep]
  );
}

/** How long they are as base64. */
const lettersOf = (...views: Got[]): number =>
  views.flatMap(each => each.buffers).reduce((all, buffer) => all + (4 * buffer.byteLength) / 3, 0);

/** A saved value: what and where from, and its view. */
function Saved({ result, entry, children }: { result: RunResult; entry: Entry; children: ReactNode }) {
  const saved = result.saved.find(each => each.name === entry.name);
  const first = (entry.part ?? 0) === 0;
  return (
    <div className={`wb-of-value wb-of-${entry.kind}`} role={first ? 'region' : undefined} aria-label={first ? `Saved ${entry.name}` : undefined}>
      {children}
      {saved && first && (
        <p className="wb-quiet wb-origin">
          {saved.path ? `${saved.path}.${saved.port} · ` : ''}
          {saved.text}
        </p>
      )}
    </div>
  );
}

function Folded(props: OneProps) {
  const [open, setOpen] = useState(OPEN.has(props.entry.kind));
  return (
    <div className={open ? 'wb-unfolded' : 'wb-folded'}>
      <button className="wb-fold" aria-expanded={open} aria-label={props.entry.title} onClick={() => setOpen(!open)}>
        <span aria-hidden>{open ? '▾' : '▸'}</span>
        {!open && ` ${props.entry.title}`}
      </button>
      {open && <One key={`${props.run} ${props.prompt}`} {...props} />}
    </div>
  );
}

/** A view is asked for when it comes near, and given up when it is far and others need the room. */
function One({ run, prompt, request, selection, entry, settled }: OneProps) {
  const of = { run, name: entry.name, part: entry.part ?? 0 };
  const { got, trouble, change, drop } = useLive(request, of, { prompt, kind: entry.kind }, null, got => settled?.(entry, got));
  const host = useRef<HTMLDivElement>(null);
  const near = useNear(host);
  const height = useRef<number>();
  const missing = got === null;
  useEffect(() => {
    if (near && missing) {
      change({});
    }
  }, [near, missing, change]);
  const away = useCallback(() => {
    height.current = host.current?.offsetHeight; // so that nothing moves
    drop();
  }, [drop]);
  useHeld(got?.buffers.reduce((all, each) => all + each.byteLength, 0) ?? 0, near, away);
  return (
    <div ref={host} style={missing ? { minHeight: height.current } : undefined}>
      {trouble !== null ? (
        <section className="wb-view" role="group" aria-label={entry.title}>
          <p className="wb-note">{trouble}</p>
        </section>
      ) : got ? (
        <View header={got.header} buffers={got.buffers} {...{ selection, change, request, of }} />
      ) : (
        <section className="wb-view wb-waiting" role="group" aria-label={entry.title} aria-busy />
      )}
    </div>
  );
}
