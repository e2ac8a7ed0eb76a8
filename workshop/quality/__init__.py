"""Checks of `invoke lint`, and the test suite of `invoke test`."""
