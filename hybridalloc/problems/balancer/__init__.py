"""The balancer: requests to language models over replicas, on stale reports."""
