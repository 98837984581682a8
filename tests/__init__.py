"""Tests; a package only so that they can share `naive` (the definitions) and `cases` (the matrices)."""
