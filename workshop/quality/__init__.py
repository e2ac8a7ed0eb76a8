"""The checks and tests of the checkout: `invoke lint`, `invoke test`, `invoke ci.workflows`."""
