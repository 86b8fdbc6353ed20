"""The environment's database: engines, transactions, SQLSTATEs, named queries, and the migrations of our schema."""
