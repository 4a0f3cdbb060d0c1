/** Views in a cell's output: drawn without a kernel, and live while the notebook's kernel answers; the workbench too. */

import type { IRenderMime } from '@jupyterlab/rendermime-interfaces';
import { ReactWidget } from '@jupyterlab/ui-components';
import type { Message } from '@lumino/messaging';
import { Panel, Widget } from '@lumino/widgets';
import type { Request } from '../views/asking';
import { htmlWith, keptIn, KeptViews, KEPT, MIME } from '../views/kept';
import type { Kept } from '../views/kept';

/** What of a notebook an output needs to know. */
export interface Around {
  /** Gives what answers for the notebook in which an element stands; undefined where nobody does. */
  answers(element: HTMLElement): Request | undefined;
  /** Whether the notebook's kernel has a widget. */
  has(element: HTMLElement, widget: string): Promise<boolean>;
  /** What draws the notebook's widgets. */
  drawing(element: HTMLElement): IRenderMime.IRenderer | undefined;
}

interface Bundle {
  /** Drawn in the views' place, while its kernel is there. */
  widget?: string | null;
}

const SOON = 500; // ms after the last change, the views are kept in the notebook as they are
export const WIDGET = 'application/vnd.jupyter.widget-view+json';

class ViewsOutput extends ReactWidget {
  private kept: Kept | null = null;
  private html = '';
  private model: IRenderMime.IMimeModel | null = null;
  private later: number | undefined;

  constructor(private readonly around: Around) {
    super();
    this.addClass('wb-output');
  }

  async renderModel(model: IRenderMime.IMimeModel): Promise<void> {
    const html = words(model.data['text/html']);
    this.model = model;
    if (html !== this.html) {
      this.html = html;
      this.kept = keptIn(html);
      this.update();
      await this.renderPromise;
    }
  }

  render() {
    if (!this.kept) {
      return <p className="wb-note">These views cannot be read; run the cell again.</p>;
    }
    return <KeptViews kept={this.kept} request={this.request} keep={kept => this.keep(kept)} />;
  }

  private readonly request: Request = (method, params) => {
    const request = this.around.answers(this.node);
    return request ? request(method, params) : Promise.reject(new Error('run the notebook’s first cells, to choose something else'));
  };

  /** The views as they are now, into the notebook. */
  keep(kept: Kept): void {
    window.clearTimeout(this.later);
    this.later = window.setTimeout(() => {
      if (this.model && !this.isDisposed) {
        this.html = htmlWith(this.html, kept);
        this.kept = kept;
        this.model.setData({ data: { ...this.model.data, 'text/html': this.html } });
      }
    }, SOON);
  }

  dispose(): void {
    window.clearTimeout(this.later);
    super.dispose();
  }
}

/** The last views; or in their place the widget that they are of, while it is there. */
class Output extends Panel implements IRenderMime.IRenderer {
  private readonly views: ViewsOutput;
  private live: Widget | null = null;
  private model: IRenderMime.IMimeModel | null = null;

  constructor(private readonly around: Around) {
    super();
    this.views = new ViewsOutput(around);
    this.addWidget(this.views);
    this.node.addEventListener(KEPT, event => {
      event.stopPropagation();
      this.views.keep((event as CustomEvent<Kept>).detail);
    });
  }

  async renderModel(model: IRenderMime.IMimeModel): Promise<void> {
    this.model = model;
    if (!this.live) {
      await this.views.renderModel(model);
      await this.enliven();
    }
  }

  protected onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    void this.enliven();
  }

  private async enliven(): Promise<void> {
    const model = this.model;
    const { widget } = (model?.data[MIME] ?? {}) as Bundle;
    if (!model || !widget || this.live || !this.isAttached || !(await this.around.has(this.node, widget))) {
      return;
    }
    const live = this.live || this.isDisposed ? undefined : this.around.drawing(this.node);
    if (!live) {
      return;
    }
    this.live = live;
    this.views.hide();
    this.addWidget(live);
    await live.renderModel(model);
  }
}

const words = (data: unknown): string => (Array.isArray(data) ? data.join('') : `${data ?? ''}`);

export const outputs = (around: Around): IRenderMime.IRendererFactory => ({
  safe: true,
  mimeTypes: [MIME],
  defaultRank: -20, // before HTML, which has a program for other places, and before widgets
  createRenderer: () => new Output(around)
});
