"""Load for a cluster, and what it measures: `penstock bench`."""
