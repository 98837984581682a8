"""Experiments: does a mask help, and what does it cost? One command each: ``python -m experiments.motif``."""
