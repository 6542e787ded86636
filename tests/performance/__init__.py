"""Programs that measure. Nothing of them is asserted: run by hand, figures in docs/performance.md."""
