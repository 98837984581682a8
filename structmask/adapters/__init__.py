"""Bridges to other frameworks; nothing in the library imports them."""
