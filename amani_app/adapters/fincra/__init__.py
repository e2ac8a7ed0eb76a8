"""Fincra: collections by checkout, pay-outs to bank accounts, signed notices."""
