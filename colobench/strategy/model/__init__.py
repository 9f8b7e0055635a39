"""Models of strategies: pure functions from a workload, a link and a calibration to figures."""
