"""The power controller of a mullet data center: Bitcoin in the back, AI in the front."""

__version__ = "0.1.0"
