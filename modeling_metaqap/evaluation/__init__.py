"""Measuring checkpoints: metrics, evaluation on data sets, baselines, tables, plots and report files."""
