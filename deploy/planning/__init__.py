"""Planning: pure functions from facts to a plan, and the strategies behind them."""
