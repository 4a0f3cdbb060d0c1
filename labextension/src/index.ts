/** Wires the panel and the results tab into JupyterLab; what they do stands elsewhere. */

import { ILayoutRestorer } from '@jupyterlab/application';
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette, MainAreaWidget, WidgetTracker } from '@jupyterlab/apputils';
import { IEditorServices } from '@jupyterlab/codeeditor';
import { INotebookTracker, NotebookActions } from '@jupyterlab/notebook';
import { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import { IStateDB } from '@jupyterlab/statedb';
import { Bench } from './bench';
import { saver } from './files';
import { Follower, key } from './follower';
import { drawing } from './panels/editor';
import { outputs, WIDGET } from './panels/output';
import { ResultsPanel } from './panels/results';
import { WorkbenchPanel } from './panels/workbench';

const SHOW_RESULTS = 'workbench:results';
const LIFT = 'workbench:open-cell';
const SEEN = 'workbench:seen';
const NO_ARGUMENTS = { describedBy: { args: { type: 'object', properties: {} } } };

const plugin: JupyterFrontEndPlugin<void> = {
  id: 'workbench:panel',
  description: 'Look inside the models of a notebook and change what they compute.',
  autoStart: true,
  requires: [INotebookTracker, IEditorServices, IStateDB, IRenderMimeRegistry],
  optional: [ILayoutRestorer, ICommandPalette],
  activate: (
    app: JupyterFrontEnd,
    notebooks: INotebookTracker,
    editors: IEditorServices,
    store: IStateDB,
    rendermime: IRenderMimeRegistry,
    restorer: ILayoutRestorer | null,
    palette: ICommandPalette | null
  ) => {
    const began = performance.now();
    const bench = new Bench({
      keep: (place, experiment) => void store.save(key(place), experiment as never),
      ran: () => void showResults(false)
    });
    const follower = new Follower(bench, store);
    const panel = new WorkbenchPanel(bench, drawing(editors.factoryService.newInlineEditor), {
      insert: code => {
        const notebook = notebooks.currentWidget?.content;
        if (notebook) {
          NotebookActions.insertBelow(notebook);
          notebook.activeCell?.model.sharedModel.setSource(code);
        }
      },
      save: saver(app.serviceManager.contents, notebooks)
    });
    const around = (element: HTMLElement) => notebooks.find(each => each.node.contains(element));
    rendermime.addFactory(
      outputs({
        answers: element =>
          bench.attached && around(element)?.context.path === bench.state.place ? bench.request : undefined,
        has: async (element, widget) => {
          const session = around(element)?.sessionContext;
          await session?.ready;
          const found = await session?.session?.kernel?.requestCommInfo({ target_name: 'jupyter.widget' });
          return found?.content.status === 'ok' && widget in found.content.comms;
        },
        drawing: element => around(element)?.content.rendermime.createRenderer(WIDGET)
      })
    );
    app.shell.add(panel, 'right', { rank: 100 });
    restorer?.add(panel, panel.id);

    const results = new WidgetTracker<MainAreaWidget<ResultsPanel>>({ namespace: 'workbench-results' });
    const showResults = async (focus: boolean) => {
      if (results.currentWidget) {
        if (focus) {
          app.shell.activateById(results.currentWidget.id);
        }
        return;
      }
      const widget = new MainAreaWidget({ content: new ResultsPanel(bench) });
      widget.id = 'workbench-results';
      widget.title.label = 'Results';
      widget.title.closable = true;
      const ref = notebooks.currentWidget?.id;
      app.shell.add(widget, 'main', { mode: 'split-bottom', ref, activate: focus });
      await results.add(widget);
    };
    app.commands.addCommand(SHOW_RESULTS, {
      label: 'Show Workbench Results',
      execute: () => showResults(true),
      ...NO_ARGUMENTS
    });
    app.commands.addCommand(LIFT, {
      label: 'Open in Workbench',
      caption: 'Read this cell’s Python into the Workbench panel',
      execute: async () => {
        const cell = notebooks.currentWidget?.content.activeCell;
        if (cell) {
          app.shell.activateById(panel.id);
          await bench.lift(cell.model.sharedModel.getSource());
        }
      },
      ...NO_ARGUMENTS
    });
    app.contextMenu.addItem({ command: LIFT, selector: '.jp-Notebook .jp-CodeCell', rank: 20 });
    for (const command of [SHOW_RESULTS, LIFT]) {
      palette?.addItem({ command, category: 'Workbench' });
    }
    void restorer?.restore(results, { command: SHOW_RESULTS, name: () => 'results' });

    const follow = () => {
      if (notebooks.currentWidget) {
        void follower.look(notebooks.currentWidget);
      }
    };
    notebooks.currentChanged.connect(follow);
    notebooks.widgetAdded.connect((_, added) => {
      added.disposed.connect(() => {
        if (notebooks.size === 0) {
          void follower.look(null);
        }
      });
    });

    performance.measure('workbench:start', { start: began });
    void app.restored.then(async () => {
      follow();
      if ((await store.fetch(SEEN)) === undefined) {
        app.shell.activateById(panel.id);
        await store.save(SEEN, true);
      }
    });
  }
};

export default plugin;
