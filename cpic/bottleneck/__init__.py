"""Turn a tensor that is given by its entries into a train, with gradients."""
