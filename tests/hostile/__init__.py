"""Hostile files and calls against the real server, each with the code it must be answered with and a budget.

``make hostile`` runs all of them and prints the table of ``docs/security.md``; ``tests/test_hostile.py`` runs a cross-section.
"""
