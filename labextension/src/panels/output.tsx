/** Views in a cell's output: drawn without a kernel, and live while the notebook's kernel answers. */

import type { IRenderMime } from '@jupyterlab/rendermime-interfaces';
import { ReactWidget } from '@jupyterlab/ui-components';
import type { Request } from '../views/asking';
import { htmlWith, keptIn, KeptViews, MIME } from '../views/kept';
import type { Kept } from '../views/kept';

/** Gives what answers for the notebook in which an element stands; undefined where nobody does. */
export type Answers = (element: HTMLElement) => Request | undefined;

const SOON = 1000; // ms after the last change, the views are kept in the notebook as they are

class ViewsOutput extends ReactWidget implements IRenderMime.IRenderer {
  private kept: Kept | null = null;
  private html = '';
  private model: IRenderMime.IMimeModel | null = null;
  private later: number | undefined;

  constructor(private readonly answers: Answers) {
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
    const request = this.answers(this.node);
    return request ? request(method, params) : Promise.reject(new Error('run the notebook’s first cells, to choose something else'));
  };

  private keep(kept: Kept): void {
    window.clearTimeout(this.later);
    this.later = window.setTimeout(() => {
      if (this.model && !this.isDisposed) {
        this.html = htmlWith(this.html, kept);
        this.model.setData({ data: { ...this.model.data, 'text/html': this.html } });
      }
    }, SOON);
  }

  dispose(): void {
    window.clearTimeout(this.later);
    super.dispose();
  }
}

const words = (data: unknown): string => (Array.isArray(data) ? data.join('') : `${data ?? ''}`);

export const outputs = (answers: Answers): IRenderMime.IRendererFactory => ({
  safe: true,
  mimeTypes: [MIME],
  defaultRank: -10, // before HTML, which has a program for other places
  createRenderer: () => new ViewsOutput(answers)
});
