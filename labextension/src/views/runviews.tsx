/** All that a run has to look at: each entry asks for its view when it is opened, and again when something is chosen. */

import { useEffect, useState } from 'react';
import type { ReactNode } from 'react';
import type { Entry, RunResult } from '../generated/protocol';
import type { Request } from './asking';
import { useLive } from './live';
import { seen } from './numbers';
import type { Selection } from './selection';
import { View } from './view';

interface Props {
  result: RunResult;
  request: Request;
  selection: Selection;
}

interface OneProps {
  run: number;
  prompt: number;
  entry: Entry;
  request: Request;
  selection: Selection;
}

const OPEN = new Set(['residual', 'attention']); // of the whole run; saved values are all open

export function RunViews({ result, request, selection }: Props) {
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
  const whole = entries.filter(entry => entry.name === '');
  const saved = entries.filter(entry => entry.name !== '');
  const drawn = new Set(saved.map(entry => entry.name));
  return (
    <>
      <div className="wb-views">
        {saved.map(entry => (
          <Saved key={`${run} ${entry.name} ${entry.part}`} result={result} entry={entry}>
            <One prompt={0} {...{ run, request, selection, entry }} />
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
          <Folded key={`${run} ${entry.kind}`} {...{ run, prompt, request, selection, entry }} />
        ))}
      </div>
    </>
  );
}

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

function One({ run, prompt, request, selection, entry }: OneProps) {
  const of = { run, name: entry.name, part: entry.part ?? 0 };
  const { got, trouble, change } = useLive(request, of, { prompt, kind: entry.kind });
  useEffect(() => change({}), [change]);
  if (trouble !== null) {
    return (
      <section className="wb-view" role="region" aria-label={entry.title}>
        <p className="wb-note">{trouble}</p>
      </section>
    );
  }
  if (!got) {
    return <section className="wb-view wb-waiting" role="region" aria-label={entry.title} aria-busy />;
  }
  return <View header={got.header} buffers={got.buffers} {...{ selection, change, request, of }} />;
}
