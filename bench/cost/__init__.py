"""What every pass of CNN3 and CNN5 should cost: ``python -m bench.cost`` prints the table, ``cost.md`` explains it."""
