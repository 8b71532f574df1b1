"""Clustered unit commitment and economic dispatch: the problem in numbers, its program, and who solves it."""
