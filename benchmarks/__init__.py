"""Speed and memory beside other libraries, as ratios measured side by side in one process.

``python -m benchmarks`` runs everything, ``python -m benchmarks toeplitz causal`` some of it; ``--help`` says what
there is.
"""
