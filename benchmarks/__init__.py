"""Measured claims, one a file: a table for people, one JSON object with --json."""
