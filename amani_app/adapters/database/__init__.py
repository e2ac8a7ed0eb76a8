"""The database: PostgreSQL, or SQLite where nothing else is named."""
