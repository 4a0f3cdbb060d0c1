/**
 * What draws the workbench outside JupyterLab's own side panel: a widget in a cell, and the views that a saved or exported
 * notebook has in it. One file, loaded once in a page.
 */

import { createRoot } from 'react-dom/client';
import type { Root } from 'react-dom/client';
import type { ReactNode } from 'react';
import base from '../../style/base.css';
import cards from '../../style/cards.css';
import results from '../../style/results.css';
import modules from '../../style/tree.css';
import views from '../../style/views.css';
import widget from '../../style/widget.css';
import { Bench } from '../bench';
import { empty } from '../experiment';
import type { Request } from '../views/asking';
import { isDark } from '../views/colours';
import { KEPT, KeptViews, MIME } from '../views/kept';
import type { Kept } from '../views/kept';
import { App } from './app';
import { WidgetTransport } from './transport';
import type { Model } from './transport';

/** Draw into an element, in our style. */
function mount(host: HTMLElement, what: ReactNode): Root {
  styled(host);
  const root = createRoot(host);
  root.render(what);
  return root;
}

/** Our style once in whatever tree the element stands in, and colours where the page has none of Jupyter's. */
function styled(host: HTMLElement): void {
  const tree = host.getRootNode();
  const place = tree instanceof ShadowRoot ? tree : document.head;
  if (!place.querySelector('style[data-workbench]')) {
    const style = document.createElement('style');
    style.dataset.workbench = '';
    const text = [base, modules, cards, results, views, widget].join('\n');
    // A shadow tree, as marimo makes, has no root element.
    style.textContent = tree instanceof ShadowRoot ? text.replaceAll(':root {', '.wb-root {') : text;
    place.append(style);
  }
  host.classList.add('wb-root');
  if (!getComputedStyle(host).getPropertyValue('--jp-layout-color1')) {
    host.classList.add('wb-bare');
    host.classList.toggle('wb-dark', isDark(host));
  }
}

/** The widget, as anywidget calls it. */
function render({ model, el }: { model: Model; el: HTMLElement }): () => void {
  const content = model.get('kept') as Kept | null;
  if (content) {
    const line = new WidgetTransport(model, () => undefined);
    const request: Request = (method, params) => line.request(method, params);
    const shown = mount(el, <KeptViews kept={content} request={request} />);
    // To the output that it stands in, if any, which keeps in the notebook what is shown last.
    const tell = () => el.dispatchEvent(new CustomEvent(KEPT, { bubbles: true, detail: model.get('kept') as Kept }));
    const again = () => {
      shown.render(<KeptViews kept={model.get('kept') as Kept} request={request} />);
      tell();
    };
    model.on('change:kept', again);
    if (content.views.length) {
      requestAnimationFrame(tell);
    }
    return () => {
      model.off('change:kept', again);
      shown.unmount();
      line.dispose();
    };
  }
  const bench = new Bench({ keep: () => undefined, ran: () => undefined });
  bench.open('', { ...empty(), model: String(model.get('chosen') ?? '') });
  void bench.attach(new WidgetTransport(model, events => bench.heard(events)));
  const shown = mount(el, <App bench={bench} />);
  return () => {
    shown.unmount();
    bench.dispose();
  };
}

/** Draw all views that stand in this page as data, each in its place. */
function draw(): void {
  for (const host of document.querySelectorAll<HTMLElement>('.workbench-view:not([data-drawn])')) {
    const data = host.querySelector(`script[type="${MIME}"]`);
    if (data?.textContent) {
      host.dataset.drawn = '';
      const kept = JSON.parse(data.textContent) as Kept;
      const outside = document.createElement('div');
      const inside = document.createElement('div');
      host.replaceChildren(data, outside);
      outside.attachShadow({ mode: 'open' }).append(inside); // a page's style of lists and tables is not for ours
      mount(inside, <KeptViews kept={kept} />);
    }
  }
}

export const workbench = { render, draw };
