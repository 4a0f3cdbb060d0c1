/** All that a run has to look at: each entry asks for its view when it is opened, and again when something is chosen. */

import { useCallback, useEffect, useRef, useState } from 'react';
import type { Entry, ViewReply } from '../generated/protocol';
import { Disconnected } from '../transport';
import { SUITS } from './asking';
import type { Change, Options, Request } from './asking';
import type { Selection } from './selection';
import { View } from './view';

interface Props {
  run: number;
  request: Request;
  selection: Selection;
}

const OPEN = new Set(['residual', 'attention']); // of the whole run; saved values are all open

export function RunViews({ run, request, selection }: Props) {
  const [entries, setEntries] = useState<Entry[]>([]);
  useEffect(() => {
    let here = true;
    request('views', { run })
      .then(({ reply }) => here && setEntries(reply.entries))
      .catch(() => here && setEntries([])); // a run without a model any more: its headline stays
    return () => {
      here = false;
    };
  }, [run, request]);
  const whole = entries.filter(entry => entry.name === '');
  const saved = entries.filter(entry => entry.name !== '');
  return (
    <>
      <div className="wb-views">
        {saved.map(entry => (
          <One key={`${run} ${entry.name} ${entry.part}`} {...{ run, request, selection, entry }} />
        ))}
      </div>
      <div className="wb-views">
        {whole.map(entry => (
          <Folded key={entry.kind} {...{ run, request, selection, entry }} />
        ))}
      </div>
    </>
  );
}

function Folded(props: Props & { entry: Entry }) {
  const [open, setOpen] = useState(OPEN.has(props.entry.kind));
  return (
    <div className={open ? undefined : 'wb-folded'}>
      <button className="wb-fold" aria-expanded={open} onClick={() => setOpen(!open)}>
        <span aria-hidden>{open ? '▾' : '▸'}</span> {props.entry.title}
      </button>
      {open && <One key={props.run} {...props} />}
    </div>
  );
}

interface Got {
  view: ViewReply['view'];
  buffers: DataView[];
}

function One({ run, request, selection, entry }: Props & { entry: Entry }) {
  const [got, setGot] = useState<Got | null>(null);
  const [trouble, setTrouble] = useState<string | null>(null);
  const number = useRef(0);
  const last = useRef<Options>({ ...SUITS, kind: entry.kind });
  const change = useCallback(
    (change: Change) => {
      const mine = ++number.current;
      const other = change.kind && change.kind !== last.current.kind; // another kind has other choices
      last.current = { ...(other ? SUITS : last.current), ...change };
      request('view', { run, name: entry.name, part: entry.part, ...last.current })
        .then(({ reply, buffers }) => {
          if (mine === number.current) {
            setGot({ view: reply.view, buffers });
            setTrouble(null);
          }
        })
        .catch(error => {
          if (mine === number.current && !(error instanceof Disconnected)) {
            setTrouble(error instanceof Error ? error.message : String(error));
          }
        });
    },
    [run, request, entry]
  );
  useEffect(() => change({}), [change]);
  if (trouble !== null) {
    return (
      <section className="wb-view" role="region" aria-label={entry.title}>
        <p className="wb-note">{trouble}</p>
        {trouble.includes('attn_implementation') && (
          <button className="wb-button" onClick={() => change({ eager: true })}>
            Use eager attention
          </button>
        )}
      </section>
    );
  }
  if (!got) {
    return <section className="wb-view wb-waiting" role="region" aria-label={entry.title} aria-busy />;
  }
  const of = { run, name: entry.name, part: entry.part ?? 0 };
  return <View header={got.view} buffers={got.buffers} {...{ selection, change, request, of }} />;
}
