"""Random and damaged input for the bounds, the raw ops and the file readers; see README.md beside this file."""
