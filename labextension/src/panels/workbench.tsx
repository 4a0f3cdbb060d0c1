/** The panel as a widget of JupyterLab's right side bar. */

import { ReactWidget } from '@jupyterlab/ui-components';
import type { Message } from '@lumino/messaging';
import type { Bench } from '../bench';
import type { Beside, Draw } from '../views/code';
import { Panel } from '../views/panel';

export class WorkbenchPanel extends ReactWidget {
  constructor(
    private readonly bench: Bench,
    private readonly draw: Draw,
    private readonly beside: Beside
  ) {
    super();
    this.id = 'workbench-panel';
    this.addClass('wb-panel');
    this.addClass('wb-new');
    this.title.label = 'Workbench';
    this.title.caption = 'Workbench: look inside a model';
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', 'Workbench');
  }

  protected onAfterShow(message: Message): void {
    super.onAfterShow(message);
    window.setTimeout(() => {
      this.removeClass('wb-new'); // once the layout has given it its width
      this.parent?.fit();
    }, 1000);
  }

  render() {
    return <Panel bench={this.bench} draw={this.draw} beside={this.beside} />;
  }
}
