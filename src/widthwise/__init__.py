"""Widthwise: forecast how a neural network will learn."""
