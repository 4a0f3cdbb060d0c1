"""Running a graph inside a forward pass: plan, hooks, shapes before the run, rows of each invoke."""
