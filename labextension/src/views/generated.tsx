/** What was written step by step, with the interventions and without; where they part is marked. */

import type { PromptResult } from '../generated/protocol';
import { visible } from './prompt';

export function GeneratedText({ prompt, label = '' }: { prompt: PromptResult; label?: string }) {
  const steps = prompt.generated;
  if (!steps.length) {
    return null;
  }
  const clean = steps.some(step => step.clean !== null);
  return (
    <section className="wb-block" aria-label={`Generated${label}`}>
      <header>
        <h2>Generated{label}</h2>
        <span className="wb-quiet">
          {steps.length} {steps.length === 1 ? 'step' : 'steps'}
        </span>
      </header>
      <p className="wb-text">
        <span className="wb-quiet">{prompt.prompt}</span>
        {steps.map(step => step.token).join('')}
      </p>
      <div className="wb-scroll" tabIndex={0} role="group" aria-label={`Steps of the generation${label}`}>
        <table className="wb-steps" aria-label="Generated tokens by step">
          <thead>
            <tr>
              <th scope="row">step</th>
              {steps.map(step => (
                <th key={step.step} scope="col">
                  {step.step}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {clean && (
              <tr>
                <th scope="row">before</th>
                {steps.map(step => (
                  <Cell key={step.step} token={step.clean?.token} probability={step.clean?.probability} />
                ))}
              </tr>
            )}
            <tr>
              <th scope="row">{clean ? 'after' : 'token'}</th>
              {steps.map(step => (
                <Cell
                  key={step.step}
                  token={step.token}
                  probability={step.probability}
                  differs={clean && step.clean?.id !== step.id}
                />
              ))}
            </tr>
          </tbody>
        </table>
      </div>
    </section>
  );
}

function Cell({ token, probability, differs = false }: { token?: string; probability?: number; differs?: boolean }) {
  return (
    <td className={differs ? 'wb-differs' : ''}>
      {token === undefined ? (
        <span className="wb-quiet">ended</span>
      ) : (
        <>
          <code>{visible(token)}</code>
          <small>{probability?.toFixed(2)}</small>
        </>
      )}
    </td>
  );
}
