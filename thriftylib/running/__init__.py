"""What plans, executes, collects and reports the papers' grids."""
