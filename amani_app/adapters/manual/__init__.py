"""Bank transfer by hand: payers and operators use their own bank, and an operator confirms.

A checkout answers with a `payto:` URI (RFC 8905) that names the account, the amount and the
reference. The operator reads the bank's statement and confirms with `flask amani bank`. There
are no virtual accounts, and the name of a payee is not checked.
"""
