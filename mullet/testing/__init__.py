"""The kit that tests drivers, meters and switches against their contract; nothing that runs imports it."""
