"""What the training loop (``neuromend.train``) is made of: settings, state, data order, guards, log, scores, export."""
