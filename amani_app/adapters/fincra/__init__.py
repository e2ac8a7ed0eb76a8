"""Fincra: collections by checkout, payouts to bank accounts, signed notices."""
