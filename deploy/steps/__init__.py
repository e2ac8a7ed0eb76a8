"""The steps that plans are made of; each knows how to apply and how to take back one change."""
