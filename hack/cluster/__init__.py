"""A cluster of one real node on this machine: containerd, kubelet, kube-proxy, CoreDNS and volumes; needs root.

All of it lives in network, process and mount namespaces of its own, which the kernel takes away with its first process.
"""
