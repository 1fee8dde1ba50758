"""The computer: compiling, devices that share a batch, what a number was made by."""
