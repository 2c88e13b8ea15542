"""Generate videos through a gateway from Airflow: pay once, wait for nothing, land whole."""

__version__ = "0.1.0"
