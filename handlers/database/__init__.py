"""The environment's database: transactions, SQLSTATEs, named queries, and the migrations of our own schema."""
