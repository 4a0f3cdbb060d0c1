/** The Python of the experiment, always in sight, in the notebook's own colours. */

import { CodeEditor } from '@jupyterlab/codeeditor';
import { useEffect, useRef, useState } from 'react';

interface Props {
  code: string;
  editors: CodeEditor.Factory;
  insert(code: string): void;
}

export function Code({ code, editors, insert }: Props) {
  const host = useRef<HTMLDivElement>(null);
  const model = useRef<CodeEditor.Model | null>(null);
  const [copied, setCopied] = useState(false);

  useEffect(() => {
    if (!host.current) {
      return;
    }
    const made = new CodeEditor.Model({ mimeType: 'text/x-python' });
    const editor = editors({
      host: host.current,
      model: made,
      config: { readOnly: true, lineNumbers: false, lineWrap: true }
    });
    editor.host.querySelector('.cm-content')?.setAttribute('aria-label', 'Python of the experiment');
    model.current = made;
    return () => {
      model.current = null;
      editor.dispose();
      made.dispose();
    };
  }, [editors]);
  useEffect(() => model.current?.sharedModel.setSource(code), [code, editors]);
  useEffect(() => {
    if (!copied) {
      return;
    }
    const timer = window.setTimeout(() => setCopied(false), 1500);
    return () => window.clearTimeout(timer);
  }, [copied]);

  return (
    <section className="wb-section" role="region" aria-label="Code">
      <header>
        <h2>Code</h2>
        <span className="wb-links">
          <button
            disabled={!code}
            onClick={() => void navigator.clipboard.writeText(code).then(() => setCopied(true))}
          >
            Copy
          </button>
          <button disabled={!code} onClick={() => insert(code)}>
            Insert as cell
          </button>
          <span className="wb-good" aria-live="polite">
            {copied ? 'copied' : ''}
          </span>
        </span>
      </header>
      <div className="wb-code" ref={host} />
    </section>
  );
}
