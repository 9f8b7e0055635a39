"""A guest that KVM runs: a virtual CPU with boot code of our own."""
