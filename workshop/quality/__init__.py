"""The checks that `invoke lint` and `invoke test` run."""
