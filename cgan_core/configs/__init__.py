"""The hyperparameters of each family of networks beyond those that all have."""
