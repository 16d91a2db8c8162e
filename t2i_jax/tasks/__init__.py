"""What a batch means for a model: one file per objective."""
