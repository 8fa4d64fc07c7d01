"""What estimators with a population share: evotorch's problem and its actors. Imported only where one is built."""
