"""A Kubernetes control plane on this machine: etcd, API server, controllers, scheduler; no node unless simulated."""
