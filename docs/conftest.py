"""Folders that a docs build leaves behind hold no tests."""

collect_ignore_glob = ["_build/*", "auto_examples/*", "generated/*", "_templates/*"]
