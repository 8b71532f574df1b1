"""One module per firmware: what it says on the wire and what that means. Only worker processes import these."""
