"""One feature vector for every one of many trains."""
