"""The doors of the daemon. Each only translates; what is done is `daemon.service`'s business."""
