"""How a stage's steps reach the devices: one call for many of them, and for all of its replicas."""
