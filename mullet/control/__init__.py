"""The loop: observe, decide, journal, send, verify; everything it touches is handed in."""
