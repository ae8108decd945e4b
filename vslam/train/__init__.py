"""Training: the extra `vslam[train]`. It imports the rest of the package; nothing else imports it."""
