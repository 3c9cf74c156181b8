"""The report of a run, and figures for print; made from ``results`` alone."""
