/** The Results tab as a widget of JupyterLab's main area. */

import { ReactWidget } from '@jupyterlab/ui-components';
import type { Bench } from '../bench';
import { Results } from '../views/results';

export class ResultsPanel extends ReactWidget {
  constructor(private readonly bench: Bench) {
    super();
    this.addClass('wb-results');
  }

  render() {
    return <Results bench={this.bench} />;
  }
}
