/** Capsules: a run as one file, opened again elsewhere or later, run again, and compared with what it was. */

import { useState } from 'react';
import type { Bench, State } from '../bench';
import type { CapsuleReply } from '../generated/protocol';

export function Capsules({ bench, state }: { bench: Bench; state: State }) {
  const [path, setPath] = useState('');
  const { capsule } = state;
  const open = () => void bench.openCapsule(path.trim());
  return (
    <section className="wb-capsules" aria-label="Capsules">
      <header>
        <h2>Capsule</h2>
        <span className="wb-quiet">one file: experiment, code, prompts, seeds, versions, results</span>
      </header>
      <div className="wb-line">
        <input
          className="wb-field wb-path"
          aria-label="Capsule file"
          placeholder="run-3.capsule, beside the notebook"
          spellCheck={false}
          value={path}
          onChange={event => setPath(event.target.value)}
          onKeyDown={event => event.key === 'Enter' && path.trim() && open()}
        />
        <button className="wb-button" disabled={!path.trim() || !bench.attached} onClick={open}>
          Open capsule
        </button>
      </div>
      {capsule && <Opened key={capsule.path} bench={bench} capsule={capsule} />}
    </section>
  );
}

function Opened({ bench, capsule }: { bench: Bench; capsule: CapsuleReply }) {
  const [read, setRead] = useState(false);
  const { path, headline, model, versions, foreign, differs } = capsule;
  const needed = Object.entries(versions).map(([name, version]) => `${name} ${version}`);
  return (
    <div className="wb-capsule" role="group" aria-label={`Capsule ${path}`}>
      <p className="wb-headline">
        <b>{path}</b> · {headline}
      </p>
      <p className="wb-quiet" title={needed.join('\n')}>
        made with {model} · {needed.slice(0, 4).join(' · ')}
      </p>
      <p className="wb-quiet">
        {differs.length ? `This kernel differs from the one it was made in: ${differs.join('; ')}` : 'This kernel is as the one it was made in.'}
      </p>
      {foreign.length > 0 && (
        <>
          <p className="wb-amber">It brings Python of its own, which could do anything here. Read it first:</p>
          {foreign.map(code => (
            <pre key={code} tabIndex={0}>
              {code}
            </pre>
          ))}
          <label>
            <input type="checkbox" checked={read} onChange={event => setRead(event.target.checked)} /> I have read its code, and let it run
          </label>
        </>
      )}
      <div className="wb-line">
        <button
          className="wb-primary"
          disabled={bench.running || (foreign.length > 0 && !read)}
          onClick={() => void bench.rerunCapsule(read)}
        >
          Rerun and compare
        </button>
        <button className="wb-button" onClick={() => bench.adopt(capsule.experiment, `Opened from ${path}.`)}>
          Open in the panel
        </button>
      </div>
    </div>
  );
}
