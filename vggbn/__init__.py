"""Batch Normalization, VGG and Inception v1 as pure functions, and their claims as experiments."""
