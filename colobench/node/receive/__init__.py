"""Secondary of a real QEMU primary, without a guest: checkpoints go into a file, or nowhere."""
