"""Networks of integers alone: from a network on a chip to integer operations, an interpreter and ONNX."""
