"""Masked attention at work on real inputs: ``python -m demo`` measures it and writes one page that explains itself."""
