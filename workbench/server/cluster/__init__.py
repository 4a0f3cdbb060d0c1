"""Cluster: workers on a Ray cluster, behind the same queue; nothing of Ray is imported in the API process."""
