"""HTTP: health, metrics, and the JSON paths of a node registry, for browsers, Prometheus and machines without peerd."""
