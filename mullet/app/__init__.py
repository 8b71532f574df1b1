"""The composition root: the one place that knows who meets whom."""
